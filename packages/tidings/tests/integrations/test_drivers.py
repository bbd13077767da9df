"""psycopg and asyncpg connections, and the outbox row for any other: all or nothing."""

import asyncio
import sqlite3
from pathlib import Path

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row

from tidings import Service, ServiceError, TransactionClosedError
from tidings.integrations import asyncpg as on_asyncpg
from tidings.integrations import psycopg as on_psycopg

ORDER = "INSERT INTO orders (id) VALUES ('1')"


async def test_psycopg_publishes_with_the_transaction(postgres_url, service, Placed, log, undone) -> None:  # noqa: N803
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection:
        connection.execute(ORDER)
        on_psycopg.publish(connection, Placed(order_id="1", number=1), service=service)
        with undone(), connection.transaction():
            on_psycopg.publish(connection, Placed(order_id="1", number=2), service=service)
            raise LookupError
        assert await log.numbers() == []
        connection.commit()
        on_psycopg.publish(connection, Placed(order_id="1", number=3), service=service)
        connection.rollback()
    assert await log.numbers() == [1]
    assert await log.orders() == ["1"]


async def test_psycopg_outbox_is_one_insert_and_nests(postgres_url, service, Placed, log, undone) -> None:  # noqa: N803
    with psycopg.connect(postgres_url) as connection:
        with on_psycopg.outbox(connection, service=service) as publish:
            for number in range(10):
                publish(Placed(order_id="1", number=number))
            connection.execute(ORDER)
        assert await log.inserts() == 1
        with undone(), on_psycopg.outbox(connection, service=service) as publish:
            publish(Placed(order_id="1", number=10))
            raise LookupError
        with on_psycopg.outbox(connection, service=service) as publish:
            publish(Placed(order_id="1", number=11))
            with undone(), on_psycopg.outbox(connection, service=service) as publish_within:
                publish_within(Placed(order_id="1", number=12))
                raise LookupError
    assert await log.numbers() == [*range(10), 11]


async def test_psycopg_in_autocommit_publishes_at_once(postgres_url, service, Placed, log) -> None:  # noqa: N803
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        on_psycopg.publish(connection, Placed(order_id="1", number=1), service=service, id="chosen")
        on_psycopg.publish(connection, Placed(order_id="1", number=2), service=service, id="chosen")
        assert await log.numbers() == [1]


async def test_psycopg_async(postgres_url, service, Placed, log, undone) -> None:  # noqa: N803
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await on_psycopg.publish(connection, Placed(order_id="1", number=0), service=service)
        await connection.rollback()
        async with on_psycopg.outbox(connection, service=service) as publish:
            for number in range(1, 11):
                publish(Placed(order_id="1", number=number))
            with undone():
                async with on_psycopg.outbox(connection, service=service) as publish_within:
                    publish_within(Placed(order_id="1", number=11))
                    raise LookupError
        assert await log.inserts() == 1
        await on_psycopg.publish(connection, Placed(order_id="1", number=12), service=service)
        await connection.commit()
    assert await log.numbers() == [*range(1, 11), 12]


async def test_asyncpg(postgres_url, service, Placed, log, undone) -> None:  # noqa: N803
    pool = await asyncpg.create_pool(postgres_url, min_size=1, max_size=1)
    async with pool, pool.acquire() as connection:
        with undone():
            async with connection.transaction():
                await on_asyncpg.publish(connection, Placed(order_id="1", number=0), service=service)
                raise LookupError
        async with on_asyncpg.outbox(connection, service=service) as publish:
            for number in range(1, 11):
                publish(Placed(order_id="1", number=number))
            with undone():
                async with on_asyncpg.outbox(connection, service=service) as publish_within:
                    publish_within(Placed(order_id="1", number=11))
                    raise LookupError
            await connection.execute(ORDER)
        assert await log.inserts() == 1
        await on_asyncpg.publish(connection, Placed(order_id="1", number=12), service=service)
    assert await log.numbers() == [*range(1, 11), 12]
    assert await log.orders() == ["1"]


async def test_several_services_must_be_told_apart(postgres_url, service, Placed) -> None:  # noqa: N803
    other = Service("other", store=postgres_url)
    connection = await asyncpg.connect(postgres_url)
    with pytest.raises(ServiceError, match=r"other.*shop.*service=service"):
        await on_asyncpg.publish(connection, Placed(order_id="1"))
    await connection.close()
    assert other.name == "other"


async def test_the_outbox_row_on_postgres(postgres_url, service, Placed, log) -> None:  # noqa: N803
    connection = await asyncpg.connect(postgres_url)
    sql, params = service.outbox_row(Placed(order_id="same", number=1))
    await connection.execute(sql, *params)
    await connection.close()
    with psycopg.connect(postgres_url) as sync:
        sync.execute(*service.outbox_row(Placed(order_id="same", number=2), paramstyle="pyformat"))
        sync.rollback()
        sync.execute(*service.outbox_row(Placed(order_id="same", number=3), paramstyle="pyformat"))
    async with service.running(consumers=False):
        await service.publish(Placed(order_id="same", number=4))
    assert await log.numbers() == [1, 3, 4]
    # The database reckons the same lane as the library does.
    assert await log.rows("SELECT count(DISTINCT lane) FROM tidings.log") == [(1,)]


async def test_the_outbox_row_on_sqlite(tmp_path: Path, Placed) -> None:  # noqa: N803
    service = Service("small", store=f"sqlite:///{tmp_path / 'small.db'}")
    async with service.running(consumers=False):
        await service.publish(Placed(order_id="same", number=1))
    connection = sqlite3.connect(tmp_path / "small.db")
    with connection:
        connection.execute(*service.outbox_row(Placed(order_id="same", number=2), paramstyle="qmark"))
    rows = connection.execute("SELECT lane, type FROM tidings_log").fetchall()
    connection.close()
    assert len(rows) == 2
    assert len(set(rows)) == 1


def test_an_unknown_paramstyle_is_refused(Placed) -> None:  # noqa: N803
    with pytest.raises(ServiceError, match="qmark"):
        Service("s", store="sqlite:///:memory:").outbox_row(Placed(order_id="1"), paramstyle="named")  # type: ignore[arg-type]


async def test_a_subscription_gets_what_all_of_them_publish(postgres_url, service, Placed, until) -> None:  # noqa: N803
    seen: list[int] = []

    async def note(event: Placed) -> None:  # type: ignore[valid-type]
        seen.append(event.number)

    service.subscribe(Placed, ordered=True)(note)

    def by_psycopg(number: int) -> None:
        with psycopg.connect(postgres_url) as sync:
            on_psycopg.publish(sync, Placed(order_id="1", number=number), service=service)

    async with service:
        connection = await asyncpg.connect(postgres_url)
        for number in range(0, 20, 2):
            await on_asyncpg.publish(connection, Placed(order_id="1", number=number), service=service)
            await asyncio.to_thread(by_psycopg, number + 1)
        await connection.close()
        await until(lambda: len(seen) == 20)
    assert seen == list(range(20))


async def test_a_publish_after_its_block_is_refused(postgres_url, service, Placed, log) -> None:  # noqa: N803
    kept = []
    connection = await asyncpg.connect(postgres_url)
    async with on_asyncpg.outbox(connection, service=service) as publish:
        kept.append(publish)
    await connection.close()
    with psycopg.connect(postgres_url) as blocking, on_psycopg.outbox(blocking, service=service) as publish:
        kept.append(publish)
    waiting = await psycopg.AsyncConnection.connect(postgres_url)
    async with waiting, on_psycopg.outbox(waiting, service=service) as publish:
        kept.append(publish)
    for publish in kept:
        with pytest.raises(TransactionClosedError, match="inside the block"):
            publish(Placed(order_id="late"))
    assert await log.numbers() == []
