"""An executor's transaction is read committed whatever its engine begins: progress is fenced by the present."""

import asyncio

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from tidings import Event, Service
from tidings.integrations.psycopg import psycopg_executor
from tidings.integrations.sqlalchemy import sqlalchemy_executor

SHOW = "SHOW transaction_isolation"


class Asked(Event, name="isolation.asked", key="name"):
    name: str


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "blocking", "psycopg alone"])
async def test_executors_are_read_committed(postgres_url: str, driver: str) -> None:
    service, seen = Service("isolation", store=postgres_url), list[object]()
    kind = "asyncpg" if driver == "asyncpg" else "psycopg"
    url = postgres_url.replace("postgresql://", f"postgresql+{kind}://")
    engine = create_async_engine(url, isolation_level="SERIALIZABLE")
    blocking = create_engine(url.replace("asyncpg", "psycopg"), isolation_level="REPEATABLE READ")

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(postgres_url)
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        return connection

    if driver == "blocking":

        @service.subscribe(Asked, executor=sqlalchemy_executor(sessionmaker(blocking)))
        def ask(event: Asked, session: Session) -> None:
            seen.append(session.scalar(text(SHOW)))

    elif driver == "psycopg alone":

        @service.subscribe(Asked, executor=psycopg_executor(connect))
        def ask_it(event: Asked, connection: psycopg.Connection) -> None:
            seen.append((connection.execute(SHOW).fetchone() or ("none",))[0])

    else:

        @service.subscribe(Asked, executor=sqlalchemy_executor(async_sessionmaker(engine)))
        async def ask_soon(event: Asked, session: AsyncSession) -> None:
            seen.append(await session.scalar(text(SHOW)))

    async with service, asyncio.timeout(10):
        await service.publish(Asked(name="1"))
        while not seen:  # noqa: ASYNC110 - a handler appends it
            await asyncio.sleep(0.02)
    await engine.dispose()
    blocking.dispose()
    assert seen == ["read committed"]
