"""Raw asyncpg code that does the work of Tidings on the same tables, and nothing else: what server and driver can do.

It writes the same columns, indexes and partitions (the log is made by the migrations of Tidings) and the same encoded
bytes, which are made before the clock starts. Every statement is prepared once for each connection, and a transaction
of one statement is that statement. What it leaves out is what Tidings adds: envelopes, validation, ids, the fence,
lanes, leases, retries, exceptions. It reads by position alone, so it is right only while nobody else writes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import msgspec

Row = tuple[Any, ...]
Connection = Any

NAMES = (
    "lane, type, version, id, source, time, subject, key, share, correlation, causation, "
    "traceparent, tracestate, supersedes, keep, extensions, data"
)
TYPES = {"lane": "smallint", "time": "bigint", "extensions": "bytea", "data": "bytea"}
COLUMNS = NAMES.split(", ")
INSERT = f"INSERT INTO tidings.log ({NAMES}) VALUES ({', '.join(f'${n + 1}' for n in range(len(COLUMNS)))})"
_ARRAYS = ", ".join(f"${n + 1}::{TYPES.get(name, 'text')}[]" for n, name in enumerate(COLUMNS))
INSERT_MANY = f"INSERT INTO tidings.log ({NAMES}) SELECT * FROM unnest({_ARRAYS})"
READ = "SELECT position, id, data FROM tidings.log WHERE position > $1 ORDER BY position LIMIT $2"
BATCH = 50
CHANNEL = "raw"

TABLES = """
CREATE TABLE IF NOT EXISTS raw_inbox (subscription smallint, id uuid, PRIMARY KEY (subscription, id));
CREATE TABLE IF NOT EXISTS raw_progress (step bigint PRIMARY KEY, position bigint NOT NULL);
CREATE TABLE IF NOT EXISTS charge (order_id TEXT NOT NULL, number INTEGER NOT NULL, cents INTEGER NOT NULL);
"""
INBOX = "INSERT INTO raw_inbox SELECT 1, unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING id"
PROGRESS = "INSERT INTO raw_progress VALUES ($1, $2)"
CHARGE = "INSERT INTO charge (order_id, number, cents) VALUES ($1, $2, $3)"


async def publish_one_by_one(url: str, rows: Sequence[Row], connections: int) -> Callable[[], Awaitable[None]]:
    """Connect; return what inserts each row in a transaction of its own, on as many connections."""
    opened = [await asyncpg.connect(url) for _ in range(connections)]
    prepared = [await connection.prepare(INSERT) for connection in opened]

    async def each(statement: Any, part: Sequence[Row]) -> None:
        for row in part:
            await statement.fetch(*row)

    async def publish() -> None:
        await asyncio.gather(*(each(one, rows[n::connections]) for n, one in enumerate(prepared)))
        for connection in opened:
            await connection.close()

    return publish


class Coalescer:
    """Everyone who publishes while an insert is under way shares the next one, by `unnest`; some inserts at once."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._idle = list(connections)
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    @classmethod
    async def connected(cls, url: str, connections: int) -> "Coalescer":
        """Connect."""
        opened = [await asyncpg.connect(url) for _ in range(connections)]
        return cls([(connection, await connection.prepare(INSERT_MANY)) for connection in opened])

    def publish(self, row: Row) -> "asyncio.Future[None]":
        """Return a future that is done once the row is durable."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((row, done))
        if self._idle:
            task = asyncio.create_task(self._flush(self._idle.pop()))
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        return done

    async def _flush(self, connection: Connection) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await connection[1].fetch(*zip(*(row for row, _ in group), strict=True))
            for _, done in group:
                done.set_result(None)
        self._idle.append(connection)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*self._flushes)
        for connection, _ in self._idle:
            await connection.close()


class Drain:
    """Handles the log in batches of 50, one transaction each.

    With `inbox` every event's id goes into an inbox first, a batch by one statement, and what was there is left out;
    without it a batch is known by its progress alone. With `effect` every event writes one row of the handler's own;
    with `savepoints` within a savepoint, released together with the next one's.
    """

    def __init__(
        self, connection: Connection, decode: Callable[[bytes], Any], *, inbox: bool, effect: bool, savepoints: bool
    ) -> None:
        self._connection = connection
        self._decode = decode
        self._inbox = inbox
        self._effect = effect
        self._savepoints = savepoints

    async def run(self, count: int) -> None:
        """Handle `count` events."""
        prepare = self._connection.prepare
        read, inbox, progress = await prepare(READ), await prepare(INBOX), await prepare(PROGRESS)
        charge = await prepare(CHARGE)
        position, step = 0, 0
        while count > 0:
            rows = await read.fetch(position, BATCH)
            position, step, count = rows[-1][0], step + 1, count - len(rows)
            if not self._inbox and not self._effect:
                for row in rows:
                    self._decode(row[2])
                await progress.fetch(step, position)
                continue
            async with self._connection.transaction():
                if self._inbox:
                    fresh = {str(row[0]) for row in await inbox.fetch([row[1] for row in rows])}
                    rows = [row for row in rows if row[1] in fresh]
                await self._handle(rows, charge)
                await progress.fetch(step, position)

    async def _handle(self, rows: Sequence[Any], charge: Any) -> None:
        release = ""
        for row in rows:
            event = self._decode(row[2])
            if self._savepoints:
                await self._connection.execute(f"{release}SAVEPOINT s")
                release = "RELEASE s;"
            if self._effect:
                await charge.fetch(event.order_id, event.number, event.cents)


class Loop:
    """Reads what LISTEN tells of: a notice wakes the reader, which runs an async handler and commits its progress."""

    def __init__(self, url: str, event: type[msgspec.Struct]) -> None:
        self._url = url
        self._wake = asyncio.Event()
        self._decode = msgspec.json.Decoder(event).decode

    async def run(self, handle: Callable[[Any], Awaitable[None]], ready: Callable[[], None]) -> None:
        """Handle events until cancelled."""
        listener = await asyncpg.connect(self._url)
        connection = await asyncpg.connect(self._url)
        await listener.add_listener(CHANNEL, lambda *_: self._wake.set())
        read, progress = await connection.prepare(READ), await connection.prepare(PROGRESS)
        position, step = 0, 0
        ready()
        try:
            while True:
                rows = await read.fetch(position, BATCH)
                if not rows:
                    await self._wake.wait()
                    self._wake.clear()
                    continue
                for position, _, data in rows:  # noqa: B007 - the last one is the progress
                    await handle(self._decode(data))
                step += 1
                await progress.fetch(step, position)
        finally:
            listener.terminate()
            connection.terminate()


class Publisher:
    """Inserts a row and notifies: after the commit, as throughput wants it, or in the transaction itself."""

    def __init__(self, url: str, *, in_transaction: bool, committed: Callable[[], None]) -> None:
        self._url = url
        self._in_transaction = in_transaction
        self._committed = committed

    async def connect(self) -> None:
        """Connect."""
        self._connection = await asyncpg.connect(self._url)
        notify = f"SELECT pg_notify('{CHANNEL}', '')"
        both = f"WITH row AS ({INSERT} RETURNING position) {notify} FROM row"
        self._insert = await self._connection.prepare(both if self._in_transaction else INSERT)
        self._notify = await self._connection.prepare(notify)

    async def publish(self, row: Row) -> None:
        """Publish one row; returns once the notice is on its way."""
        await self._insert.fetch(*row)
        self._committed()
        if not self._in_transaction:
            await self._notify.fetch()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()
