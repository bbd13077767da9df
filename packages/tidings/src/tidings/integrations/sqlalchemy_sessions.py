"""SQLAlchemy's connections as the store's sessions, its errors as ours, and transactions that only an executor ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    ResourceClosedError,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from tidings.backends.postgres.driver import HeldSession, Rows, gave_way, is_canceled, of_the_server
from tidings.backends.postgres.driver import Session as StoreSession
from tidings.consuming.executor import driven
from tidings.errors import ServiceError, StatementError, StoreUnavailableError, TidingsError
from tidings.integrations.ending import not_yours


class Held:
    """A transaction that an executor opened, and whose end is not its handler's to say. `ended`: it was ended."""

    ended = False


HELD: "WeakKeyDictionary[Connection, Held]" = WeakKeyDictionary()
"""The connections of transactions that executors have opened."""


@contextmanager
def holding(connection: Connection) -> Iterator[Held]:
    """Refuse to commit a connection within this block, and note when it is rolled back."""
    held = HELD[connection] = Held()
    try:
        yield held
    finally:
        del HELD[connection]


_ENDED = (InvalidRequestError, PendingRollbackError, ResourceClosedError)
"""What SQLAlchemy says of a transaction that is over. Of the first only itself: what a query missed is one, too."""


_LOST = "8s2b"
"""SQLAlchemy's code for a transaction whose connection broke, https://sqlalche.me/e/20/8s2b"""


def failure(error: BaseException) -> TidingsError | None:
    """Return our error for one of SQLAlchemy's that comes from the database, None if it is not one."""
    if isinstance(error, PendingRollbackError) and error.code == _LOST:
        return StoreUnavailableError(f"The connection to the database broke ({error}). It is tried again.")
    if type(error) in _ENDED:
        return StatementError(f"The transaction cannot go on ({error}). Its end is not the handler's to say.")
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "sqlstate", None)
    broken = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    if state is None and broken:
        return StoreUnavailableError(f"The connection to the database broke ({error.orig}). It is tried again.")
    return of_the_server(error.orig)


def session_on(connection: Connection) -> StoreSession:
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
            if is_canceled(error.orig):
                raise gave_way(error.orig) from error.orig
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


class OpenSession:
    """Implements the store's Session over another, as long as the transaction is the one that was opened.

    Else what settles an event would be written elsewhere, or nowhere, and its effects be repeated for ever.
    """

    def __init__(self, session: StoreSession, connection: Connection, held: Held) -> None:
        self._session = session
        self._connection = connection
        self._held = held

    def _open(self) -> StoreSession:
        if self._held.ended and self._connection.invalidated:
            raise StoreUnavailableError("The connection to the database broke. It is tried again.")
        if self._held.ended:
            raise not_yours()
        return self._session

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""
        return await self._open().rows(sql, *args)

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""
        return await self._open().run(sql, *args)

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names and its rows."""
        return await self._open().described(sql, args)

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        await self._open().script(sql)


class LoopSession:
    """Implements the store's Session on an async connection, from the loop."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""
        return await self._connection.run_sync(lambda sync: driven(session_on(sync).rows(sql, *args)))

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""
        return await self._connection.run_sync(lambda sync: driven(session_on(sync).run(sql, *args)))

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names and its rows."""
        return await self._connection.run_sync(lambda sync: driven(session_on(sync).described(sql, args)))

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        await self._connection.run_sync(lambda sync: driven(session_on(sync).script(sql)))
