"""A service on a fresh Postgres database, what it says, and what its log holds."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import asyncpg
import pytest

from tidings import Event, Service

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS charges (number bigserial PRIMARY KEY, order_id text NOT NULL, attempt integer NOT NULL);
"""


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """An order was accepted."""

    order_id: str
    number: int = 0


class OrderCharged(Event, name="shop.order.charged", version=1, key="order_id"):
    """The money of an order has arrived."""

    order_id: str


class Log:
    """What a database holds, seen from a connection of the test's own."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self._url)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def numbers(self) -> list[int]:
        return [
            row[0] for row in await self.rows("SELECT (data->>'number')::int FROM tidings.events ORDER BY position")
        ]

    async def inserts(self) -> int:
        """How many statements wrote the log: within a transaction each has its own cmin."""
        found = await self.rows("SELECT count(DISTINCT (xmin::text, cmin::text)) FROM tidings.log")
        return int(found[0][0])

    async def orders(self) -> list[str]:
        return [row[0] for row in await self.rows("SELECT id FROM orders ORDER BY id")]


@pytest.fixture
async def service(postgres_url: str) -> Service:
    """A service whose tables are made, and that does not run yet."""
    made = Service("shop", store=postgres_url)
    made.schema(SCHEMA)
    async with made.running(consumers=False):
        pass
    return made


@pytest.fixture
def log(service: Service, postgres_url: str) -> Log:
    return Log(postgres_url)


@pytest.fixture
def Placed() -> type[OrderPlaced]:  # noqa: N802  # a class
    return OrderPlaced


@pytest.fixture
def Charged() -> type[OrderCharged]:  # noqa: N802  # a class
    return OrderCharged


@pytest.fixture
def undone() -> Callable[[], AbstractContextManager[None]]:
    return _undone


@contextmanager
def _undone() -> Iterator[None]:
    """Fails at the end of its block, and takes that failure back outside."""
    try:
        yield
    except LookupError:
        return
    raise AssertionError("the block did not fail")


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    return _until


async def _until(condition: Callable[[], Any]) -> None:
    """Wait until something holds, 20 seconds at most."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # it is another process's, or another thread's, doing
            await asyncio.sleep(0.01)
