"""Raw SQLite code that does the work of Tidings on the same file, and nothing else: what the machine can do.

It writes the same columns, the same indexes (the file is made by the migrations of Tidings) and the same encoded
bytes, which are made before the clock starts. What it leaves out is what Tidings adds: envelopes, validation, ids,
lanes, leases, retries, exceptions, stable ids.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

Row = tuple[Any, ...]

COLUMNS = (
    "lane, type, version, id, source, time, subject, key, share, correlation, causation, "
    "traceparent, tracestate, supersedes, keep, extensions, data"
)
INSERT = f"INSERT INTO tidings_log ({COLUMNS}) VALUES ({', '.join('?' * 17)})"
BATCH = 50

TABLES = """
CREATE TABLE IF NOT EXISTS raw_progress (step INTEGER PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS charge (order_id TEXT NOT NULL, number INTEGER NOT NULL, cents INTEGER NOT NULL);
"""
CHARGE = "INSERT INTO charge (order_id, number, cents) VALUES (?1, ?2, ?3)"


def connect(library: str, path: str) -> Any:
    """Return a connection of `sqlite3` or `apsw`, both in autocommit, in WAL mode with synchronous=FULL."""
    if library == "sqlite3":
        connection: Any = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    else:
        import apsw

        connection = apsw.Connection(path)
    for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    for statement in TABLES.strip().splitlines():
        connection.execute(statement)
    return connection


class InlineWriter:
    """Group commit on the event loop: what was published within one turn of the loop shares a commit."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []

    def publish(self, row: Row) -> "asyncio.Future[None]":
        """Return a future that is done once the row is durable."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((row, done))
        return done

    def _flush(self) -> None:
        group, self._waiting = self._waiting, []
        write(self._connection, [row for row, _ in group])
        for _, done in group:
            done.set_result(None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class ThreadWriter:
    """Group commit in a thread: what waits when the last commit is done shares the next one."""

    def __init__(self, connection: Any, committed: Callable[[], None] = lambda: None) -> None:
        self._connection = connection
        self._committed = committed
        self._queue: SimpleQueue[tuple[Row, asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def publish(self, row: Row) -> "asyncio.Future[None]":
        """Return a future that is done once the row is durable."""
        done = asyncio.get_running_loop().create_future()
        self._queue.put((row, done))
        return done

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first, *self._waiting()]
            write(self._connection, [row for row, _ in group])
            first[1].get_loop().call_soon_threadsafe(self._resolve, [done for _, done in group])

    def _waiting(self) -> Iterable[tuple[Row, "asyncio.Future[None]"]]:
        try:
            while (item := self._queue.get_nowait()) is not None:
                yield item
        except Empty:
            return

    def _resolve(self, futures: Sequence["asyncio.Future[None]"]) -> None:
        self._committed()
        for done in futures:
            done.set_result(None)

    def close(self) -> None:
        """End the thread and close the connection."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()


def write(connection: Any, rows: Sequence[Row]) -> None:
    """Append rows to the log in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")


def drain(connection: Any, decode: Callable[[bytes], Any], count: int, *, effect: bool, batch: int) -> float:
    """Handle `count` events of the log in batches, one transaction each; return the seconds it took.

    With `effect` a savepoint and one row of the handler's own for each event; every batch writes its progress.
    """
    began, position, step = time.perf_counter(), 0, 0
    while count > 0:
        rows = connection.execute(
            "SELECT position, data FROM tidings_log WHERE position > ?1 ORDER BY position LIMIT ?2", (position, batch)
        ).fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for position, data in rows:  # noqa: B007 - the last one is the progress
            event = decode(data)
            if effect:
                connection.execute("SAVEPOINT s")
                connection.execute(CHARGE, (event.order_id, event.number, event.cents))
                connection.execute("RELEASE s")
        step += 1
        connection.execute("INSERT INTO raw_progress VALUES (?1, ?2)", (step, position))
        connection.execute("COMMIT")
        count -= len(rows)
    return time.perf_counter() - began


class Loop:
    """Publish and handle in one process: a commit wakes the reader, which runs an async handler and commits."""

    def __init__(self, library: str, path: str, event: type[msgspec.Struct], told: Callable[[], None]) -> None:
        self._wake = asyncio.Event()
        self._told = told
        self._decode = msgspec.json.Decoder(event).decode
        self._connection = connect(library, path)
        self._writer = ThreadWriter(connect(library, path), self._committed)
        self.publish = self._writer.publish

    def _committed(self) -> None:
        self._told()
        self._wake.set()

    async def run(self, handle: Callable[[Any], Awaitable[None]]) -> None:
        """Handle events until cancelled."""
        position, step = 0, 0
        while True:
            rows = self._connection.execute(
                "SELECT position, data FROM tidings_log WHERE position > ?1 ORDER BY position LIMIT ?2",
                (position, BATCH),
            ).fetchall()
            if not rows:
                await self._wake.wait()
                self._wake.clear()
                continue
            self._connection.execute("BEGIN IMMEDIATE")
            for position, data in rows:  # noqa: B007 - the last one is the progress
                await handle(self._decode(data))
            step += 1
            self._connection.execute("INSERT INTO raw_progress VALUES (?1, ?2)", (step, position))
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """End the thread and close both connections."""
        self._writer.close()
        self._connection.close()
