"""Handlers that end their executor's transaction themselves, or do not come back: the attempt counts."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from tidings import RetryPolicy, StatementError, SyncWork, Work
from tidings.integrations.psycopg import psycopg_executor, publish
from tidings.integrations.sqlalchemy import sqlalchemy_executor

CHARGE = "INSERT INTO charges (order_id, attempt) VALUES ('{0}', 1)"
TWICE = RetryPolicy(attempts=2, backoff=timedelta(milliseconds=10))
ONCE = RetryPolicy(attempts=1)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def executor(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(postgres_url.replace("postgresql://", f"postgresql+{request.param}://"))
    yield sqlalchemy_executor(async_sessionmaker(engine))
    await engine.dispose()


async def commits(session: AsyncSession) -> None:
    await session.commit()


async def swallows_the_refused_commit(session: AsyncSession) -> None:
    with suppress(StatementError):
        await session.commit()


async def commits_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def rolls_back(session: AsyncSession) -> None:
    await session.rollback()


async def dead(log: Any, wanted: int = 1) -> list[tuple[Any, ...]]:
    rows = []
    async with asyncio.timeout(20):
        while len(rows) < wanted:
            rows = await log.rows("SELECT key, attempts, reason FROM tidings.held WHERE state = 'dead'")
            await asyncio.sleep(0.02)
    return list(rows)


@pytest.mark.parametrize("ends", [commits, swallows_the_refused_commit, commits_the_connection, rolls_back])
async def test_a_handler_that_ends_the_transaction_fails_and_leaves_nothing(
    ends: Callable[[AsyncSession], Awaitable[None]],
    executor,
    service,
    Placed,  # noqa: N803
    log,
) -> None:
    tried: list[str] = []

    @service.subscribe(Placed, ordered=True, retry=TWICE, after_dead="continue", executor=executor)
    async def charge(event: Placed, session: AsyncSession) -> None:  # type: ignore[valid-type]
        tried.append(event.order_id)
        async with session.begin_nested():  # its commit is the handler's to say
            await session.execute(text(CHARGE.format(event.order_id)))
        if event.order_id == "bad":
            await ends(session)

    async with service:
        await service.publish(Placed(order_id="bad"))
        await service.publish(Placed(order_id="good"))
        [(key, attempts, reason)] = await dead(log)
        async with asyncio.timeout(20):
            while not await log.rows("SELECT 1 FROM charges"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert (key, attempts, tried.count("bad")) == ("bad", 2, 2)
    assert "belongs to Tidings" in reason
    assert await log.rows("SELECT order_id FROM charges") == [("good",)]


async def test_a_block_of_work_that_ends_the_transaction_fails(executor, service, Placed, log) -> None:  # noqa: N803
    @service.subscribe(Placed, retry=ONCE, executor=executor)
    async def charge(event: Placed, work: Work) -> None:  # type: ignore[valid-type]
        async with work.finish() as tx:
            await tx.hand.execute(text(CHARGE.format(event.order_id)))
            await tx.hand.rollback()

    async with service:
        await service.publish(Placed(order_id="bad"))
        [(_, _, reason)] = await dead(log)
    assert "belongs to Tidings" in reason
    assert await log.rows("SELECT order_id FROM charges") == []


async def test_a_blocking_handler_that_ends_the_transaction_fails(service, postgres_url, Placed, log) -> None:  # noqa: N803
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))

    @service.subscribe(Placed, retry=ONCE, executor=sqlalchemy_executor(sessionmaker(engine)))
    def charge(event: Placed, session: Session) -> None:  # type: ignore[valid-type]
        session.execute(text(CHARGE.format(event.order_id)))
        session.commit() if event.order_id == "commit" else session.rollback()

    async with service:
        await service.publish(Placed(order_id="commit"))
        await service.publish(Placed(order_id="rollback"))
        letters = await dead(log, 2)
    engine.dispose()
    assert all("belongs to Tidings" in reason for _, _, reason in letters)
    assert await log.rows("SELECT order_id FROM charges") == []


@pytest.fixture(params=["psycopg", "sqlalchemy"])
def way(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[tuple[Any, type]]:
    """An executor that blocks, and what its handlers get."""
    if request.param == "psycopg":
        yield psycopg_executor(lambda: psycopg.connect(postgres_url)), psycopg.Connection
        return
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    yield sqlalchemy_executor(sessionmaker(engine)), Session
    engine.dispose()


@pytest.mark.parametrize("stuck_in", ["python", "postgres"])
@pytest.mark.parametrize("limit", ["time_limit", "hold_limit"])
async def test_a_blocking_handler_that_does_not_come_back_is_left(
    way,
    limit,
    stuck_in,
    service,
    Placed,  # noqa: N803
    log,
) -> None:
    (executor, hand), go_on, ended = way, threading.Event(), threading.Event()
    sql: Callable[[str], Any] = text if hand is Session else str

    def charge(event: Any, connection: Any) -> None:
        connection.execute(sql(CHARGE.format(event.order_id)))
        if event.order_id == "bad":
            try:
                go_on.wait(20) if stuck_in == "python" else connection.execute(sql("SELECT pg_sleep(20)"))
                connection.execute(sql("SELECT 1"))
            finally:
                ended.set()

    charge.__annotations__ = {"event": Placed, "connection": hand}
    seconds = timedelta(seconds=0.5) if limit == "time_limit" else None
    service.store.hold_limit = 10 if seconds else 0.5
    options = {"retry": ONCE, "after_dead": "continue", "time_limit": seconds, "executor": executor}
    service.subscribe(Placed, ordered=True, **options)(charge)
    async with service:
        began = time.monotonic()
        await service.publish(Placed(order_id="bad"))
        await service.publish(Placed(order_id="good"))
        [(key, attempts, reason)] = await dead(log)
        async with asyncio.timeout(5):
            while not await log.rows("SELECT 1 FROM charges"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 8
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 5)
    assert (key, attempts) == ("bad", 1)
    assert "0.5 s" in reason
    assert await log.rows("SELECT order_id FROM charges") == [("good",)]


async def test_a_block_of_blocking_work_is_cut_off_after_its_time(service, postgres_url, Placed, log) -> None:  # noqa: N803
    service.store.hold_limit = 0.5
    executor = psycopg_executor(lambda: psycopg.connect(postgres_url))

    @service.subscribe(Placed, retry=ONCE, executor=executor)
    def charge(event: Placed, work: SyncWork) -> None:  # type: ignore[valid-type]
        with work.finish() as tx:
            tx.hand.execute(CHARGE.format(event.order_id))
            publish(tx.hand, Placed(order_id="never"))
            time.sleep(1)

    async with service:
        await service.publish(Placed(order_id="slow"))
        [(_, attempts, reason)] = await dead(log)
    assert attempts == 1
    assert "more than 0.5 s" in reason
    assert await log.rows("SELECT order_id FROM charges") == []
