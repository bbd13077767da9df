"""A program that writes an order with its event through one integration, and is killed before or after the commit.

python killed.py sqlalchemy|psycopg|asyncpg|django URL before|after
"""

import asyncio
import os
import signal
import sys

from tidings import Event, Service


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """An order was accepted."""

    order_id: str
    number: int = 0


INSERT = "INSERT INTO orders (id) VALUES ('killed')"
EVENT = OrderPlaced(order_id="killed")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def on_sqlalchemy(url: str, when: str) -> None:
    from sqlalchemy import Engine, event, text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    from tidings.integrations.sqlalchemy import publish

    if when == "before":
        event.listen(Engine, "commit", lambda connection: die())  # it comes after ours, which has inserted
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with AsyncSession(engine) as session:
        await session.execute(text(INSERT))
        publish(session, EVENT)
        await session.commit()
        die()


async def on_asyncpg(url: str, when: str) -> None:
    import asyncpg

    from tidings.integrations.asyncpg import publish

    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute(INSERT)
        await publish(connection, EVENT)
        if when == "before":
            die()
    die()


async def on_psycopg(url: str, when: str) -> None:
    import psycopg

    from tidings.integrations.psycopg import publish

    with psycopg.connect(url) as connection:
        connection.execute(INSERT)
        publish(connection, EVENT)
        if when == "before":
            die()
        connection.commit()
        die()


async def on_django(url: str, when: str) -> None:
    await asyncio.to_thread(in_django, url, when)


def in_django(url: str, when: str) -> None:
    from urllib.parse import parse_qs, urlsplit

    import django
    from django.conf import settings

    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username,
                "HOST": host, "PORT": parts.port or ""}  # fmt: skip
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["tidings.integrations.django"])
    django.setup()
    from django.db import connection, transaction

    from tidings.integrations.django import publish

    if when == "before":
        connection._commit = die  # what our commit calls once it has inserted
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(INSERT)
        publish(EVENT)
    die()


if __name__ == "__main__":
    _, integration, url, when = sys.argv
    service = Service("shop", store=url)
    ways = {"sqlalchemy": on_sqlalchemy, "asyncpg": on_asyncpg, "psycopg": on_psycopg, "django": on_django}
    asyncio.run(ways[integration](url, when))
