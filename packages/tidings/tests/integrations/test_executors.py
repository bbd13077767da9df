"""Handlers that write through another library: their writes, their events and the settlement are one transaction."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from tidings import HandlerError, RetryPolicy, Service, SyncWork, Transaction, Work, points
from tidings.integrations import psycopg as on_psycopg
from tidings.integrations import sqlalchemy as on_sqlalchemy

CHARGE = "INSERT INTO charges (order_id, attempt) VALUES ('{0}', 1)"
SOON = RetryPolicy(attempts=3, backoff=timedelta(milliseconds=10))
tries: Counter[str] = Counter()


def may_fail(order_id: str) -> None:
    tries[order_id] += 1
    if order_id == "twice" and tries[order_id] < 3:
        raise ValueError("not yet")
    if order_id == "never":
        raise ValueError("never")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    tries.clear()
    yield
    points.watch(None)


def alchemy(driver: str) -> Callable[..., Any]:
    @asynccontextmanager
    async def subscribed(service: Service, url: str, placed: type, charged: type) -> AsyncIterator[None]:
        engine = create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))

        @service.subscribe(placed, ordered=True, retry=SOON, after_dead="continue",
                           executor=on_sqlalchemy.sqlalchemy_executor(async_sessionmaker(engine)))  # fmt: skip
        async def charge(event: placed, session: AsyncSession) -> None:  # type: ignore[valid-type]
            await session.execute(text(CHARGE.format(event.order_id)))
            on_sqlalchemy.publish(session, charged(order_id=event.order_id))
            may_fail(event.order_id)

        yield
        await engine.dispose()

    return subscribed


@asynccontextmanager
async def blocking_alchemy(service: Service, url: str, placed: type, charged: type) -> AsyncIterator[None]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))

    @service.subscribe(placed, ordered=True, retry=SOON, after_dead="continue",
                       executor=on_sqlalchemy.sqlalchemy_executor(sessionmaker(engine)))  # fmt: skip
    def charge(event: placed, session: Session) -> None:  # type: ignore[valid-type]
        session.execute(text(CHARGE.format(event.order_id)))
        on_sqlalchemy.publish(session, charged(order_id=event.order_id))
        may_fail(event.order_id)

    yield
    engine.dispose()


@asynccontextmanager
async def blocking_psycopg(service: Service, url: str, placed: type, charged: type) -> AsyncIterator[None]:
    @service.subscribe(placed, ordered=True, retry=SOON, after_dead="continue",
                       executor=on_psycopg.psycopg_executor(lambda: psycopg.connect(url)))  # fmt: skip
    def charge(event: placed, connection: psycopg.Connection) -> None:  # type: ignore[valid-type]
        connection.execute(CHARGE.format(event.order_id))
        on_psycopg.publish(connection, charged(order_id=event.order_id))
        may_fail(event.order_id)

    yield


@asynccontextmanager
async def async_psycopg(service: Service, url: str, placed: type, charged: type) -> AsyncIterator[None]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[psycopg.AsyncConnection]:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            yield connection

    @service.subscribe(placed, ordered=True, retry=SOON, after_dead="continue",
                       executor=on_psycopg.async_psycopg_executor(connect))  # fmt: skip
    async def charge(event: placed, connection: psycopg.AsyncConnection) -> None:  # type: ignore[valid-type]
        await connection.execute(CHARGE.format(event.order_id))
        await on_psycopg.publish(connection, charged(order_id=event.order_id))
        may_fail(event.order_id)

    yield


@asynccontextmanager
async def transaction_over_alchemy(service: Service, url: str, placed: type, charged: type) -> AsyncIterator[None]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))

    @service.subscribe(placed, ordered=True, retry=SOON, after_dead="continue",
                       executor=on_sqlalchemy.sqlalchemy_executor(async_sessionmaker(engine)))  # fmt: skip
    async def charge(event: placed, tx: Transaction) -> None:  # type: ignore[valid-type]
        await tx.execute("INSERT INTO charges (order_id, attempt) VALUES ($1, $2)", event.order_id, tx.attempt)
        assert isinstance(tx.hand, AsyncSession)
        tx.publish(charged(order_id=event.order_id))
        may_fail(event.order_id)

    yield
    await engine.dispose()


WAYS = {
    "sqlalchemy asyncpg": alchemy("asyncpg"),
    "sqlalchemy psycopg": alchemy("psycopg"),
    "sqlalchemy sync": blocking_alchemy,
    "psycopg": blocking_psycopg,
    "psycopg async": async_psycopg,
    "tx": transaction_over_alchemy,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return WAYS[request.param]


async def settled(log: Any, wanted: int) -> None:
    async with asyncio.timeout(30):
        while (await log.rows("SELECT count(*) FROM charges"))[0][0] < wanted:  # noqa: ASYNC110  # a database's doing
            await asyncio.sleep(0.02)


async def test_effect_publish_and_progress_once_through_failures(
    way,
    service,
    postgres_url,
    Placed,  # noqa: N803
    Charged,  # noqa: N803
    log,
) -> None:
    async with way(service, postgres_url, Placed, Charged), service:
        for order_id in ("one", "twice", "never", "last", "twice"):
            await service.publish(Placed(order_id=order_id))
        await settled(log, 4)
        async with asyncio.timeout(30):
            while not await log.rows("SELECT 1 FROM tidings.held WHERE state = 'dead'"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    charges = await log.rows("SELECT order_id, count(*) FROM charges GROUP BY 1 ORDER BY 1")
    assert charges == [("last", 1), ("one", 1), ("twice", 2)]
    charged = "FROM tidings.log WHERE type = 'shop.order.charged'"
    assert await log.rows(f"SELECT key, count(*) {charged} GROUP BY 1 ORDER BY 1") == charges
    assert await log.rows(f"SELECT count(DISTINCT id) {charged}") == [(4,)]
    placed = "(SELECT id FROM tidings.log WHERE type = 'shop.order.placed')"
    assert await log.rows(f"SELECT count(*) {charged} AND causation IN {placed}") == [(4,)]
    dead = await log.rows("SELECT key, attempts, state FROM tidings.held")
    assert dead == [("never", 3, "dead")]
    assert tries == {"one": 1, "twice": 4, "never": 3, "last": 1}


@pytest.mark.parametrize("point", ["lane.before_commit", "lane.after_commit"])
async def test_a_repeated_delivery_has_its_effect_once(
    point,
    way,
    service,
    postgres_url,
    Placed,  # noqa: N803
    Charged,  # noqa: N803
    log,
) -> None:
    failures = [point]

    def fail_once(reached: str) -> None:
        if failures and reached == failures[0]:
            failures.clear()
            raise ConnectionError("cut off here")

    async with way(service, postgres_url, Placed, Charged), service:
        points.watch(fail_once)
        await service.publish(Placed(order_id="first"))
        await service.publish(Placed(order_id="second"))
        await settled(log, 2)
        await asyncio.sleep(0.3)  # time in which a second effect would come
    assert failures == []
    assert await log.rows("SELECT order_id FROM charges ORDER BY order_id") == [("first",), ("second",)]
    assert await log.rows("SELECT count(*) FROM tidings.log WHERE type = 'shop.order.charged'") == [(2,)]
    # The handler did run again, and one of its runs left nothing; unless the worker saw first how far it was.
    assert sum(tries.values()) in ((3,) if point == "lane.before_commit" else (2, 3))


async def test_the_order_of_a_key_is_kept(way, service, postgres_url, Placed, Charged, log) -> None:  # noqa: N803
    async with way(service, postgres_url, Placed, Charged), service:
        for number in range(10):
            await service.publish(Placed(order_id="twice" if number % 2 else "other", number=number))
        await settled(log, 10)
    rows = await log.rows(
        "SELECT c.key, p.data->>'number' FROM tidings.events c JOIN tidings.events p ON p.id = c.causation "
        "WHERE c.type = 'shop.order.charged' ORDER BY c.position"
    )
    for key in ("twice", "other"):
        numbers = [int(number) for one, number in rows if one == key]
        assert numbers == sorted(numbers)
        assert len(numbers) == 5


async def test_work_finishes_in_a_session(service, postgres_url, Placed, Charged, log) -> None:  # noqa: N803
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))

    @service.subscribe(Placed, retry=SOON, executor=on_sqlalchemy.sqlalchemy_executor(async_sessionmaker(engine)))
    async def charge(event: Placed, work: Work) -> None:  # type: ignore[valid-type]
        async with work.finish() as tx:
            await tx.hand.execute(text(CHARGE.format(event.order_id)))
            on_sqlalchemy.publish(tx.hand, Charged(order_id=event.order_id))
            may_fail(event.order_id)

    async with service:
        await service.publish(Placed(order_id="twice"))
        await settled(log, 1)
    await engine.dispose()
    assert await log.rows("SELECT count(*) FROM charges") == [(1,)]
    assert await log.rows("SELECT count(*) FROM tidings.ready") == [(0,)]
    assert await log.rows("SELECT key FROM tidings.log WHERE type = 'shop.order.charged'") == [("twice",)]
    assert tries["twice"] == 3


async def test_sync_work_finishes_on_a_connection(service, postgres_url, Placed, Charged, log) -> None:  # noqa: N803
    @service.subscribe(Placed, retry=SOON, executor=on_psycopg.psycopg_executor(lambda: psycopg.connect(postgres_url)))
    def charge(event: Placed, work: SyncWork) -> None:  # type: ignore[valid-type]
        with work.finish() as tx:
            tx.hand.execute(CHARGE.format(event.order_id))
            tx.publish(Charged(order_id=event.order_id))
            assert tx.fetch_value("SELECT count(*) FROM charges") == 1
            may_fail(event.order_id)

    async with service:
        await service.publish(Placed(order_id="twice"))
        await settled(log, 1)
    assert await log.rows("SELECT count(*) FROM charges") == [(1,)]
    assert await log.rows("SELECT count(*) FROM tidings.ready") == [(0,)]
    assert await log.rows("SELECT key FROM tidings.log WHERE type = 'shop.order.charged'") == [("twice",)]


def test_a_handler_that_its_executor_cannot_run_is_refused(Placed) -> None:  # noqa: N803
    service = Service("s", store="sqlite:///:memory:")
    executor = on_psycopg.psycopg_executor(lambda: psycopg.connect(""))

    @service.subscribe(Placed, executor=executor)
    async def charge(event: Placed, connection: psycopg.Connection) -> None:  # type: ignore[valid-type]
        """Never called."""

    with pytest.raises(HandlerError, match="plain function"):
        service.resolve()


async def test_a_nul_in_an_error_is_a_dead_letter_like_any_other(service, Placed, log) -> None:  # noqa: N803
    async def fails(event: Placed) -> None:  # type: ignore[valid-type]
        raise ValueError("a byte \0 here")

    async def fails_in_transaction(event: Placed, tx: Transaction) -> None:  # type: ignore[valid-type]
        try:
            raise ValueError("\0")
        except ValueError as error:
            raise LookupError("plain") from error

    once = RetryPolicy(attempts=1)
    service.subscribe(Placed, ordered=True, retry=once, name="work")(fails)
    service.subscribe(Placed, ordered=True, retry=once, name="transaction")(fails_in_transaction)
    async with service:
        await service.publish(Placed(order_id="one"))
        async with asyncio.timeout(20):
            while len(await log.rows("SELECT 1 FROM tidings.held WHERE state = 'dead'")) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert await log.rows("SELECT reason FROM tidings.held ORDER BY subscription DESC") == [
        ("a byte \\x00 here",),
        ("plain",),
    ]
    assert await log.rows("SELECT count(*) FROM tidings.ready") == [(0,)]


async def test_work_whose_settling_fails_is_given_back(service, Placed, log) -> None:  # noqa: N803
    @service.subscribe(Placed, retry=SOON)
    async def charge(event: Placed, work: Work) -> None:  # type: ignore[valid-type]
        tries[event.order_id] += 1
        if tries[event.order_id] == 1:
            raise ValueError("refused")

    await log.rows("ALTER TABLE tidings.held ADD CONSTRAINT no_such CHECK (reason <> 'refused')")
    async with service:
        await service.publish(Placed(order_id="one"))
        async with asyncio.timeout(10):
            while tries["one"] < 2 or await log.rows("SELECT 1 FROM tidings.ready"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert await log.rows("SELECT * FROM tidings.held") == []
