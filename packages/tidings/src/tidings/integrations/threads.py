"""Executors whose library blocks: a transaction lives in a thread of its own, and our statements go there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from tidings.backends.postgres.driver import Rows, Session
from tidings.consuming.executor import driven
from tidings.consuming.threads import Threads
from tidings.errors import TidingsError
from tidings.integrations.joining import Joined, postgres_store
from tidings.publishing.transaction import SyncTransaction, Transaction
from tidings.store import Store

T = TypeVar("T")


class BlockingTransaction(SyncTransaction):
    """A SyncTransaction in the thread where the connection is: nothing waits for the loop."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return driven(call)


class _ThreadSession:
    """Implements Session over one that blocks: in its thread directly, from the loop by a hop."""

    def __init__(self, session: Session, thread: Threads) -> None:
        self._session = session
        self._thread = thread

    async def _say(self, call: Coroutine[Any, Any, T]) -> T:
        return await call if self._thread.is_here else await self._thread.call(driven, call)

    async def rows(self, sql: str, *args: Any) -> Rows:
        return await self._say(self._session.rows(sql, *args))

    async def run(self, sql: str, *args: Any) -> int:
        return await self._say(self._session.run(sql, *args))

    async def described(self, sql: str, args: Any) -> tuple[tuple[str, ...], Rows]:
        return await self._say(self._session.described(sql, args))

    async def script(self, sql: str) -> None:
        await self._say(self._session.script(sql))


class _JoinedThere(Joined):
    """An executor's transaction in a thread; without one, in the thread that calls."""

    thread: Threads | None = None

    def join(self, transaction: Transaction) -> SyncTransaction:
        super().join(transaction)
        return BlockingTransaction(transaction)

    async def call(self, handler: Callable[..., Any], *args: Any) -> None:
        assert self.thread is not None
        await self.thread.call(handler, *args)


Begun = tuple[Session, Any, object]
"""A session that blocks, the hand that a handler gets, and what publish() is called with."""


class BlockingExecutor:
    """Implements tidings.consuming.executor.Executor with a function that opens a transaction and blocks."""

    is_async = False

    def __init__(
        self,
        begin: Callable[[], AbstractContextManager[Begun]],
        failure: Callable[[BaseException], TidingsError | None],
        hands: tuple[type, ...],
    ) -> None:
        self._begin = begin
        self.failure = failure
        self.hands = hands
        self._idle: list[Threads] = []

    @asynccontextmanager
    async def transaction(self, store: Store) -> AsyncIterator[Joined]:
        """Open a transaction in a thread; raises StoreError when it cannot begin or commit."""
        postgres = postgres_store(store, "executor=")
        thread = self._idle.pop() if self._idle else Threads(1, "tidings-executor")
        block = self._begin()
        try:
            session, hand, key = await self._ours(thread, block.__enter__)
            statements = postgres.statements_on(_ThreadSession(session, thread))
            joined = _JoinedThere(statements, postgres.lanes, hand, key)
            joined.thread = thread
            try:
                yield joined
            except BaseException as error:
                await self._ours(thread, block.__exit__, type(error), error, error.__traceback__)
                raise
            else:
                await self._ours(thread, block.__exit__, None, None, None)
            finally:
                joined.leave()
        finally:
            self._idle.append(thread)
        postgres.notify(joined.statements.touched)

    async def _ours(self, thread: Threads, function: Callable[..., T], *args: Any) -> T:
        try:
            return await thread.call(function, *args)
        except Exception as error:
            raise self.failure(error) or error from error

    @contextmanager
    def here(self, store: Store, loop: asyncio.AbstractEventLoop) -> Iterator[Joined]:
        """Open a transaction in the thread that calls."""
        postgres = postgres_store(store, "executor=")
        joined = None
        try:
            with self._begin() as (session, hand, key):
                joined = _JoinedThere(postgres.statements_on(session), postgres.lanes, hand, key)
                yield joined
        except Exception as error:
            raise self.failure(error) or error from error
        finally:
            if joined is not None:
                joined.leave()
        loop.call_soon_threadsafe(postgres.notify, joined.statements.touched)
