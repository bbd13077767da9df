"""What the integrations stand on: who publishes, and our statements on a connection of the user's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from tidings.backends.postgres import PostgresStore
from tidings.backends.postgres.driver import Session
from tidings.backends.postgres.fence import Fence
from tidings.backends.postgres.statements import PostgresStatements
from tidings.errors import (
    ServiceError,
    StoreUnavailableError,
    StoreVersionError,
    TidingsError,
    TransactionClosedError,
    TransactionHeldTooLongError,
)
from tidings.events import Envelope, Event
from tidings.integrations.ending import Watch
from tidings.publishing.outbox import Outbox
from tidings.publishing.transaction import SyncTransaction, Transaction
from tidings.service import Service, only_service
from tidings.store import LOG_CHANGED, Store


class Joined:
    """Implements tidings.consuming.executor.Opened: an executor's transaction, known by the hand it gives out.

    What is published through the hand gets the ids, cause and correlation of the event being handled.
    """

    def __init__(
        self, statements: PostgresStatements, session: Session, watch: Watch, lanes: int, hand: Any, key: object
    ) -> None:
        self.statements = statements
        self._session = session
        self._watch = watch
        self.lanes = lanes
        self.hand = hand
        self._key = key
        self._transaction: Transaction | None = None

    def join(self, transaction: Transaction) -> Transaction | SyncTransaction:
        """Let what is published through the hand belong to a transaction; return the handler's face of it."""
        self._transaction = transaction
        _joined[self._key] = self
        return transaction

    async def check(self) -> None:
        """Raise StatementError if the transaction is another than the one that was opened."""
        await self._watch.check(self._session)

    async def call(self, handler: Callable[..., Any], *args: Any) -> None:
        """Call the handler."""
        await handler(*args)

    def buffer(
        self, outbox: Outbox, event: Event, id: str | None, delay: timedelta | None, at: datetime | None
    ) -> Envelope:
        """Wrap an event into an outbox."""
        assert self._transaction is not None  # join() comes before the handler
        envelope = self._transaction.buffer(outbox, event, id, delay, at)
        self.statements.touched |= {envelope.type, LOG_CHANGED}
        return envelope

    def leave(self) -> None:
        """Forget the hand: its transaction has ended."""
        _joined.pop(self._key, None)


_joined: "WeakKeyDictionary[object, Joined]" = WeakKeyDictionary()


Publisher = Service | Joined


def publisher_on(connection: object, service: Service | None) -> Publisher:
    """Return who publishes on a connection: the event being handled there, the service named, or the only one."""
    return _joined.get(connection) or service or only_service()


class Block:
    """What is published within a `with` block of this, until it ends."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.outbox = Outbox()
        self._open = True

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End: what is published later would never be written."""
        self._open = False

    def publish(
        self, event: Event, *, id: str | None = None, delay: timedelta | None = None, at: datetime | None = None
    ) -> Envelope:
        """Publish an event when the block ends; raises TransactionClosedError after it."""
        if not self._open:
            raise TransactionClosedError(
                "The block of this outbox has ended, its transaction with it: publish inside the block."
            )
        return self.publisher.buffer(self.outbox, event, id, delay, at)


def postgres_store(store: Store, what: str) -> PostgresStore:
    """Return a store as the Postgres store that it is; raises ServiceError if it is another."""
    if isinstance(store, PostgresStore):
        return store
    raise ServiceError(
        f"{what} joins a transaction on Postgres, but the service keeps its log elsewhere: give it "
        'store="postgresql://…" with the database of your connection, or use service.outbox_row().'
    )


_lanes: "WeakKeyDictionary[Service, int]" = WeakKeyDictionary()
# Reckoned once per service: the number of lanes is fixed when a log is made.


async def flush(outbox: Outbox, session: Session, publisher: Publisher) -> None:
    """Write an outbox in the transaction that is open on a session, and empty it."""
    if isinstance(publisher, Joined):
        lanes = publisher.lanes
    else:
        postgres_store(publisher.store, "publish()")
        lanes = _lanes.get(publisher) or await _count_lanes(session)
        _lanes[publisher] = lanes
    await outbox.flush(PostgresStatements(session, lanes, Fence(session)))
    outbox.cut((0, 0, 0, 0))


async def _count_lanes(session: Session) -> int:
    if not (await session.rows("SELECT to_regclass('tidings.meta') IS NOT NULL"))[0][0]:
        raise StoreVersionError(
            "The database of this connection has no log of Tidings: run `tidings store migrate` (Django: `manage.py "
            "migrate`), or connect to the database that the service names."
        )
    return int((await session.rows("SELECT value FROM tidings.meta WHERE name = 'lanes'"))[0][0])


def too_long(seconds: float, watch: Watch) -> TidingsError:
    """Return the error of a transaction that was open for longer than a store lets it, by its handler or its commit."""
    if watch.ending:
        return StoreUnavailableError("The database did not answer a commit in time. It is tried again.")
    return TransactionHeldTooLongError(
        f"A handler's transaction was open for more than {seconds:g} s and was rolled back. Do slow work in a Work "
        "handler."
    )


AsyncBegun = tuple[Session, Any, object]
"""A session on the loop, the hand that a handler gets, and what publish() is called with."""


class AsyncExecutor:
    """Implements tidings.consuming.executor.Executor with a function that opens a transaction on the loop."""

    is_async = True

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[AsyncBegun]],
        failure: Callable[[BaseException], TidingsError | None],
        hands: tuple[type, ...],
    ) -> None:
        self._begin = begin
        self.failure = failure
        self.hands = hands

    @asynccontextmanager
    async def transaction(self, store: Store) -> AsyncIterator[Joined]:
        """Open a transaction; raises StoreError when it cannot begin or commit, TransactionHeldTooLongError."""
        postgres = postgres_store(store, "executor=")
        limit, watch = asyncio.timeout(postgres.hold_limit), Watch(postgres)
        try:
            async with limit, self._begin() as (session, hand, key):
                await watch.begin(session)
                joined = Joined(postgres.statements_on(session), session, watch, postgres.lanes, hand, key)
                try:
                    yield joined
                finally:
                    joined.leave()
                watch.ending = True
        except Exception as error:
            await watch.check_undone(error)
            if isinstance(error, TimeoutError) and limit.expired():
                raise too_long(postgres.hold_limit, watch) from error
            raise self.failure(error) or error from error
        postgres.notify(joined.statements.touched)

    def here(self, store: Store, loop: asyncio.AbstractEventLoop) -> AbstractContextManager[Joined]:
        """Refuse: this library does not block."""
        raise ServiceError("An async executor opens no transaction in a thread: write the handler as async def.")
