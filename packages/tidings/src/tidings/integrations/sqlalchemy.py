"""SQLAlchemy: publish in the transaction of a session or connection, and handlers that write through a session.

Events wait beside the transaction and are inserted by one statement right before COMMIT. Savepoints take the events
published within them along when they are rolled back.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction, scoped_session, sessionmaker
from sqlalchemy.sql.elements import SavepointClause

from tidings.consuming.executor import Executor, driven
from tidings.errors import ServiceError
from tidings.events import Envelope, Event
from tidings.integrations.ending import not_yours
from tidings.integrations.joining import AsyncBegun, AsyncExecutor, Publisher, flush, publisher_on
from tidings.integrations.sqlalchemy_sessions import (
    HELD,
    LoopSession,
    OpenSession,
    failure,
    holding,
    session_on,
)
from tidings.integrations.threads import Begun, BlockingExecutor
from tidings.publishing.outbox import EMPTY, Mark, Outbox
from tidings.service import Service

__all__ = ["publish", "sqlalchemy_executor"]

AnySession = AsyncSession | AsyncConnection | Session | Connection | scoped_session[Any] | async_scoped_session[Any]
KEY = "tidings"
"""Under this name a session's `info` holds what its transaction will publish."""

COMMITTING = "tidings.committing"
"""Under this name a session's `info` holds which of its transactions are being committed."""


class _Pending:
    """What a session's transaction will publish. `marks`: where each transaction that is open and nested began."""

    def __init__(self) -> None:
        self.outboxes: dict[Publisher, Outbox] = {}
        self.marks: dict[SessionTransaction, dict[Publisher, Mark]] = {}

    def outbox(self, publisher: Publisher) -> Outbox:
        return self.outboxes.setdefault(publisher, Outbox())

    def mark(self) -> dict[Publisher, Mark]:
        return {publisher: outbox.mark() for publisher, outbox in self.outboxes.items()}

    def cut(self, mark: dict[Publisher, Mark]) -> None:
        for publisher, outbox in self.outboxes.items():
            outbox.cut(mark.get(publisher, EMPTY))


class _PendingOnConnection(_Pending):
    """What a connection's transaction will publish: its own, and that of the sessions which have joined it."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[_Pending] = []
        self.savepoints: dict[str, tuple[dict[Publisher, Any], int]] = {}


_connections: "WeakKeyDictionary[Connection, _PendingOnConnection]" = WeakKeyDictionary()


def publish(
    session: AnySession,
    event: Event,
    *,
    service: Service | None = None,
    id: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
) -> Envelope:
    """Publish an event if and only if the transaction of a session or connection commits. Never awaited.

    Every event of a transaction is written by one insert right before COMMIT. `service` may be left out where the
    process has one. Raises ServiceError and EventEncodeError; the commit raises StoreError if the insert fails.
    """
    if isinstance(session, scoped_session | async_scoped_session):
        session = session.registry()
    if isinstance(session, AsyncSession):
        session = session.sync_session
    elif isinstance(session, AsyncConnection):
        session = session.sync_connection or _refuse_unopened()
    assert isinstance(session, Session | Connection)
    publisher = publisher_on(session, service)
    if not session.in_transaction():
        session.begin()
    pending = _pending_of(session) if isinstance(session, Session) else _pending_on(session)
    envelope = publisher.buffer(pending.outbox(publisher), event, id, delay, at)
    if isinstance(session, Session) and session.info.get(COMMITTING):
        _hand_over(session)  # a listener, or a flush of this very commit: nobody hands it over later
    return envelope


def _refuse_unopened() -> Connection:
    raise ServiceError("publish() got a connection that is not open: use `async with engine.connect() as connection`.")


def _pending_on(connection: Connection) -> _PendingOnConnection:
    return _connections.setdefault(connection, _PendingOnConnection())


def _pending_of(session: Session) -> _Pending:
    pending: _Pending | None = session.info.get(KEY)
    if pending is None:
        pending = session.info[KEY] = _Pending()
        transaction = session.get_nested_transaction() or session.get_transaction()
        while transaction is not None:  # all of these began before anything was published
            pending.marks[transaction] = {}
            transaction = transaction.parent
    return pending


@event.listens_for(Session, "after_transaction_create")
def _on_begin(session: Session, transaction: SessionTransaction) -> None:
    pending: _Pending | None = session.info.get(KEY)
    if pending is not None and transaction.nested:
        pending.marks[transaction] = pending.mark()


@event.listens_for(Session, "before_commit")
def _before_commit(session: Session) -> None:
    committing: set[SessionTransaction | None] = session.info.setdefault(COMMITTING, set())
    current = session.get_nested_transaction() or session.get_transaction()
    # A commit with savepoints left open says so before it commits those: what was noted for one was its parent's.
    while current is not None and current in committing:
        current = current.parent
    committing.add(current)
    _hand_over(session)


def _hand_over(session: Session) -> None:
    """Hand what is pending to the connection, whose COMMIT is the moment; that of a savepoint is not."""
    pending: _Pending | None = session.info.get(KEY)
    if pending is not None and pending.outboxes:
        joined = _pending_on(session.connection()).sessions
        if pending not in joined:
            joined.append(pending)


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    pending: _Pending | None = session.info.get(KEY)
    committed = session.get_nested_transaction() or session.get_transaction()
    if pending is not None and committed is not None:
        pending.marks.pop(committed, None)


@event.listens_for(Session, "after_transaction_end")
def _on_end(session: Session, transaction: SessionTransaction) -> None:
    """Forget what was published within a transaction that ended without a commit."""
    session.info.get(COMMITTING, set()).discard(transaction)
    if transaction.parent is None:
        session.info.pop(COMMITTING, None)
    pending: _Pending | None = session.info.get(KEY)
    if pending is None:
        return
    mark = pending.marks.pop(transaction, None)
    if mark is not None:
        pending.cut(mark)
    if transaction.parent is None:
        del session.info[KEY]


@event.listens_for(Engine, "before_execute")
def _on_savepoint(connection: Connection, said: object, *_: object) -> None:
    """Mark where a savepoint begins. The event made for that does not know its name yet."""
    pending = _connections.get(connection)
    if pending is not None and isinstance(said, SavepointClause):
        pending.savepoints[said.ident] = pending.mark(), len(pending.sessions)


@event.listens_for(Engine, "rollback_savepoint")
def _on_rollback_to_savepoint(connection: Connection, name: str, context: None) -> None:
    # What began before anything was published has no mark: all of it goes.
    pending = _connections.get(connection)
    if pending is not None:
        mark, sessions = pending.savepoints.pop(name, ({}, 0))
        pending.cut(mark)
        del pending.sessions[sessions:]


@event.listens_for(Engine, "rollback")
def _on_rollback(connection: Connection) -> None:
    if connection in HELD:
        HELD[connection].ended = True
    _connections.pop(connection, None)


@event.listens_for(Engine, "commit")
def _on_commit(connection: Connection) -> None:
    if connection in HELD:
        HELD[connection].ended = True
        # SQLAlchemy takes a transaction whose commit fails for ended, and would leave it open with its locks.
        connection.dialect.do_rollback(connection.connection)
        raise not_yours()
    pending = _connections.pop(connection, None)
    if pending is not None:
        for one in (pending, *pending.sessions):
            for publisher, outbox in one.outboxes.items():
                driven(flush(outbox, session_on(connection), publisher))


@event.listens_for(Engine, "prepare_twophase")
def _on_prepare(connection: Connection, xid: Any) -> None:
    _on_commit(connection)


def sqlalchemy_executor(sessions: "sessionmaker[Any] | async_sessionmaker[Any]") -> Executor:
    """Let handlers write through a session of a sessionmaker: `(event, session: AsyncSession)`, or `Session`.

    The session's commit settles the event too, and is not the handler's to call: commit() raises StatementError, after
    rollback() the attempt fails with it. Handlers with a `Session` are plain functions and run in a thread.
    """
    if isinstance(sessions, async_sessionmaker):
        return AsyncExecutor(_beginning(sessions), failure, (AsyncSession,))

    @contextmanager
    def begin() -> Iterator[Begun]:
        with sessions() as session, session.begin():
            connection = session.connection()
            with holding(connection) as held:
                ours = OpenSession(session_on(connection), connection, held)
                yield ours, session, session, connection.connection.driver_connection

    return BlockingExecutor(begin, failure, (Session,))


def _beginning(sessions: "async_sessionmaker[Any]") -> Callable[[], Any]:
    @asynccontextmanager
    async def begin() -> AsyncIterator[AsyncBegun]:
        async with sessions() as session, session.begin():
            connection = await session.connection()
            sync = connection.sync_connection
            assert sync is not None  # it is open
            with holding(sync) as held:
                yield OpenSession(LoopSession(connection), sync, held), session, session.sync_session

    return begin
