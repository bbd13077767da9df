"""Limits of time that a database sets for its connections: whose statement it was decides whether it counts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
import pytest
from servers import Server
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tidings import Event, RetryPolicy, Service, Transaction
from tidings.backends.postgres import PostgresStore
from tidings.errors import StoreUnavailableError
from tidings.integrations.asyncpg import publish
from tidings.integrations.psycopg import psycopg_executor
from tidings.integrations.sqlalchemy import sqlalchemy_executor

ONCE = RetryPolicy(attempts=1)
WRITE = "INSERT INTO effect VALUES ('{0}')"
WAYS = ("tidings", "psycopg", "sqlalchemy asyncpg", "sqlalchemy psycopg")


class Asked(Event, name="limits.asked", key="name"):
    name: str


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    await server.fetch("CREATE DATABASE limits")
    yield server.url.rpartition("/")[0] + "/limits"
    await server.fetch("DROP DATABASE limits WITH (FORCE)")


async def confirm_at(server: Server, standbys: str) -> None:
    """Let the server confirm a commit once these standbys have it."""
    await server.fetch(f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
    await server.fetch("SELECT pg_reload_conf()")


async def write(service: Service) -> None:
    async with service.transaction() as tx:
        await tx.execute(WRITE.format("written"))


@asynccontextmanager
async def subscribed(way: str, url: str, before: str, nap: float) -> AsyncIterator[Service]:
    """A service whose handler says some SQL, sleeps for a while, and writes."""
    service = Service("limits", store=url)
    service.schema("CREATE TABLE IF NOT EXISTS effect (name text)")
    engine = create_async_engine(url.replace("postgresql:", f"postgresql+{way.partition(' ')[2] or 'asyncpg'}:"))
    options: dict[str, Any] = {"ordered": True, "retry": ONCE}
    if way == "tidings":

        @service.subscribe(Asked, **options)
        async def note(event: Asked, tx: Transaction) -> None:
            await tx.fetch_all(before)
            await asyncio.sleep(nap)
            await tx.execute(WRITE.format(event.name))

    elif way == "psycopg":

        @service.subscribe(Asked, **options, executor=psycopg_executor(lambda: psycopg.connect(url)))
        def note_here(event: Asked, connection: psycopg.Connection) -> None:
            connection.execute(before)
            time.sleep(nap)
            connection.execute(WRITE.format(event.name))

    else:

        @service.subscribe(Asked, **options, executor=sqlalchemy_executor(async_sessionmaker(engine)))
        async def note_in(event: Asked, session: AsyncSession) -> None:
            await session.execute(text(before))
            await asyncio.sleep(nap)
            await session.execute(text(WRITE.format(event.name)))

    async with service:
        yield service
    await engine.dispose()


async def outcome(service: Service) -> tuple[list[str], list[tuple[int, str]]]:
    """The effects, and the dead letters, once there is one of them."""
    async with asyncio.timeout(10):
        while True:
            effects = await service.fetch_all("SELECT name FROM effect")
            dead = await service.fetch_all("SELECT attempts, reason FROM tidings.held WHERE state = 'dead'")
            if effects or dead:
                return [row[0] for row in effects], [(row[0], row[1]) for row in dead]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("way", WAYS)
async def test_a_pause_within_a_transaction_is_the_hold_limits_to_judge(server: Server, url: str, way: str) -> None:
    for limit in ("idle_in_transaction_session_timeout", "transaction_timeout"):
        await server.fetch(f"ALTER DATABASE limits SET {limit} = '200ms'")
    async with subscribed(way, url, "SELECT 1", nap=0.5) as service:
        await service.publish(Asked(name="slow"))
        assert await outcome(service) == (["slow"], [])


@pytest.mark.parametrize("way", WAYS[1:])
async def test_a_slow_statement_of_the_handlers_own_counts(server: Server, url: str, way: str) -> None:
    await server.fetch("ALTER DATABASE limits SET statement_timeout = '200ms'")
    async with subscribed(way, url, "SELECT pg_sleep(5)", nap=0) as service:
        await service.publish(Asked(name="slow"))
        effects, [(attempts, reason)] = await outcome(service)
    assert (effects, attempts) == ([], 1)
    assert "statement timeout" in reason


@pytest.mark.parametrize("way", WAYS[1:])
async def test_a_wait_of_our_own_in_the_handlers_transaction_does_not(server: Server, url: str, way: str) -> None:
    await server.fetch("ALTER DATABASE limits SET statement_timeout = '200ms'")
    async with subscribed(way, url, "SELECT 1", nap=0) as service:
        await service.publish(Asked(name="first"))  # from then on it has its lanes
        assert await outcome(service) == (["first"], [])
        blocker = await asyncpg.connect(url, server_settings={"statement_timeout": "0"})
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE tidings.progress IN EXCLUSIVE MODE")
            await service.publish(Asked(name="waits"))
            await asyncio.sleep(0.8)
            assert await blocker.fetchval("SELECT count(*) FROM tidings.held") == 0
        await blocker.close()
        async with asyncio.timeout(10):
            while await outcome(service) != (["first", "waits"], []):  # noqa: ASYNC110 - a handler does it
                await asyncio.sleep(0.02)
        assert await service.fetch_value("SELECT count(*) FROM tidings.held") == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_commit_that_waits_for_a_standby_costs_no_attempt(server: Server, url: str, way: str) -> None:
    async with subscribed(way, url, "SELECT 1", nap=0) as service:
        await service.publish(Asked(name="first"))
        assert await outcome(service) == (["first"], [])
        assert isinstance(service.store, PostgresStore)
        service.store.hold_limit = 0.5
        connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "local"})
        await confirm_at(server, "nobody")
        await publish(connection, Asked(name="waits"), service=service)
        with pytest.raises(StoreUnavailableError):
            await write(service)
        await asyncio.sleep(0.5)  # the handler's commit is given up meanwhile, too
        await confirm_at(server, "")
        await connection.close()
        async with asyncio.timeout(20):
            while {"first", "waits"} - set((await outcome(service))[0]):  # noqa: ASYNC110 - a handler does it
                await asyncio.sleep(0.02)
        effects, dead = await outcome(service)
    assert sorted(effects) == ["first", "waits", "written"], "the commit was made, only nobody heard of it"
    assert dead == []
