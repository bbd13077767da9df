"""The store on Postgres: the pool, transactions, wake-ups, and who is alive."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import asyncpg

from tidings.backends.postgres import migrations, upkeep
from tidings.backends.postgres.address import check_url
from tidings.backends.postgres.driver import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    FORGET_WITHIN,
    SCRIPT_SECONDS,
    BorrowingSession,
    HeldSession,
    Session,
    borrowed,
    connect,
    connecting,
    forget,
    our_errors,
    transaction_on,
)
from tidings.backends.postgres.fence import WHICH_SERVER, Fence, holder
from tidings.backends.postgres.greeting import Greeting, greet
from tidings.backends.postgres.notices import Notices
from tidings.backends.postgres.partitions import Partitions
from tidings.backends.postgres.shared import SharedCommits
from tidings.backends.postgres.statements import AskingStatements, PostgresStatements
from tidings.backends.postgres.statements.log import APPEND_ONE, MANY
from tidings.errors import StoreBusyError, StoreUnavailableError, TransactionError
from tidings.events import Envelope
from tidings.hosts import pid_exists, this_host
from tidings.rows import Append, Holder, WorkerRow
from tidings.statements import Statements
from tidings.store import LOG_CHANGED, PROGRESS_CHANGED, Upkept, append_to_stream
from tidings.world import World

log = logging.getLogger("tidings")
T = TypeVar("T")

LANES = 32
"""Lanes of a new log: as many processes can share one subscription."""

BATCH = 50
"""Events of a settling transaction. Postgres caches 64 subtransactions, so more savepoints would cost."""

HOLD_LIMIT = 10.0
"""Seconds that a transaction may stay open: it holds the fence, and with it every reader, once it has published."""

CONNECTIONS = 10
"""Connections of the pool, besides one that listens."""

NET_SECONDS, NET_WITH_NOTICES = 1.0, 10.0
"""So often everything is looked at: without notices (behind a pooler), and with them."""

MIGRATION_TRIES, MIGRATION_PAUSE = 30, 1.0
"""How often, and seconds apart, a migration is tried that does not get its locks."""

PARTITION_SECONDS = 120.0
"""So long one change of partitions may take. Most of it is counting, which nobody waits for."""

_NO_TIMEOUT = "SET LOCAL statement_timeout = 0"


def open_store(url: str, world: World) -> "PostgresStore":
    """Return the store that a `postgresql://` URL names; nothing is connected yet. Raises ServiceError."""
    check_url(url)
    return PostgresStore(url.replace("postgresql+asyncpg://", "postgresql://", 1), world)


class PostgresStore:
    """Implements tidings.store.Store on a pool of asyncpg connections."""

    def __init__(self, url: str, world: World) -> None:
        self.lanes = LANES
        self.batch = BATCH
        self.cheap_savepoints = False
        self.several_processes = True
        self.append_sql = APPEND_ONE
        self.host = this_host()
        self.hold_limit = HOLD_LIMIT
        self.greeting = Greeting()
        self._url = url
        self._world = world
        self._pool: asyncpg.Pool[Any] | None = None
        self._shared = SharedCommits(self._speaking, self._notice, self.notify)
        self._notices: Notices | None = None
        self._holders: set[asyncio.Task[Any] | None] = set()
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._woken = 0
        self._last_net = 0.0
        self._target: Any = None  # asyncpg declares an enumeration that it does not export

    @property
    def history(self) -> int:
        """Counts up when the newest events may be gone (failover, restore): how far one had read is void then."""
        return self._fence.history

    async def open(self, *, migrate: bool, read_only: bool = False) -> None:
        """Connect; raises StoreUnavailableError, StoreVersionError."""
        # Of several hosts the one that takes writes; a single one is asked by the fence.
        self._target = "read-write" if "," in self._url and not read_only else None
        async with connecting():
            self.greeting = await greet(self._connect)
            self._pool = await asyncpg.create_pool(
                self._url,
                connect=connect,
                min_size=0,
                max_size=CONNECTIONS,
                statement_cache_size=0 if self.greeting.pooled else 200,
                reset=_no_reset,
                init=self._met,
                target_session_attrs=self._target,
                timeout=CONNECT_SECONDS,
                command_timeout=ANSWER_SECONDS,
                server_settings=self.greeting.settings,
            )
        self._session = BorrowingSession(self._open_pool)
        self._fence = Fence(self._session, read_only=read_only)
        try:
            await self._prepare(migrate and not read_only)
        except BaseException:
            await self.close()
            raise
        if not self.greeting.pooled and not read_only:
            await self._listen()

    async def _listen(self) -> None:
        self._notices = Notices(self._connect, self._world.fresh_id(), self._heard)
        try:
            async with connecting():
                await self._notices.start()
        except BaseException:
            await self.close()
            raise

    async def _prepare(self, migrate: bool) -> None:
        if migrate:
            done = await migrations.applied(self._session)
            if [name for name, _ in migrations.known()] != done:
                await self._migrate()
        await migrations.check(self._session)
        self.lanes = int((await self._session.rows("SELECT value FROM tidings.meta WHERE name = 'lanes'"))[0][0])
        self.reading = PostgresStatements(self._session, self.lanes, self._fence)

    async def _connect(self, **options: Any) -> "asyncpg.Connection[Any]":
        limits = {"timeout": CONNECT_SECONDS, "command_timeout": ANSWER_SECONDS}
        return await connect(self._url, target_session_attrs=self._target, **limits, **options)

    async def _met(self, connection: "asyncpg.Connection[Any]") -> None:
        # Before anything else is said on it: no lane goes on with what another server, or its run before, has told.
        self._fence.met(*(await connection.fetch(WHICH_SERVER))[0])

    async def _migrate(self) -> None:
        for left in reversed(range(MIGRATION_TRIES)):
            try:
                async with self._changing(None, SCRIPT_SECONDS) as session:
                    await migrations.apply(session, self.lanes)
                return
            except StoreBusyError as error:
                if not left:
                    raise
                log.warning("A migration waits for a table that is in use, and is tried again: %s", error)
                await asyncio.sleep(MIGRATION_PAUSE)

    @property
    def _open_pool(self) -> "asyncpg.Pool[Any]":
        if self._pool is None:
            raise StoreUnavailableError("The store is not open: enter `async with service:` (or `service.running()`).")
        return self._pool

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        await self._shared.drain()
        if self._notices is not None:
            await self._notices.stop()
            self._notices = None
        if self._pool is not None:
            try:
                async with asyncio.timeout(5):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()
            self._pool = None

    async def script(self, sql: str) -> None:
        """Run the script of the service's own tables, in a transaction, one process at a time."""
        async with self._changing(None, SCRIPT_SECONDS) as session:
            await session.rows("SELECT pg_advisory_xact_lock($1)", migrations.LOCK)
            await session.script(sql)

    async def migrations(self) -> list[tuple[str, str, bool]]:
        """Return every migration: its name, its SQL, and whether it was applied."""
        if self._pool is not None:
            done = await migrations.applied(self._session)
        else:
            async with connecting():
                connection = await self._connect()
            try:
                done = await migrations.applied(HeldSession(connection))
            finally:
                await connection.close()
        return [(name, sql, name in done) for name, sql in migrations.known()]

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Append in a group commit; raises TransactionError inside a transaction of the same task."""
        self._refuse_inside()
        await self._shared.publish(envelopes)

    async def append(self, append: Append) -> int | None:
        """Append to a stream in a group commit; alone, where another transaction has it, or what is much."""
        self._refuse_inside()
        if len(append.envelopes) < MANY:
            with suppress(StoreBusyError):
                return await self._shared.append(append)
        return await self.run(partial(append_to_stream, append=append))

    @asynccontextmanager
    async def _speaking(self) -> AsyncIterator[PostgresStatements]:
        async with our_errors(), borrowed(self._open_pool, answer_first=True) as connection:
            yield PostgresStatements(HeldSession(connection), self.lanes, self._fence)

    async def run(self, unit: Callable[[Statements], Awaitable[T]]) -> T:
        """Run a closed unit in a transaction of its own."""
        async with self.transaction() as statements:
            return await unit(statements)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresStatements]:
        """Open a transaction of one's own.

        Raises TransactionHeldTooLongError, after a rollback, when the block lasts longer than the hold limit, and
        TransactionError inside another transaction of the same task.
        """
        self._refuse_inside()
        task = asyncio.current_task()
        async with borrowed(self._open_pool) as connection:
            session = HeldSession(connection)
            statements = PostgresStatements(session, self.lanes, self._fence, locking=True)
            self._holders.add(task)
            try:
                async with transaction_on(connection, self.hold_limit, session):
                    yield statements
                    statements.check_whole()
                    if statements.spoken and self.greeting.pooled:
                        await session.script(FORGET_WITHIN)
            finally:
                self._holders.discard(task)
                if statements.spoken and not self.greeting.pooled:
                    await forget(connection)
        self.notify(statements.touched)

    def _refuse_inside(self) -> None:
        if asyncio.current_task() in self._holders:
            raise TransactionError(
                "A transaction is open here: publish and write through the open one (tx.publish, tx.execute)."
            )

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresStatements]:
        """Statements over one committed state."""
        async with (
            borrowed(self._open_pool) as connection,
            transaction_on(connection, None, isolation="repeatable_read", readonly=True),
        ):
            session = HeldSession(connection, SCRIPT_SECONDS)
            await session.script(_NO_TIMEOUT)
            yield PostgresStatements(session, self.lanes, self._fence)

    @asynccontextmanager
    async def querying(self) -> AsyncIterator[PostgresStatements]:
        """Statements over one committed state for the user's questions."""
        async with borrowed(self._open_pool) as connection:
            statements = AskingStatements(HeldSession(connection), self.lanes, self._fence)
            try:
                async with transaction_on(connection, self.hold_limit, isolation="repeatable_read", readonly=True):
                    yield statements
                    if self.greeting.pooled:
                        await connection.execute(FORGET_WITHIN)
            finally:
                if statements.spoken and not self.greeting.pooled:
                    await forget(connection)

    def statements_on(self, session: Session) -> PostgresStatements:
        """Statements within a transaction of the user's; once it has committed, `notify` of what they touched."""
        return PostgresStatements(session, self.lanes, self._fence, locking=True)

    def listen(self, topics: Iterable[str], wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after commits that touch a topic, in this process at once, elsewhere by notice or poll."""
        names = list(topics)
        for name in names:
            self._listeners.setdefault(name, []).append(wake)

        def stop() -> None:
            for name in names:
                self._listeners[name].remove(wake)

        return stop

    def notify(self, topics: set[str], *, told: bool = False) -> None:
        """Tell listeners, here and in other processes, what a commit has touched; `told`: those know of it already."""
        self._wake(topics)
        elsewhere = topics - {PROGRESS_CHANGED}  # for that nobody waits in another process
        if self._notices is not None and elsewhere and not told:
            self._notices.send(elsewhere)

    def _notice(self, topics: set[str]) -> tuple[str, str] | None:
        return self._notices.with_commit(topics) if self._notices is not None else None

    def _heard(self, topics: set[str] | None) -> None:
        self._wake(set(self._listeners) if topics is None else topics)

    def _wake(self, topics: Iterable[str]) -> None:
        for topic in sorted(topics):
            for wake in tuple(self._listeners.get(topic, ())):
                wake()

    async def look_elsewhere(self) -> bool | None:
        """Look behind the fence; wake who reads the log if more is decided. True: look again soon.

        Who waits for something else hears of it by notice; now and then everybody is woken.
        """
        safe = await self._fence.glance(noticed=not self.greeting.pooled)
        now = asyncio.get_running_loop().time()
        net = now - self._last_net > (NET_SECONDS if self.greeting.pooled else NET_WITH_NOTICES)
        if safe != self._woken or net:
            self._woken = safe
            self._last_net = now if net else self._last_net
            self._wake([topic for topic in self._listeners if net or is_of_the_log(topic)])
            return True
        return self._fence.waiting

    def is_alive(self, worker: WorkerRow, now: int) -> bool:
        """Say whether a worker can hold leases.

        Its expiry has not passed by the database's clock, and on this host its process exists.
        """
        return worker.expires > 0 and (worker.host != self.host or pid_exists(worker.pid))

    async def take_turn(self, service: str, horizon: int, now: int, every: int) -> bool:
        """Note a service's horizon, and take the turn at upkeep if it is due, by the database's clock."""

        return await self.run(lambda statements: upkeep.take_turn(statements, service, horizon, every))

    async def upkeep(self, keeps: Sequence[str], now: int, progress: Callable[[int], None]) -> Upkept:
        """Make partitions ahead, and let go of what lies below every floor and is past its retention."""
        partitions = Partitions(self._changing)
        dropped = await upkeep.keep_up(partitions, self._fence, self.reading, keeps, now, progress)
        return dropped, partitions.left

    @asynccontextmanager
    async def _changing(
        self, limit: float | None = PARTITION_SECONDS, patience: float = PARTITION_SECONDS
    ) -> AsyncIterator[HeldSession]:
        async with borrowed(self._open_pool) as connection, transaction_on(connection, limit):
            session = HeldSession(connection, patience)
            await session.script(_NO_TIMEOUT)
            yield session

    async def holder(self) -> Holder:
        """Return who holds the fence: since when, and doing what."""
        await self._fence.look()
        if not self._fence.waiting:
            return Holder(self.greeting.database)
        return await holder(self._session, self.greeting.database, self._fence.waited)

    async def status(self) -> Mapping[str, object]:
        """Return facts about the database, and who holds the fence: since when, and doing what."""
        held = await self.holder()
        version = (await self._session.rows("SHOW server_version"))[0][0]
        size = (await self._session.rows("SELECT pg_database_size(current_database())"))[0][0]
        return {
            "database": f"Postgres {version}",
            "bytes": size,
            "lanes": self.lanes,
            "pooler": self.greeting.pooled,
            "safe position": self._fence.safe,
            "fence held by": held.name,
            "fence held seconds": held.seconds if held.name else None,
            "fence held doing": held.statement,
        }


def is_of_the_log(topic: str) -> bool:
    """Say whether a topic is told by new events in the log: a type of theirs, or that there are any."""
    return topic == LOG_CHANGED or not topic.startswith("#")


async def _no_reset(_connection: object) -> None:
    """Ours carry no state, and a reset costs a round trip: `forget` is called where the user's SQL was said."""


__all__ = ["PostgresStore", "open_store"]
