"""Executors whose library blocks: a transaction lives in a thread of its own, and our statements go there."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

from tidings.backends.postgres.driver import Rows, Session
from tidings.consuming.executor import driven
from tidings.consuming.threads import Threads
from tidings.errors import TidingsError
from tidings.integrations.ending import Watch
from tidings.integrations.joining import Joined, postgres_store, too_long
from tidings.publishing.transaction import SyncTransaction, Transaction
from tidings.store import Store

T = TypeVar("T")

ROLLBACK_SECONDS = 5.0
"""How long a rollback may take before the connection is cut off."""


class BlockingTransaction(SyncTransaction):
    """A SyncTransaction in the thread where the connection is: nothing waits for the loop."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return driven(call)


class _Thread:
    """The thread of one transaction. `left`: a caller was cancelled, so that something may still run in it."""

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self.left = False

    @property
    def is_here(self) -> bool:
        return self.threads.is_here

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return await self.threads.call(function, *args)
        except asyncio.CancelledError:
            self.left = True
            raise


class _ThreadSession:
    """Implements Session over one that blocks: in its thread directly, from the loop by a hop."""

    def __init__(self, session: Session, thread: _Thread) -> None:
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

    thread: _Thread | None = None

    def join(self, transaction: Transaction) -> SyncTransaction:
        super().join(transaction)
        return BlockingTransaction(transaction)

    async def call(self, handler: Callable[..., Any], *args: Any) -> None:
        assert self.thread is not None
        await self.thread.call(handler, *args)


Begun = tuple[Session, Any, object, Any]
"""A session that blocks, the hand that a handler gets, what publish() is called with, and psycopg's connection."""

Block = AbstractContextManager[Begun]


def cut(connection: Any) -> None:
    """Cut a connection of psycopg's off, whatever its thread does: the server rolls back, the thread gets an error."""
    with suppress(Exception):  # it may end by itself meanwhile
        connection.cancel()  # a server that is busy would not look whether anybody is there
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as cable:
        cable.shutdown(socket.SHUT_RDWR)


def _cut_beside(connection: Any) -> threading.Thread:
    """Do so without waiting for it: to cancel goes over the network."""
    cutting = threading.Thread(target=cut, args=(connection,), name="tidings-cut", daemon=True)
    cutting.start()
    return cutting


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
        """Open a transaction in a thread; raises StoreError when it cannot begin or commit.

        A thread that does not come back in time is left, and its connection cut off; past the store's limit it raises
        TransactionHeldTooLongError.
        """
        postgres = postgres_store(store, "executor=")
        thread = _Thread(self._idle.pop() if self._idle else Threads(1, "tidings-executor"))
        block = self._begin()
        limit, watch = asyncio.timeout(postgres.hold_limit), Watch(postgres)
        joined = raw = None
        try:
            async with limit:
                session, hand, key, raw = await self._ours(thread, block.__enter__)
                await self._ours(thread, driven, watch.begin(session))
                there = _ThreadSession(session, thread)
                joined = _JoinedThere(postgres.statements_on(there), there, watch, postgres.lanes, hand, key)
                joined.thread = thread
                yield joined
                watch.ending = True
                await self._ours(thread, block.__exit__, None, None, None)
        except BaseException as error:
            await self._undo(thread, block, raw, error)
            if isinstance(error, Exception):
                await watch.check_undone(error)
            if isinstance(error, TimeoutError) and limit.expired():
                raise too_long(postgres.hold_limit, watch) from error
            raise
        finally:
            if joined is not None:
                joined.leave()
            if not thread.left:
                self._idle.append(thread.threads)
        postgres.notify(joined.statements.touched)

    async def _undo(
        self, thread: _Thread, block: AbstractContextManager[Begun], raw: Any, error: BaseException
    ) -> None:
        """Roll back: in the thread if it answers, else by cutting the connection off."""
        if not thread.left:
            with suppress(TimeoutError):
                async with asyncio.timeout(ROLLBACK_SECONDS):
                    await self._ours(thread, block.__exit__, type(error), error, error.__traceback__)
                    return
        cutting = _cut_beside(raw) if raw is not None else None
        thread.threads.start(self._come_back, thread.threads, block, cutting)

    def _come_back(self, threads: Threads, block: Block, cutting: threading.Thread | None) -> None:
        """Leave the block in the thread that was left, once what ran there has ended."""
        if cutting is not None:
            cutting.join()  # else a pool might get the connection back whole, and somebody else be cut off
        with suppress(BaseException):  # nobody waits for it any more
            block.__exit__(ConnectionError, ConnectionError("cut off"), None)
        self._idle.append(threads)

    async def _ours(self, thread: _Thread, function: Callable[..., T], *args: Any) -> T:
        try:
            return await thread.call(function, *args)
        except Exception as error:
            raise self.failure(error) or error from error

    @contextmanager
    def here(self, store: Store, loop: asyncio.AbstractEventLoop) -> Iterator[Joined]:
        """Open a transaction in the thread that calls; past the limit of its time the connection is cut off."""
        postgres = postgres_store(store, "executor=")
        joined, watch = None, Watch(postgres)
        expired = threading.Event()
        try:
            with self._begin() as (session, hand, key, raw), _cut_after(postgres.hold_limit, raw, expired):
                driven(watch.begin(session))
                joined = _JoinedThere(postgres.statements_on(session), session, watch, postgres.lanes, hand, key)
                yield joined
                watch.ending = True
        except Exception as error:
            asyncio.run_coroutine_threadsafe(watch.check_undone(error), loop).result()
            if expired.is_set():
                raise too_long(postgres.hold_limit, watch) from error
            raise self.failure(error) or error from error
        finally:
            if joined is not None:
                joined.leave()
        loop.call_soon_threadsafe(postgres.notify, joined.statements.touched)


@contextmanager
def _cut_after(seconds: float, raw: Any, expired: threading.Event) -> Iterator[None]:
    def expire() -> None:
        expired.set()
        cut(raw)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # if it is at it, the connection is broken when it goes back to a pool
