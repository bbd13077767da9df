"""SQLAlchemy sessions and connections, async and sync, over asyncpg and psycopg: all or nothing, by one insert."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy import event as listening
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tidings import ServiceError, StoreVersionError
from tidings.integrations.sqlalchemy import publish


class Model(DeclarativeBase):
    pass


class Order(Model):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(postgres_url.replace("postgresql://", f"postgresql+{request.param}://"))
    yield made
    await made.dispose()


@pytest.fixture
def sync_engine(postgres_url: str) -> Iterator[Engine]:
    made = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    made.dispose()


@pytest.fixture
def order(service, Placed) -> Callable[..., Any]:  # noqa: N803
    """Add an order to a session, and publish that it was placed."""

    def place(session, number: int) -> None:
        session.add(Order(id=str(number)))
        publish(session, Placed(order_id=str(number), number=number), service=service)

    return place


async def test_ten_events_of_a_session_are_one_insert_at_the_commit(engine, order, log) -> None:
    async with AsyncSession(engine) as session:
        for number in range(10):
            order(session, number)
        await session.flush()
        assert await log.numbers() == []
        await session.commit()
        order(session, 10)
        await session.commit()
    assert await log.numbers() == list(range(11))
    assert await log.inserts() == 2
    assert len(await log.orders()) == 11


async def test_a_rollback_takes_the_events_along(engine, order, log) -> None:
    async with AsyncSession(engine) as session:
        order(session, 1)
        await session.rollback()
        order(session, 2)
        await session.flush()
        await session.rollback()
        order(session, 3)
        await session.commit()
    async with AsyncSession(engine) as session:
        order(session, 4)  # closed without a commit
    assert await log.numbers() == [3]
    assert await log.orders() == ["3"]


async def test_only_an_event_and_no_statement_before_it(engine, service, Placed, log) -> None:  # noqa: N803
    async with AsyncSession(engine) as session:
        publish(session, Placed(order_id="a", number=1), service=service)
        await session.rollback()
        publish(session, Placed(order_id="a", number=2), service=service)
        await session.commit()
        await session.commit()
    assert await log.numbers() == [2]


async def test_a_savepoint_rolled_back_takes_only_its_events_along(engine, order, log, undone) -> None:
    async with AsyncSession(engine) as session, session.begin():
        order(session, 1)
        async with session.begin_nested():
            order(session, 2)
            with undone():
                async with session.begin_nested():
                    order(session, 3)
                    raise LookupError
            order(session, 4)
        with undone():
            async with session.begin_nested():
                order(session, 5)
                async with session.begin_nested():
                    order(session, 6)
                raise LookupError
        order(session, 7)
    assert await log.numbers() == [1, 2, 4, 7]
    assert await log.inserts() == 1
    assert await log.orders() == ["1", "2", "4", "7"]


async def test_a_first_event_within_a_savepoint_goes_with_it(engine, order, log) -> None:
    async with AsyncSession(engine) as session, session.begin():
        nested = await session.begin_nested()
        order(session, 1)
        await nested.rollback()
        order(session, 2)
    assert await log.numbers() == [2]


async def test_a_savepoint_that_is_left_open_commits_with_the_root(engine, order, log) -> None:
    async with AsyncSession(engine) as session, session.begin():
        order(session, 1)
        await session.begin_nested()
        order(session, 2)
    assert await log.numbers() == [1, 2]
    assert await log.inserts() == 1


async def test_a_failed_flush_publishes_nothing(engine, order, log) -> None:
    async with AsyncSession(engine) as session:
        order(session, 1)
        session.add(Order(id="1"))
        with pytest.raises(Exception, match=r"orders_pkey|conflicts with"):
            await session.commit()
        await session.rollback()
        order(session, 2)
        await session.commit()
    assert await log.numbers() == [2]


async def test_a_connection_with_a_savepoint(engine, service, Placed, log, undone) -> None:  # noqa: N803
    async with engine.connect() as connection:
        publish(connection, Placed(order_id="a", number=1), service=service)
        with undone():
            async with connection.begin_nested():
                publish(connection, Placed(order_id="a", number=2), service=service)
                raise LookupError
        publish(connection, Placed(order_id="a", number=3), service=service)
        await connection.commit()
        publish(connection, Placed(order_id="a", number=4), service=service)
        await connection.rollback()
        publish(connection, Placed(order_id="a", number=5), service=service)
    assert await log.numbers() == [1, 3]
    assert await log.inserts() == 1


def test_sync_session_and_connection(sync_engine, order, service, Placed, undone) -> None:  # noqa: N803
    with Session(sync_engine) as session:
        for number in range(10):
            order(session, number)
        with undone(), session.begin_nested():
            order(session, 10)
            raise LookupError
        session.commit()
        order(session, 11)
        session.rollback()
    with sync_engine.begin() as connection:
        publish(connection, Placed(order_id="c", number=12), service=service)
    with sync_engine.connect() as connection:
        found = connection.execute(text("SELECT (data->>'number')::int FROM tidings.events ORDER BY position"))
        assert list(found.scalars()) == [*range(10), 12]
        inserts = connection.execute(text("SELECT count(DISTINCT (xmin::text, cmin::text)) FROM tidings.log"))
        assert inserts.scalar() == 2


async def test_a_session_joined_to_an_outer_transaction_waits_for_it(sync_engine, order, log) -> None:
    with sync_engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            order(session, 1)
            session.commit()
        outer.rollback()
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            order(session, 2)
            session.commit()
            assert await log.numbers() == []
        outer.commit()
    assert await log.numbers() == [2]


async def test_what_listeners_publish_during_the_commit_goes_with_it(engine, order, service, Placed, log) -> None:  # noqa: N803
    def publish_number(session: Session, number: int) -> None:
        publish(session, Placed(order_id="a", number=number), service=service)

    class Listened(Session):
        """Its listeners are of no other session."""

    @listening.listens_for(Listened, "before_commit")
    def commits(session: Session) -> None:
        if session.get_nested_transaction() is None:
            publish_number(session, 0)

    @listening.listens_for(Listened, "before_flush")
    def flushes(session: Session, *_: object) -> None:
        for added in session.new:
            publish_number(session, int(added.id))

    @listening.listens_for(Order, "after_insert")
    def inserted(_mapper: object, _connection: object, added: Order) -> None:
        session = Session.object_session(added)
        if isinstance(session, Listened):
            publish_number(session, int(added.id) + 1)

    async with AsyncSession(engine, sync_session_class=Listened) as session:
        await session.commit()
        assert await log.numbers() == [0]
        session.add(Order(id="10"))
        await session.commit()
        session.add(Order(id="20"))
        await session.flush()
        await session.rollback()
        assert await log.numbers() == [0, 0, 10, 11]
        root = await session.begin()
        await session.begin_nested()  # left open
        session.add(Order(id="30"))
        await root.commit()
    listening.remove(Order, "after_insert", inserted)
    assert sorted((await log.numbers())[4:]) == [30, 31]
    assert await log.inserts() == 3


async def test_a_failed_commit_of_a_savepoint_leaves_no_commit_under_way(engine, order, log) -> None:
    async with AsyncSession(engine) as session, session.begin():
        order(session, 1)
        await session.flush()
        with pytest.raises(Exception, match=r"orders_pkey|conflicts with"):
            async with session.begin_nested():
                session.add(Order(id="1"))
        async with session.begin_nested():
            order(session, 2)
    assert await log.numbers() == [1, 2]


async def test_a_publish_after_the_commit_is_not_lost_in_silence(engine, order, service, Placed, log) -> None:  # noqa: N803
    async with AsyncSession(engine) as session:

        @listening.listens_for(session.sync_session, "after_commit")
        def late(session: Session) -> None:
            publish(session, Placed(order_id="late"), service=service)

        order(session, 1)
        with pytest.raises(InvalidRequestError, match="committed"):
            await session.commit()
    assert await log.numbers() == [1]


async def test_a_chosen_id_is_published_once_and_a_delayed_one_later(engine, service, Placed, log) -> None:  # noqa: N803
    from datetime import timedelta

    for _ in range(2):
        async with AsyncSession(engine) as session:
            publish(session, Placed(order_id="a", number=1), service=service, id="chosen")
            publish(session, Placed(order_id="a", number=2), service=service, delay=timedelta(hours=1))
            await session.commit()
    assert await log.numbers() == [1]
    assert await log.rows("SELECT count(*) FROM tidings.scheduled") == [(2,)]


async def test_a_database_without_the_log_says_what_to_do(postgres_server, Placed) -> None:  # noqa: N803
    from tidings import Service

    elsewhere = create_async_engine(postgres_server.replace("postgresql://", "postgresql+asyncpg://"))
    async with AsyncSession(elsewhere) as session:
        publish(session, Placed(order_id="a"), service=Service("lost", store=postgres_server))
        with pytest.raises(StoreVersionError, match="tidings store migrate"):
            await session.commit()
    await elsewhere.dispose()


async def test_a_service_on_sqlite_is_refused(engine, Placed) -> None:  # noqa: N803
    from tidings import Service

    async with AsyncSession(engine) as session:
        publish(session, Placed(order_id="a"), service=Service("small", store="sqlite:///:memory:"))
        with pytest.raises(ServiceError, match="outbox_row"):
            await session.commit()


async def test_a_subscription_gets_the_events_in_order(engine, service, Placed, until) -> None:  # noqa: N803
    from tidings import Transaction

    seen: list[int] = []

    async def note(event: Placed, tx: Transaction) -> None:  # type: ignore[valid-type]
        seen.append(event.number)

    note.__annotations__ = {"event": Placed, "tx": Transaction}
    service.subscribe(Placed, ordered=True)(note)
    async with service:
        sessions = async_sessionmaker(engine)
        for first in range(0, 20, 5):
            async with sessions.begin() as session:
                for number in range(first, first + 5):
                    session.add(Order(id=str(number)))
                    publish(session, Placed(order_id="one", number=number), service=service)
        await until(lambda: len(seen) == 20)
    assert seen == list(range(20))
