"""A simulated process: a worker's service on the shared file, which can be killed, frozen and started again."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from tidings.backends.sqlite.commits import InlineCommits
from tidings.backends.sqlite.driver import Connection
from tidings.backends.sqlite.store import SqliteStore
from tidings.points import ProcessEnd
from tidings.service import Service
from tidings.testing.simulation.loop import GROUP, SimulatedLoop

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Virtual second 0."""


class Crash(ProcessEnd):
    """The process was killed here. No code of the product may run on."""


class Process:
    """Implements loop.Group around one service. `crash_after`: writing statements until it is killed; None: never."""

    def __init__(self, number: int, pid: int, loop: SimulatedLoop, random: Random) -> None:
        self.number = number
        self.pid = pid
        self.loop = loop
        self.random = random
        self.alive = True
        self.frozen = False
        self.started = False
        self.release = 1
        self.tasks: set[asyncio.Task[Any]] = set()
        self.aside: list[Any] = []
        self.death = asyncio.Event()
        self.stopping = asyncio.Event()
        self.clock_error = timedelta(0)
        self.crash_after: int | None = None
        self.killed_at = ""
        self.service: Service | None = None
        self._connections: list[SimulatedConnection] = []

    def clock(self) -> datetime:
        """Tell the time of this process, which may be wrong."""
        return EPOCH + timedelta(seconds=self.loop.time()) + self.clock_error

    def make(self, coroutine: Any) -> "asyncio.Task[Any]":
        """Run a coroutine in this process."""
        context = copy_context()
        context.run(GROUP.set, self)
        return self.loop.create_task(coroutine, context=context)

    def make_service(self, source: str, file: Path, is_alive: Callable[[int], bool]) -> Service:
        """Make the service of this process on the shared file, on which nothing is declared yet."""
        service = Service(
            source,
            store=f"sqlite+apsw:///{file}",
            grace=timedelta(seconds=2),
            clock=self.clock,
            random=self.random,
        )
        self._tie(service, is_alive)
        return service

    async def live(self, running: AbstractAsyncContextManager[Service], *, late_commits: bool) -> None:
        """Run the service until the process is stopped, or it fails; `late_commits` may be seen late."""
        try:
            async with running:
                if late_commits:
                    self._commit_late()
                self.started = True
                await self.stopping.wait()
        except Exception as error:
            self.killed_at = f"{type(error).__name__}: {error}"
        finally:
            if self.alive:
                self.ended()

    def _tie(self, service: Service, is_alive: Callable[[int], bool]) -> None:
        """Tie a service to this process: its connections, its pid."""
        store = service.store
        assert isinstance(store, SqliteStore)
        store.synchronous = "OFF"
        store.inline_commits = True
        store.host = "simulated"
        store.alive_pid = is_alive
        connect = store._connect

        def open_connection(path: str) -> Connection:
            connection = SimulatedConnection(connect(path), self)
            self._connections.append(connection)
            return connection

        store._connect = open_connection
        service.process_id = lambda: self.pid
        self.service = service

    def _commit_late(self) -> None:
        """Let commits take a while and be heard of later, from now on."""
        store = self.service.store if self.service is not None else None
        assert isinstance(store, SqliteStore)
        assert store._writer is not None
        store._writer._commits = LateCommits(self.random)

    @property
    def waits_to_write(self) -> bool:
        """Whether somebody in it has the turn to write, and another process the file."""
        store = self.service.store if self.service is not None else None
        if not isinstance(store, SqliteStore) or store._writer is None or store._writing is None:
            return False
        return not store._writer.idle and not store._writing.in_transaction

    def kill(self, where: str) -> None:
        """End the process on the spot: its transactions are rolled back, its tasks never run again."""
        self.alive = False
        self.killed_at = where
        self.death.set()
        for connection in self._connections:
            connection.end()
        store = self.service.store if self.service is not None else None
        if isinstance(store, SqliteStore) and store._guard is not None:
            store._guard.release()  # the operating system gives back what a dead process held
            store._guard = None

    def ended(self) -> None:
        """Note that the process has ended by itself."""
        self.alive = False
        self.death.set()


class SimulatedConnection:
    """A connection that its process takes with it when it is killed. Implements driver.Connection."""

    def __init__(self, real: Connection, process: Process) -> None:
        self._real: Any = real
        self._process = process
        self._closed = False

    def _use(self) -> None:
        process = self._process
        if not process.alive or self._closed:
            raise Crash("the process is dead")
        if process.crash_after is not None and process.started:
            process.crash_after -= 1
            if process.crash_after < 0:
                process.kill("a statement")
                raise Crash("a statement")

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """See driver.Connection."""
        self._use()
        changed: int = self._real.run(sql, args)
        return changed

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """See driver.Connection."""
        self._use()
        self._real.many(sql, rows)

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See driver.Connection."""
        if not self._process.alive or self._closed:
            raise Crash("the process is dead")
        found: list[tuple[Any, ...]] = self._real.rows(sql, args)
        return found

    def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """See driver.Connection."""
        self._use()
        described: tuple[tuple[str, ...], list[tuple[Any, ...]]] = self._real.described(sql, args)
        return described

    def script(self, sql: str) -> None:
        """See driver.Connection."""
        self._use()
        self._real.script(sql)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open: never in a dead process, whose clean-up asks on its way down."""
        return not self._closed and bool(self._real.in_transaction)

    def interrupt(self) -> None:
        """See driver.Connection."""
        self._real.interrupt()

    def close(self) -> None:
        """See driver.Connection."""
        self.end()

    def end(self) -> None:
        """Close, which rolls back; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._real.close()


class LateCommits(InlineCommits):
    """Commits after a while, and tells after another: as a thread does, while the loop goes on."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def perform(self, commit: Callable[[], None]) -> None:
        """Commit; a cancelled caller is told once the commit is done, as production does."""
        done = asyncio.ensure_future(self._perform(commit))
        cancelled: asyncio.CancelledError | None = None
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        done.result()

    async def _perform(self, commit: Callable[[], None]) -> None:
        await asyncio.sleep(self._random.random() * 0.002)
        commit()
        await asyncio.sleep(self._random.random() * 0.002)
