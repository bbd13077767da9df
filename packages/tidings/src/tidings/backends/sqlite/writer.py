"""The one writing connection of a process: who has its turn, and what shares a commit."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from msgspec import Struct

from tidings.backends.sqlite.commits import Commits
from tidings.backends.sqlite.driver import Connection
from tidings.backends.sqlite.statements import SqliteStatements
from tidings.backends.sqlite.statements.rows import Appended
from tidings.errors import (
    StoreBusyError,
    StoreError,
    StoreUnavailableError,
    TransactionError,
    TransactionHeldTooLongError,
)
from tidings.events import Envelope
from tidings.points import reach
from tidings.statements import Statements

log = logging.getLogger("tidings")

MOST_IN_A_GROUP = 1000
"""Publishes and units that share one commit at most: about 10 ms of statements on the loop."""

BUSY_SECONDS = 30.0
"""How long to wait for another process's transaction; that one may last one second, and queues form."""


FORCE_SECONDS = 0.25
"""So long after the hold limit a block that swallows its cancellation is ended by force."""


class _Waiting(Struct):
    unit: Callable[[Statements], Awaitable[Any]] | None
    envelopes: Sequence[Envelope]
    done: asyncio.Future[Any]


class _Turn(Struct):
    """Somebody's turn; `over` once it was ended by force."""

    over: bool = False


class Writer:
    """Takes turns: a group of closed units in one commit, or one open block. Statements run on the loop, commits
    where `commits` says."""

    def __init__(
        self,
        connection: Connection,
        new_statements: Callable[[], SqliteStatements],
        commits: Commits,
        random: Random,
        hold_limit: float,
        committed: Callable[[set[str], Appended | None], None],
    ) -> None:
        self._connection = connection
        self._new_statements = new_statements
        self._statements = new_statements()
        self._commits = commits
        self._random = random
        self._hold_limit = hold_limit
        self._committed = committed
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self._closed = False
        self._is_committed = False
        self._waiting: list[_Waiting] = []
        self._groups: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """True while no transaction is open and none waits for its turn."""
        return not self._turn.locked()

    def publish(self, envelopes: Sequence[Envelope]) -> "asyncio.Future[None]":
        """Append envelopes in the next group; the future is done once they are durable."""
        return self._enqueue(None, envelopes)

    def run(self, unit: Callable[[Statements], Awaitable[Any]]) -> "asyncio.Future[Any]":
        """Run a closed unit in the next group; the future has its result once that is durable."""
        return self._enqueue(unit, ())

    def _enqueue(
        self, unit: Callable[[Statements], Awaitable[Any]] | None, envelopes: Sequence[Envelope]
    ) -> asyncio.Future[Any]:
        self._refuse_inside()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Waiting(unit, envelopes, done))
        if self._groups is None:
            self._groups = loop.create_task(self._serve())
        return done

    @asynccontextmanager
    async def block(self) -> AsyncIterator[SqliteStatements]:
        """Open a transaction of one's own.

        Raises TransactionHeldTooLongError, after a rollback, when the block lasts longer than the hold limit.
        """
        self._refuse_inside()
        await self._turn.acquire()
        turn = _Turn()
        try:
            await self._begin()
            # Its own, so that it can be ended for good while others go on.
            statements = self._new_statements()
            statements.start()
            self._holder = asyncio.current_task()
            limit = asyncio.timeout(self._hold_limit)
            loop = asyncio.get_running_loop()
            force = loop.call_later(self._hold_limit + FORCE_SECONDS, self._end_by_force, turn, statements)
            try:
                async with limit:
                    yield statements
                if limit.expired():  # the block has swallowed its cancellation
                    raise TimeoutError
            except BaseException as error:
                if not turn.over:
                    self._roll_back()
                statements.end(self._held_too_long())
                if limit.expired() and isinstance(error, TimeoutError):
                    raise self._held_too_long() from error
                raise
            finally:
                force.cancel()
                if not turn.over:
                    self._holder = None
            await self._commit(statements)
        finally:
            if not turn.over:
                self._turn.release()

    def _end_by_force(self, turn: _Turn, statements: SqliteStatements) -> None:
        """Roll back for a block that swallows its cancellation and goes on: everybody else waits for it."""
        self._roll_back()
        statements.end(self._held_too_long())
        self._holder = None
        turn.over = True
        self._turn.release()

    def _held_too_long(self) -> TransactionHeldTooLongError:
        return TransactionHeldTooLongError(
            f"A transaction was open for more than {self._hold_limit:g} s and was rolled back, because it blocks every "
            "other writer. Do slow work before it, or in a Work handler."
        )

    def _refuse_inside(self) -> None:
        if self._closed:
            raise StoreUnavailableError("The store is closed: publish and write only while the service runs.")
        if self._holder is not None and self._holder is asyncio.current_task():
            raise TransactionError(
                "A transaction is open here, and another would wait for its end: publish and write through the open "
                "one (tx.publish, tx.execute)."
            )

    async def _serve(self) -> None:
        try:
            while self._waiting:
                async with self._turn:
                    group, self._waiting = self._waiting[:MOST_IN_A_GROUP], self._waiting[MOST_IN_A_GROUP:]
                    await self._commit_group(group)
        finally:
            self._groups = None
            for left in self._waiting:
                left.done.cancel()

    async def _commit_group(self, group: list[_Waiting]) -> None:
        try:
            outcomes = await self._perform(group)
        except Exception as error:
            self._roll_back()
            await self._one_by_one(group, error)
            return
        except BaseException:
            self._roll_back()
            for waiting in group:
                waiting.done.cancel()
            raise
        for waiting, (result, failure) in zip(group, outcomes, strict=True):
            _resolve(waiting.done, result, failure)

    async def _one_by_one(self, group: list[_Waiting], error: Exception) -> None:
        if len(group) == 1 or (isinstance(error, StoreError) and error.retryable):
            for waiting in group:
                _resolve(waiting.done, None, error)
            return
        for waiting in group:
            await self._commit_group([waiting])

    async def _perform(self, group: list[_Waiting]) -> list[tuple[Any, Exception | None]]:
        await self._begin()
        self._statements.start()
        published = [envelope for waiting in group for envelope in waiting.envelopes]
        outcomes = [await self._outcome(waiting.unit) if waiting.unit else (None, None) for waiting in group]
        if published:
            await self._statements.append(published)
        reach("publish.before_commit")
        await self._commit(self._statements)
        reach("publish.after_commit")
        return outcomes

    async def _outcome(self, unit: Callable[[Statements], Awaitable[Any]]) -> tuple[Any, Exception | None]:
        await self._statements.savepoint()
        try:
            result = await unit(self._statements)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite rolled back the whole transaction by itself (full disk, I/O error)
            await self._statements.roll_back_to_savepoint()
            return None, error
        await self._statements.release()
        return result, None

    async def _begin(self) -> None:
        deadline = asyncio.get_running_loop().time() + BUSY_SECONDS
        pause = 0.0005
        while True:
            try:
                self._connection.run("BEGIN IMMEDIATE")
                return
            except StoreBusyError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.5))
            pause = min(pause * 1.5, 0.02)

    async def _commit(self, statements: SqliteStatements) -> None:
        self._is_committed = False
        try:
            await self._commits.perform(self._end)
        finally:
            if self._is_committed:  # maybe cancelled while waiting: listeners must still hear of it
                self._committed(statements.touched, statements.appended)
            else:
                self._roll_back()

    def _end(self) -> None:
        self._connection.run("COMMIT")
        self._is_committed = True

    def _roll_back(self) -> None:
        self._statements.start()
        try:
            # After a full disk or an I/O error SQLite has rolled back by itself.
            if self._connection.in_transaction:
                self._connection.run("ROLLBACK")
        except Exception as error:  # who waits shall hear of the failure that led here
            log.error("A transaction could not be rolled back; the next one will tell why: %s", error)

    async def drain(self) -> None:
        """Wait until what was enqueued is committed."""
        while self._groups is not None:
            await asyncio.wait([self._groups])
        async with self._turn:  # an open block ends first; what comes later is refused
            self._closed = True


def _resolve(done: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(failure)
