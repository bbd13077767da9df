"""The hand of a handler whose work is slow or outside the database: no transaction is open until `finish`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

from tidings.consuming.executor import Executor, Opened, driven, is_of_store, opened
from tidings.errors import LeaseLostError, TransactionClosedError
from tidings.events import Envelope
from tidings.publishing.producer import StableIds
from tidings.publishing.transaction import SyncTransaction, Told, Transaction
from tidings.rows import Ready
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World, moment

Settle = Callable[[Statements, Ready], Awaitable[None]]
"""Removes the work, fenced; raises LeaseLostError if another attempt has it."""

MakeTransaction = Callable[
    [Statements, Envelope, StableIds, int, Opened | None], "tuple[Transaction, Callable[[], Awaitable[None]]]"
]
"""Makes the transaction of a settlement, and the function that writes what it published."""


class Work:
    """One delivery to a Work handler: `envelope` is the event's, `attempt` counts from 1."""

    def __init__(
        self,
        row: Ready,
        envelope: Envelope,
        store: Store,
        world: World,
        settle: Settle,
        begin: MakeTransaction,
        author: str,
        executor: Executor | None = None,
    ) -> None:
        self._row = row
        self._author = author
        self._store = store
        self._world = world
        self._settle = settle
        self._begin = begin
        self.executor = executor
        self._key = StableIds(envelope, author).idempotency_key()
        self.envelope = envelope
        self.attempt = row.attempt
        self.lost: LeaseLostError | None = None
        self.finished = False
        self.stopping = False

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this event and subscription: hand it to outside systems that ask for one."""
        return self._key

    def now(self) -> datetime:
        """Return the service's present time."""
        return moment(self._world.now())

    @asynccontextmanager
    async def finish(self) -> AsyncIterator[Transaction]:
        """Open the transaction that settles: effects, outgoing events and the settlement commit together, once.

        With an executor it is the executor's, and `tx.hand` the session or connection to write through. Raises
        LeaseLostError when another worker has taken this delivery over: then nothing of the block is written. Raises
        TransactionClosedError when called a second time.
        """
        self._check_unfinished()
        with Told(self._store) as told:
            async with opened(self._store, self.executor) as (statements, joined):
                transaction, flush = self._begin(statements, self.envelope, self._ids(), self.attempt, joined)
                if joined is not None:
                    joined.join(transaction)
                try:
                    yield transaction
                except BaseException as error:
                    if not await is_of_store(error, transaction, statements, self.executor):
                        told.foreign = error
                    raise
                finally:
                    transaction.close()
                await self._end(transaction, statements, flush)
        self.finished = True

    @contextmanager
    def finish_here(self, executor: Executor, loop: asyncio.AbstractEventLoop) -> Iterator[SyncTransaction]:
        """Do the same in the thread that calls, with an executor that blocks. For the library's own use."""
        self._check_unfinished()
        with Told(self._store) as told, executor.here(self._store, loop) as joined:
            transaction, flush = self._begin(joined.statements, self.envelope, self._ids(), self.attempt, joined)
            face = joined.join(transaction)
            assert isinstance(face, SyncTransaction)
            try:
                yield face
            except BaseException as error:
                if not driven(is_of_store(error, transaction, joined.statements, executor)):
                    told.foreign = error
                raise
            driven(self._end(transaction, joined.statements, flush))
        self.finished = True

    def _check_unfinished(self) -> None:
        if self.finished:
            raise TransactionClosedError("finish() was called twice: a delivery is settled once. Do all in one block.")

    async def _end(
        self, transaction: Transaction, statements: Statements, flush: Callable[[], Awaitable[None]]
    ) -> None:
        await transaction.keep()
        await self._settled(statements)
        await flush()

    def _ids(self) -> StableIds:
        # Anew for each block: one that was rolled back has published nothing, and the next begins like the first.
        return StableIds(self.envelope, self._author)

    async def _settled(self, statements: Statements) -> None:
        try:
            await self._settle(statements, self._row)
        except LeaseLostError as error:
            self.lost = error
            raise

    async def settle_without_effects(self) -> None:
        """Settle with nothing written. For the library's own use: a handler that returns is settled so."""

        async def unit(statements: Statements) -> None:
            await self._settled(statements)

        with Told(self._store):
            await self._store.run(unit)
        self.finished = True


class SyncWork:
    """The same for a handler that is a plain function and runs in a thread."""

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._loop = loop

    @property
    def envelope(self) -> Envelope:
        """The event's envelope."""
        return self._work.envelope

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._work.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this event and subscription."""
        return self._work.idempotency_key

    @property
    def stopping(self) -> bool:
        """True once the process is asked to stop."""
        return self._work.stopping

    def now(self) -> datetime:
        """Return the service's present time."""
        return self._work.now()

    @contextmanager
    def finish(self) -> Iterator[SyncTransaction]:
        """Open the transaction that settles; see Work.finish."""
        if self._work.executor is not None:
            with self._work.finish_here(self._work.executor, self._loop) as face:
                yield face
            return
        opened: asyncio.Future[Transaction] = self._loop.create_future()
        ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        block = asyncio.run_coroutine_threadsafe(self._hold_open(opened, ended), self._loop)
        transaction = asyncio.run_coroutine_threadsafe(_result_of(opened), self._loop).result()
        try:
            yield SyncTransaction(transaction, self._loop)
        except BaseException as error:
            self._loop.call_soon_threadsafe(_set, ended, error)
            block.exception()
            raise
        self._loop.call_soon_threadsafe(_set, ended, None)
        block.result()

    async def _hold_open(
        self, opened: "asyncio.Future[Transaction]", ended: "asyncio.Future[BaseException | None]"
    ) -> None:
        try:
            async with self._work.finish() as transaction:
                opened.set_result(transaction)
                error = await ended
                if error is not None:
                    raise error
        except BaseException as error:
            if not opened.done():
                opened.set_exception(error)
            raise


async def _result_of(future: "asyncio.Future[Transaction]") -> Transaction:
    return await future


def _set(future: "asyncio.Future[BaseException | None]", value: BaseException | None) -> None:
    if not future.done():
        future.set_result(value)
