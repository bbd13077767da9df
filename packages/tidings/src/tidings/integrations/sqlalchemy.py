"""SQLAlchemy: publish in the transaction of a session or connection, and handlers that write through a session.

Events wait beside the transaction and are inserted by one statement right before COMMIT. Savepoints take the events
published within them along when they are rolled back.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    ResourceClosedError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction, scoped_session, sessionmaker
from sqlalchemy.sql.elements import SavepointClause

from tidings.backends.postgres.driver import HeldSession, Rows, of_the_server
from tidings.backends.postgres.driver import Session as StoreSession
from tidings.consuming.executor import Executor, driven
from tidings.errors import ServiceError, StatementError, StoreUnavailableError, TidingsError
from tidings.events import Envelope, Event
from tidings.integrations.joining import AsyncBegun, AsyncExecutor, Publisher, flush, publisher_on
from tidings.integrations.threads import Begun, BlockingExecutor
from tidings.publishing.outbox import Outbox
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
        self.marks: dict[SessionTransaction, dict[Publisher, Any]] = {}

    def outbox(self, publisher: Publisher) -> Outbox:
        return self.outboxes.setdefault(publisher, Outbox())

    def mark(self) -> dict[Publisher, Any]:
        return {publisher: outbox.mark() for publisher, outbox in self.outboxes.items()}

    def cut(self, mark: dict[Publisher, Any]) -> None:
        for publisher, outbox in self.outboxes.items():
            outbox.cut(mark.get(publisher, (0, 0, 0)))


class _PendingOnConnection(_Pending):
    """What a connection's transaction will publish: its own, and that of the sessions which have joined it."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[_Pending] = []
        self.savepoints: dict[str, tuple[dict[Publisher, Any], int]] = {}


class _Held:
    """A transaction that an executor opened, and whose end is not its handler's to say. `ended`: it was ended."""

    ended = False


_held: "WeakKeyDictionary[Connection, _Held]" = WeakKeyDictionary()


@contextmanager
def _holding(connection: Connection) -> Iterator[_Held]:
    held = _held[connection] = _Held()
    try:
        yield held
    finally:
        del _held[connection]


def _not_yours() -> StatementError:
    return StatementError(
        "The handler ended its session's transaction (by commit() or rollback(), or by going on after a failed flush). "
        "It belongs to Tidings, which commits it together with the event: write, flush() and return; raise to undo."
    )


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
    if connection in _held:
        _held[connection].ended = True
    _connections.pop(connection, None)


@event.listens_for(Engine, "commit")
def _on_commit(connection: Connection) -> None:
    if connection in _held:
        _held[connection].ended = True
        raise _not_yours()
    pending = _connections.pop(connection, None)
    if pending is not None:
        for one in (pending, *pending.sessions):
            for publisher, outbox in one.outboxes.items():
                driven(flush(outbox, _session_on(connection), publisher))


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
            with _holding(connection) as held:
                yield _OpenSession(_session_on(connection), connection, held), session, session

    return BlockingExecutor(begin, failure, (Session,))


def _beginning(sessions: "async_sessionmaker[Any]") -> Callable[[], Any]:
    @asynccontextmanager
    async def begin() -> AsyncIterator[AsyncBegun]:
        async with sessions() as session, session.begin():
            connection = await session.connection()
            sync = connection.sync_connection
            assert sync is not None  # it is open
            with _holding(sync) as held:
                yield _OpenSession(_AsyncSession(connection), sync, held), session, session.sync_session

    return begin


_ENDED = (InvalidRequestError, PendingRollbackError, ResourceClosedError)
"""What SQLAlchemy says of a transaction that is over. Of the first only itself: what a query missed is one, too."""


def failure(error: BaseException) -> TidingsError | None:
    """Return our error for one of SQLAlchemy's that comes from the database, None if it is not one."""
    if type(error) in _ENDED:
        return StatementError(f"The transaction cannot go on ({error}). Its end is not the handler's to say.")
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "sqlstate", None)
    broken = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    if state is None and broken:
        return StoreUnavailableError(f"The connection to the database broke ({error.orig}). It is tried again.")
    return of_the_server(error.orig)


def _session_on(connection: Connection) -> StoreSession:
    """Return a session that blocks on a connection, or waits in SQLAlchemy's greenlet, never in its coroutines."""
    driver = connection.dialect.driver
    if driver == "asyncpg":
        asyncpg: Any = connection.connection.driver_connection
        # Past SQLAlchemy's cursor it is faster; but SQLAlchemy begins the transaction with its own first statement.
        begun = asyncpg.is_in_transaction()
        return _GreenletSession(connection, HeldSession(asyncpg)) if begun else _DriverSqlSession(connection)
    if driver in ("psycopg", "psycopg_async"):
        from tidings.integrations import psycopg  # only who uses this driver has it installed

        raw: Any = connection.connection.driver_connection
        if not connection.dialect.is_async:
            return psycopg.BlockingSession(raw)
        return _GreenletSession(connection, psycopg.AsyncSession(raw))
    raise ServiceError(
        f"publish() knows no way through the driver {driver!r}: connect with postgresql+asyncpg or "
        "postgresql+psycopg, or execute service.outbox_row(event)."
    )


class _DriverSqlSession:
    """Implements the store's Session with SQL as asyncpg takes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _execute(self, sql: str, args: Sequence[Any]) -> Any:
        try:
            return self._connection.exec_driver_sql(sql, tuple(args))
        except DBAPIError as error:
            raise failure(error) or error from error

    async def rows(self, sql: str, *args: Any) -> Rows:
        return (await self.described(sql, args))[1]

    async def run(self, sql: str, *args: Any) -> int:
        return max(0, int(self._execute(sql, args).rowcount))

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        result = self._execute(sql, args)
        return (tuple(result.keys()), result.fetchall()) if result.returns_rows else ((), [])

    async def script(self, sql: str) -> None:
        for statement in filter(str.strip, sql.split(";")):
            self._execute(statement, ())


class _GreenletSession:
    """Implements the store's Session over one of coroutines, from within SQLAlchemy's greenlet."""

    def __init__(self, connection: Connection, session: StoreSession) -> None:
        self._run_async = connection.connection.dbapi_connection.run_async  # type: ignore[union-attr]
        self._session = session

    async def rows(self, sql: str, *args: Any) -> Rows:
        rows: Rows = self._run_async(lambda _: self._session.rows(sql, *args))
        return rows

    async def run(self, sql: str, *args: Any) -> int:
        return int(self._run_async(lambda _: self._session.run(sql, *args)))

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        found: tuple[tuple[str, ...], Rows] = self._run_async(lambda _: self._session.described(sql, args))
        return found

    async def script(self, sql: str) -> None:
        self._run_async(lambda _: self._session.script(sql))


class _OpenSession:
    """Implements the store's Session over another, as long as the transaction is the one that was opened.

    Else what settles an event would be written elsewhere, or nowhere, and its effects be repeated for ever.
    """

    def __init__(self, session: StoreSession, connection: Connection, held: _Held) -> None:
        self._session = session
        self._connection = connection
        self._held = held

    def _open(self) -> StoreSession:
        if self._held.ended and self._connection.invalidated:
            raise StoreUnavailableError("The connection to the database broke. It is tried again.")
        if self._held.ended:
            raise _not_yours()
        return self._session

    async def rows(self, sql: str, *args: Any) -> Rows:
        return await self._open().rows(sql, *args)

    async def run(self, sql: str, *args: Any) -> int:
        return await self._open().run(sql, *args)

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        return await self._open().described(sql, args)

    async def script(self, sql: str) -> None:
        await self._open().script(sql)


class _AsyncSession:
    """Implements the store's Session on an async connection, from the loop."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, sql: str, *args: Any) -> Rows:
        return await self._connection.run_sync(lambda sync: driven(_session_on(sync).rows(sql, *args)))

    async def run(self, sql: str, *args: Any) -> int:
        return await self._connection.run_sync(lambda sync: driven(_session_on(sync).run(sql, *args)))

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        return await self._connection.run_sync(lambda sync: driven(_session_on(sync).described(sql, args)))

    async def script(self, sql: str) -> None:
        await self._connection.run_sync(lambda sync: driven(_session_on(sync).script(sql)))
