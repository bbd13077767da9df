"""A service whose handler charges orders through an executor, and that is killed at a point of the path of an event.

python handling.py sqlalchemy|psycopg|django URL POINT     (POINT "none": runs until five orders are charged)
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from tidings import Event, RetryPolicy, Service, points

OFTEN = RetryPolicy(attempts=10, backoff=timedelta(milliseconds=10))
CHARGE = "INSERT INTO charges (order_id, attempt) VALUES ('{0}', 1)"


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """An order was accepted."""

    order_id: str
    number: int = 0


class OrderCharged(Event, name="shop.order.charged", version=1, key="order_id"):
    """The money of an order has arrived."""

    order_id: str


def on_sqlalchemy(service: Service, url: str) -> None:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

    from tidings.integrations.sqlalchemy import publish, sqlalchemy_executor

    sessions = async_sessionmaker(create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://")))

    @service.subscribe(
        OrderPlaced, ordered=True, start="beginning", retry=OFTEN, executor=sqlalchemy_executor(sessions)
    )
    async def charge(event: OrderPlaced, session: AsyncSession) -> None:
        await session.execute(text(CHARGE.format(event.order_id)))
        publish(session, OrderCharged(order_id=event.order_id))


def on_psycopg(service: Service, url: str) -> None:
    import psycopg

    from tidings.integrations.psycopg import psycopg_executor, publish

    @service.subscribe(
        OrderPlaced,
        ordered=True,
        start="beginning",
        retry=OFTEN,
        executor=psycopg_executor(lambda: psycopg.connect(url)),
    )
    def charge(event: OrderPlaced, connection: psycopg.Connection[Any]) -> None:
        connection.execute(CHARGE.format(event.order_id))
        publish(connection, OrderCharged(order_id=event.order_id))


def on_django(service: Service, url: str) -> None:
    from urllib.parse import parse_qs, urlsplit

    import django
    from django.conf import settings

    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username,
                "HOST": host, "PORT": parts.port or ""}  # fmt: skip
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["tidings.integrations.django"])
    django.setup()
    from django.db import connection

    from tidings.integrations.django import django_executor, publish

    @service.subscribe(OrderPlaced, ordered=True, start="beginning", retry=OFTEN, executor=django_executor())
    def charge(event: OrderPlaced) -> None:
        with connection.cursor() as cursor:
            cursor.execute(CHARGE.format(event.order_id))
        publish(OrderCharged(order_id=event.order_id))


async def run(service: Service, point: str) -> None:
    points.watch(lambda reached: os.kill(os.getpid(), signal.SIGKILL) if reached == point else None)
    async with service, asyncio.timeout(40):
        while await service.fetch_value("SELECT count(*) FROM charges") < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    _, integration, url, point = sys.argv
    service = Service("shop", store=url)
    {"sqlalchemy": on_sqlalchemy, "psycopg": on_psycopg, "django": on_django}[integration](service, url)
    asyncio.run(run(service, point))
