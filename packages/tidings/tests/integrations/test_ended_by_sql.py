"""Handlers that say COMMIT or ROLLBACK as SQL: it is noticed, nothing is settled apart, and nothing is doubled."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from tidings import RetryPolicy, Service, SyncWork, Work
from tidings.integrations.psycopg import async_psycopg_executor, psycopg_executor, publish
from tidings.integrations.sqlalchemy import publish as publish_in
from tidings.integrations.sqlalchemy import sqlalchemy_executor

CHARGE = "INSERT INTO charges (order_id, attempt) VALUES ('{0}', 1)"
TWICE = RetryPolicy(attempts=2, backoff=timedelta(milliseconds=10))

SAID = {
    "good": [],
    "commit": ["COMMIT"],
    "commit and go on": ["COMMIT", CHARGE.format("extra")],
    "commit and fail": ["COMMIT", "raise"],
    "commit and break": ["COMMIT", "SELECT 1 / 0"],
    "rollback": ["ROLLBACK"],
    "rollback and go on": ["ROLLBACK", CHARGE.format("extra")],
}
"""Order -> what its handler says at last; "raise" raises."""

Way = Callable[[Service, str, Any, Any, "list[str]"], Any]
"""Subscribes a handler that charges an order, publishes, and then says the SQL that the order is named after."""


def options(executor: Any) -> dict[str, Any]:
    return {"ordered": True, "retry": TWICE, "after_dead": "continue", "executor": executor}


async def say(execute: Callable[[str], Awaitable[Any]], sql: list[str]) -> None:
    for one in sql:
        if one == "raise":
            raise ValueError("after it")
        await execute(one)


def say_here(execute: Callable[[str], Any], sql: list[str]) -> None:
    for one in sql:
        if one == "raise":
            raise ValueError("after it")
        execute(one)


def alchemy(driver: str) -> Way:
    @asynccontextmanager
    async def subscribed(
        service: Service, url: str, placed: Any, charged: Any, tried: list[str]
    ) -> AsyncIterator[None]:
        engine = create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))

        @service.subscribe(placed, **options(sqlalchemy_executor(async_sessionmaker(engine))))
        async def charge(event: placed, session: AsyncSession) -> None:
            tried.append(event.order_id)
            await session.execute(text(CHARGE.format(event.order_id)))
            publish_in(session, charged(order_id=event.order_id))
            await say(lambda one: session.execute(text(one)), SAID[event.order_id])

        yield
        await engine.dispose()

    return subscribed


@asynccontextmanager
async def blocking_alchemy(
    service: Service, url: str, placed: Any, charged: Any, tried: list[str]
) -> AsyncIterator[None]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))

    @service.subscribe(placed, **options(sqlalchemy_executor(sessionmaker(engine))))
    def charge(event: placed, session: Session) -> None:
        tried.append(event.order_id)
        session.execute(text(CHARGE.format(event.order_id)))
        publish_in(session, charged(order_id=event.order_id))
        say_here(lambda one: session.execute(text(one)), SAID[event.order_id])

    yield
    engine.dispose()


def blocking_psycopg(autocommit: bool) -> Way:
    @asynccontextmanager
    async def subscribed(
        service: Service, url: str, placed: Any, charged: Any, tried: list[str]
    ) -> AsyncIterator[None]:
        @service.subscribe(placed, **options(psycopg_executor(lambda: psycopg.connect(url, autocommit=autocommit))))
        def charge(event: placed, connection: psycopg.Connection) -> None:
            tried.append(event.order_id)
            connection.execute(CHARGE.format(event.order_id))
            publish(connection, charged(order_id=event.order_id))
            say_here(connection.execute, SAID[event.order_id])

        yield

    return subscribed


@asynccontextmanager
async def async_psycopg(service: Service, url: str, placed: Any, charged: Any, tried: list[str]) -> AsyncIterator[None]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[psycopg.AsyncConnection]:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            yield connection

    @service.subscribe(placed, **options(async_psycopg_executor(connect)))
    async def charge(event: placed, connection: psycopg.AsyncConnection) -> None:
        tried.append(event.order_id)
        await connection.execute(CHARGE.format(event.order_id))
        await publish(connection, charged(order_id=event.order_id))
        await say(connection.execute, SAID[event.order_id])

    yield


@asynccontextmanager
async def work_on_alchemy(
    service: Service, url: str, placed: Any, charged: Any, tried: list[str]
) -> AsyncIterator[None]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))

    @service.subscribe(placed, **options(sqlalchemy_executor(async_sessionmaker(engine))))
    async def charge(event: placed, work: Work) -> None:
        tried.append(event.order_id)
        async with work.finish() as tx:
            await tx.hand.execute(text(CHARGE.format(event.order_id)))
            tx.publish(charged(order_id=event.order_id))
            await say(lambda one: tx.hand.execute(text(one)), SAID[event.order_id])

    yield
    await engine.dispose()


@asynccontextmanager
async def blocking_work(service: Service, url: str, placed: Any, charged: Any, tried: list[str]) -> AsyncIterator[None]:
    @service.subscribe(placed, **options(psycopg_executor(lambda: psycopg.connect(url))))
    def charge(event: placed, work: SyncWork) -> None:
        tried.append(event.order_id)
        with work.finish() as tx:
            tx.hand.execute(CHARGE.format(event.order_id))
            publish(tx.hand, charged(order_id=event.order_id))
            say_here(tx.hand.execute, SAID[event.order_id])

    yield


WAYS: dict[str, Way] = {
    "sqlalchemy asyncpg": alchemy("asyncpg"),
    "sqlalchemy psycopg": alchemy("psycopg"),
    "sqlalchemy sync": blocking_alchemy,
    "psycopg": blocking_psycopg(autocommit=False),
    "psycopg autocommit": blocking_psycopg(autocommit=True),
    "psycopg async": async_psycopg,
    "work": work_on_alchemy,
    "sync work": blocking_work,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_nothing_is_doubled_or_settled_apart(way, service, postgres_url, Placed, Charged, log) -> None:  # noqa: N803
    tried: list[str] = []
    async with way(service, postgres_url, Placed, Charged, tried), service:
        for order in SAID:
            await service.publish(Placed(order_id=order))
        held: list[tuple[Any, ...]] = []
        async with asyncio.timeout(20):
            while len(held) < len(SAID) - 1 or not await log.rows("SELECT 1 FROM charges WHERE order_id = 'good'"):
                held = await log.rows("SELECT key, attempts, reason FROM tidings.held WHERE state = 'dead'")
                await asyncio.sleep(0.02)
    charges = dict(await log.rows("SELECT order_id, count(*) FROM charges GROUP BY 1"))
    charged = dict(await log.rows("SELECT key, count(*) FROM tidings.log WHERE type LIKE '%charged' GROUP BY 1"))
    assert charges.pop("good") == charged.pop("good") == 1
    charges.pop("extra", None)
    for order, attempts, reason in held:
        assert attempts == tried.count(order)
        assert "belongs to Tidings" in reason
        if "commit" in order:  # it cannot be taken back, so it is done no second time
            assert (attempts, charges.pop(order)) == (1, 1)
            assert charged.pop(order, 1) == 1
            assert "take the COMMIT out" in reason
        else:
            assert attempts == 2
    assert (charges, charged) == ({}, {})
    assert await log.rows("SELECT 1 FROM tidings.ready") == []
