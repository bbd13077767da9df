"""The store on one SQLite file: connections, migrations, wake-ups, and who is alive."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from tidings.backends.sqlite import migrations
from tidings.backends.sqlite.asking import Asking
from tidings.backends.sqlite.commits import Commits, InlineCommits, ThreadedCommits
from tidings.backends.sqlite.driver import Connection, StandardConnection
from tidings.backends.sqlite.guard import FileGuard, shareable
from tidings.backends.sqlite.retention import drop_past
from tidings.backends.sqlite.statements import SqliteStatements
from tidings.backends.sqlite.statements.log import APPEND_ONE
from tidings.backends.sqlite.statements.rows import Appended
from tidings.backends.sqlite.writer import Writer
from tidings.errors import ServiceError, StoreBusyError, StoreUnavailableError
from tidings.events import FOREVER, Envelope
from tidings.hosts import pid_exists, this_host
from tidings.rows import Append, Holder, WorkerRow
from tidings.statements import Statements
from tidings.store import Upkept, append_to_stream
from tidings.world import World

T = TypeVar("T")

LANES = 16
"""Lanes of a new log. One file has one writer, so lanes only spread turns over processes."""

BATCH = 200
"""Events of a settling transaction, if 20 ms are enough for them. A commit costs as much as some 30 events here, and a
new batch as much as some 20 more; batches of 50 handled 0.6 as many events a second."""

HOLD_LIMIT = 1.0
"""Seconds that a transaction may stay open: everybody else waits meanwhile."""

_NOTE_HORIZON = """
INSERT INTO tidings_meta (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value
"""
_TAKE_TURN = """
INSERT INTO tidings_meta (name, value) VALUES ('upkeep', $1)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE CAST(value AS INTEGER) <= $2
"""


def open_store(url: str, world: World) -> "SqliteStore":
    """Return the store that a URL names; nothing is opened yet.

    `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:///:memory:` (gone when closed), and the same with
    `sqlite+apsw`. Raises ServiceError for another form, or if apsw is not installed.
    """
    scheme, _, rest = url.partition("://")
    if not rest.startswith("/") or rest == "/":
        raise ServiceError(f"{url!r} names no file: write {scheme}:///file.db, or {scheme}:///:memory: for tests.")
    if scheme == "sqlite":
        return SqliteStore(rest[1:], StandardConnection, "sqlite3", StandardConnection.version, world.random)
    try:
        from tidings.backends.sqlite.apsw_driver import ApswConnection
    except ImportError:
        raise ServiceError(f"{url!r} needs apsw, which is not installed: install tidings[apsw].") from None
    return SqliteStore(rest[1:], ApswConnection, "apsw", ApswConnection.version, world.random)


class SqliteStore:
    """Implements tidings.store.Store. One writing connection, whose statements run on the event loop while commits
    wait for the disk in a thread; and one reading connection."""

    def __init__(
        self, path: str, connect: Callable[[str], Connection], library: str, version: str, random: Random
    ) -> None:
        self.lanes = LANES
        self.batch = BATCH
        self.path = path
        self.library = library
        self.version = version
        self.append_sql = APPEND_ONE
        self.cheap_savepoints = True
        self.several_processes = path != ":memory:" and shareable(version)
        self.synchronous = "FULL"
        self.inline_commits = path == ":memory:"
        self.alive_pid: Callable[[int], bool] = pid_exists
        self.host = this_host()
        self.history = 0
        self._connect = connect
        self._random = random
        self._folder: str | None = None
        self._asking: Asking | None = None
        self._guard: FileGuard | None = None
        self._writing: Connection | None = None
        self._writer: Writer | None = None
        self._commits: Commits = InlineCommits()
        self._data_version = 0
        self._listeners: dict[str, list[Callable[[], None]]] = {}

    async def open(self, *, migrate: bool, read_only: bool = False) -> None:
        """Open the file, made if it is missing (unless read_only).

        Raises StoreUnavailableError, StoreInUseError (see guard.py), StoreVersionError.
        """
        file = self._place()
        if read_only and not file.exists():
            raise StoreUnavailableError(f"The file {file} does not exist: check the path, or start the service once.")
        if not file.parent.is_dir():
            raise StoreUnavailableError(f"The folder {file.parent} does not exist: make it, or name another file.")
        if not read_only:
            self._guard = FileGuard(file, self.library, self.version)
        try:
            self._open_connections(str(file), migrate, read_only)
        except BaseException:
            await self.close()
            raise

    def _place(self) -> Path:
        if self.path != ":memory:":
            return Path(self.path)
        # A file of its own behaves as production does; SQLite's memory database locks readers out.
        self._folder = tempfile.mkdtemp(prefix="tidings-")
        self.synchronous = "OFF"
        return Path(self._folder, "memory.db")

    def _open_connections(self, file: str, migrate: bool, read_only: bool) -> None:
        if not read_only:
            self._writing = self._open_writing(file)
            if migrate:
                self._migrate(self._writing)
            migrations.check(self._writing, file)
            # Once open, the writer waits for others on the loop: SQLite's own waiting would stop the whole process.
            self._writing.rows("PRAGMA busy_timeout = 0")
        self._reading = self._connect(file)
        self._reading.run("PRAGMA query_only = ON")
        self._reading.run("PRAGMA wal_autocheckpoint = 0")
        migrations.check(self._reading, file)
        self.lanes = int(self._reading.rows("SELECT value FROM tidings_meta WHERE name = 'lanes'")[0][0])
        self.reading = SqliteStatements(self._reading, self.lanes)
        self._asking = Asking(partial(self._connect, file), self.lanes)
        if self._writing is not None:
            self._commits = InlineCommits() if self.inline_commits else ThreadedCommits()
            statements = partial(SqliteStatements, self._writing, self.lanes)
            self._writer = Writer(self._writing, statements, self._commits, self._random, HOLD_LIMIT, self._committed)
            self._data_version = self._current_data_version()

    def _open_writing(self, file: str) -> Connection:
        connection = self._connect(file)
        connection.rows("PRAGMA busy_timeout = 5000")
        connection.rows("PRAGMA journal_mode = WAL")
        connection.run(f"PRAGMA synchronous = {self.synchronous}")
        connection.run("PRAGMA foreign_keys = ON")
        connection.rows("PRAGMA journal_size_limit = 67108864")
        return connection

    def _migrate(self, connection: Connection) -> None:
        if [name for name, _ in migrations.known()] == migrations.applied(connection):
            return
        connection.run("BEGIN IMMEDIATE")
        try:
            migrations.apply(connection, self.lanes)
            connection.run("COMMIT")
        except BaseException:
            connection.run("ROLLBACK")
            raise

    async def close(self) -> None:
        """Wait for commits under way, and close."""
        if self._writer is not None:
            await self._writer.drain()
            self._commits.stop()
            self._writer = None
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        for connection in (getattr(self, "_reading", None), self._writing):
            if connection is not None:
                connection.close()
        self._writing = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def script(self, sql: str) -> None:
        """Run the script of the service's own tables, in a transaction."""
        async with self._open_writer.block():
            assert self._writing is not None  # the writer stands on it
            self._writing.script(sql)

    async def migrations(self) -> list[tuple[str, str, bool]]:
        """Return every migration: its name, its SQL, and whether it was applied. Makes no file."""
        done: list[str] = []
        if self._writing is not None:
            done = migrations.applied(self._writing)
        elif Path(self.path).exists():  # noqa: ASYNC240 - a look at a local file, at no time that counts
            connection = self._connect(self.path)
            try:
                done = migrations.applied(connection)
            finally:
                connection.close()
        return [(name, sql, name in done) for name, sql in migrations.known()]

    def publish(self, envelopes: Sequence[Envelope]) -> Awaitable[None]:
        """Append envelopes in a group commit."""
        return self._open_writer.publish(envelopes)

    async def append(self, append: Append) -> int | None:
        """Append to a stream in a group commit."""
        return await self.run(partial(append_to_stream, append=append))

    async def run(self, unit: Callable[[Statements], Awaitable[T]]) -> T:
        """Run a closed unit in a group commit."""
        result: T = await self._open_writer.run(unit)
        return result

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        """Open a transaction of one's own."""
        return self._open_writer.block()

    @property
    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailableError(
                f"The store {self.path} is not open for writing: enter `async with service:` (or `service.running()`)."
            )
        return self._writer

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Statements]:
        """Statements over one committed state."""
        if self._reading.in_transaction:  # a snapshot within one is the same
            yield self.reading
            return
        self._reading.run("BEGIN")
        try:
            yield self.reading
        finally:
            self._reading.run("COMMIT")

    def querying(self) -> AbstractAsyncContextManager[Statements]:
        """Statements over one committed state for the user's questions."""
        if self._asking is None:
            raise StoreUnavailableError(f"The store {self.path} is not open: enter `async with service:`.")
        return self._asking.state()

    def listen(self, topics: Iterable[str], wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after commits that touch a topic, in this process at once, elsewhere when looked for."""
        names = list(topics)
        for name in names:
            self._listeners.setdefault(name, []).append(wake)

        def stop() -> None:
            for name in names:
                self._listeners[name].remove(wake)

        return stop

    def _committed(self, topics: set[str], appended: Appended | None) -> None:
        if appended is not None:
            self.reading.tail = appended
        self._notify(topics)

    def _notify(self, topics: set[str]) -> None:
        for topic in sorted(topics):
            for wake in tuple(self._listeners.get(topic, ())):
                wake()

    async def look_elsewhere(self) -> bool | None:
        """Wake everybody if another process has committed. PRAGMA data_version costs 2–4 µs."""
        if not self.several_processes:
            return None
        if not self._open_writer.idle:
            return False
        version = self._current_data_version()
        if version == self._data_version:
            return False
        self._data_version = version
        self._notify(set(self._listeners))
        return True

    def _current_data_version(self) -> int:
        # On the writing connection it changes only by what other connections commit.
        assert self._writing is not None
        return int(self._writing.rows("PRAGMA data_version")[0][0])

    def is_alive(self, worker: WorkerRow, now: int) -> bool:
        """Say whether a worker can hold leases: its heartbeat has not expired and, on this host, its process exists."""
        if worker.expires <= now:
            return False
        return worker.host != self.host or self.alive_pid(worker.pid)

    async def take_turn(self, service: str, horizon: int, now: int, every: int) -> bool:
        """Note a service's horizon, and take the turn at upkeep if it is due."""

        async def unit(statements: Statements) -> bool:
            await statements.execute(_NOTE_HORIZON, (f"horizon:{service}", str(horizon)))
            return bool(await statements.execute(_TAKE_TURN, (now, now - every)))

        return await self.run(unit)

    async def upkeep(self, keeps: Sequence[str], now: int, progress: Callable[[int], None]) -> Upkept:
        """Let go of what every subscription has settled and is past its retention."""
        held = [keep for keep in await self.reading.keeps() if keep != FOREVER]
        return {keep: await drop_past(self, keep, now - int(keep) * 1_000_000, progress) for keep in held}, []

    async def holder(self) -> Holder | None:
        """Return None: who reads sees what is committed, in the order of the log."""
        return None

    async def status(self) -> Mapping[str, object]:
        """Return facts about the file."""
        rows = self._reading.rows("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return {
            "file": self.path,
            "library": f"{self.library} (SQLite {self.version})",
            "bytes": rows[0][0],
            "lanes": self.lanes,
            "synchronous": self.synchronous,
            "several processes": self.several_processes,
        }


__all__ = ["SqliteStore", "StoreBusyError", "open_store"]
