"""User-style code over the integrations that passes mypy --strict."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import psycopg
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from tidings import Envelope, Event, Service, SyncTransaction, Work
from tidings.integrations import asyncpg as on_asyncpg
from tidings.integrations import psycopg as on_psycopg
from tidings.integrations import sqlalchemy as on_sqlalchemy
from tidings.integrations.django import django_executor
from tidings.integrations.django import publish as publish_in_django


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """A customer's order was accepted for payment."""

    order_id: str


service = Service("shop", store="postgresql://localhost/shop")
sessions: async_sessionmaker[AsyncSession] = async_sessionmaker()
sync_sessions: sessionmaker[Session] = sessionmaker()
EVENT = OrderPlaced(order_id="1")


@service.subscribe(OrderPlaced, name="one", executor=on_sqlalchemy.sqlalchemy_executor(sessions))
async def charge(event: OrderPlaced, session: AsyncSession) -> None:
    """Charge in an async session."""
    on_sqlalchemy.publish(session, event)


@service.subscribe(OrderPlaced, name="two", executor=on_sqlalchemy.sqlalchemy_executor(sync_sessions))
def charge_in_thread(event: OrderPlaced, session: Session) -> None:
    """Charge in a session that blocks."""
    on_sqlalchemy.publish(session, event, service=service)


@service.subscribe(OrderPlaced, name="three", executor=on_psycopg.psycopg_executor(lambda: psycopg.connect("")))
def charge_on_connection(event: OrderPlaced, connection: psycopg.Connection[Any]) -> None:
    """Charge on a connection that blocks."""
    envelope: Envelope = on_psycopg.publish(connection, event)
    with on_psycopg.outbox(connection) as publish:
        publish(event, id=envelope.id)


def connections() -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
    """Stand for a pool's connection()."""
    raise NotImplementedError


@service.subscribe(OrderPlaced, name="four", executor=on_psycopg.async_psycopg_executor(connections))
async def charge_on_async_connection(event: OrderPlaced, connection: psycopg.AsyncConnection[Any]) -> None:
    """Charge on an async connection."""
    await on_psycopg.publish(connection, event)
    async with on_psycopg.outbox(connection) as publish:
        publish(event)


@service.subscribe(OrderPlaced, name="five", executor=django_executor())
def charge_in_django(event: OrderPlaced, tx: SyncTransaction) -> None:
    """Charge through models."""
    publish_in_django(event)
    tx.publish(event)


@service.subscribe(OrderPlaced, name="six", executor=on_sqlalchemy.sqlalchemy_executor(sessions))
async def work_in_session(event: OrderPlaced, work: Work) -> None:
    """Work, then settle in a session."""
    async with work.finish() as tx:
        session: AsyncSession = tx.hand
        on_sqlalchemy.publish(session, event)


async def place(pool: "asyncpg.Pool[Any]") -> None:
    """Publish on asyncpg, and as a row."""
    async with pool.acquire() as connection:
        envelope: Envelope = await on_asyncpg.publish(connection, EVENT)
        async with on_asyncpg.outbox(connection, service=service) as publish:
            publish(EVENT, id=envelope.id)
    sql, params = service.outbox_row(EVENT, paramstyle="pyformat")
    print(sql, params)
