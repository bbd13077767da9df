"""PORT: what opens a transaction of the user's kind (a session, a connection), so that settling joins it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from tidings.errors import StoreError, TidingsError
from tidings.publishing.transaction import SyncTransaction, Transaction
from tidings.statements import Statements
from tidings.store import Store

T = TypeVar("T")


class Opened(Protocol):
    """One open transaction of the user's: our statements in it, and `hand`, through which the handler writes."""

    @property
    def statements(self) -> Statements:
        """Everything that is said to the store within it."""

    @property
    def hand(self) -> Any:
        """What the handler writes through."""

    def join(self, transaction: Transaction) -> Transaction | SyncTransaction:
        """Let what is published through the hand go out with a transaction; return its face for the handler."""

    async def check(self) -> None:
        """Raise StatementError if the transaction is another than the one that was opened: the handler ended it."""

    async def call(self, handler: Callable[..., Any], *args: Any) -> None:
        """Call a handler where the transaction lives."""


class Executor(Protocol):
    """Opens transactions of one kind."""

    @property
    def hands(self) -> tuple[type, ...]:
        """Hints by which a handler asks for the hand."""

    @property
    def is_async(self) -> bool:
        """Whether handlers are coroutines; plain functions run in a thread."""

    def transaction(self, store: Store) -> AbstractAsyncContextManager[Opened]:
        """Open a transaction: commits at the end of the block, rolls back when it raises."""

    def here(self, store: Store, loop: asyncio.AbstractEventLoop) -> AbstractContextManager[Opened]:
        """Open one in the thread that calls; `loop` is the service's. Only where `is_async` is false."""

    def failure(self, error: BaseException) -> TidingsError | None:
        """Return ours for an error of the driver's, None if it is not one."""


@asynccontextmanager
async def opened(store: Store, executor: Executor | None) -> AsyncIterator[tuple[Statements, Opened | None]]:
    """Open the transaction in which a subscription settles: its executor's, or the store's own."""
    if executor is None:
        async with store.transaction() as statements:
            yield statements, None
    else:
        async with executor.transaction(store) as one:
            yield one.statements, one


async def is_of_store(
    error: BaseException, transaction: Transaction, statements: Statements, executor: Executor | None
) -> bool:
    """Say whether what a block raised means that the store itself failed, and not another one that its code uses.

    An executor's library says nothing of that: then the store's own transaction is asked whether it still answers.
    """
    if error is transaction.failure:
        return True
    failure = executor.failure(error) if executor is not None else None
    if not isinstance(failure, StoreError) or not failure.retryable:
        return False
    try:
        await statements.held(None, [])
    except Exception:  # whatever it is, this transaction is over
        return True
    return False


def driven(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, such as statements on a connection that blocks; return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("A coroutine waited where none may: this is a defect of Tidings, please report it.")
