"""asyncpg behind a small face: sessions that hold a connection or borrow one for each statement; our errors."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from tidings.errors import (
    ConstraintError,
    StatementError,
    StoreBusyError,
    StoreFullError,
    StoreUnavailableError,
    TidingsError,
)

Rows = list[Any]

# Classes of SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_BUSY = {"40001", "40P01", "55P03"}
_FULL = {"53100", "53200"}
_CANCELED = "57014"
_GONE_CLASSES = ("08", "57", "53", "58", "XX")
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, asyncio.IncompleteReadError)


def translated(error: BaseException) -> TidingsError | None:
    """Return our error for one of asyncpg's, None if it is not one."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return StoreBusyError(f"A table was changed meanwhile ({error}). It is tried again.")
    if isinstance(error, asyncpg.PostgresError):
        return of_the_server(error)
    if isinstance(error, _LOST):
        return StoreUnavailableError(f"The connection to the database broke ({error}). It is tried again.")
    return None


def of_the_server(error: Any) -> TidingsError:
    """Return our error for one that the server sent, by its `sqlstate`, whatever the driver."""
    state = error.sqlstate or ""
    if state in _BUSY:
        return StoreBusyError(f"The database is busy ({error}). It is tried again.")
    if state in _FULL:
        return StoreFullError(f"The database is out of space or memory ({error}): nothing was half-written.")
    if state == _CANCELED:
        return StatementError(f"Postgres gave a statement up ({error}): make it faster, or raise statement_timeout.")
    if state.startswith("23"):
        return ConstraintError(f"A constraint refused the row: {error}.")
    if state.startswith(_GONE_CLASSES):
        return StoreUnavailableError(f"The database cannot answer now ({error}). It is tried again.")
    return StatementError(f"Postgres refused a statement: {error}.")


@asynccontextmanager
async def our_errors() -> AsyncIterator[None]:
    """Turn asyncpg's errors into ours."""
    try:
        yield
    except Exception as error:
        ours = translated(error)
        if ours is None:
            raise
        raise ours from error


@asynccontextmanager
async def connecting() -> AsyncIterator[None]:
    """Turn asyncpg's errors into StoreUnavailableError: whatever the reason, a server that lets nobody in is away."""
    try:
        yield
    except (asyncpg.PostgresError, *_LOST) as error:
        raise StoreUnavailableError(
            f"No connection to the database ({error}): check that it runs, and the URL of the store."
        ) from error


@asynccontextmanager
async def borrowed(pool: "asyncpg.Pool[Any]") -> "AsyncIterator[asyncpg.Connection[Any]]":
    """Borrow a connection of the pool; raises StoreUnavailableError."""
    async with connecting():
        connection = await pool.acquire()
    try:
        yield connection  # type: ignore[misc]
    finally:
        await pool.release(connection)


class Session(Protocol):
    """Where statements are said."""

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names (none if there are no rows) and its rows."""

    async def script(self, sql: str) -> None:
        """Execute several statements."""


class HeldSession:
    """Says everything on one connection, within whatever transaction is open there."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.connection = connection

    def _ours(self, error: Exception) -> Exception:
        # InterfaceError is said of a lost connection, and of a statement with too few arguments.
        if isinstance(error, asyncpg.InterfaceError) and not self.connection.is_closed():
            return StatementError(f"A statement was not sent: {error}.")
        return translated(error) or error

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""
        try:
            return await self.connection.fetch(sql, *args)
        except Exception as error:
            raise self._ours(error) from error

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""
        try:
            if args:
                return _changed(await self.connection.execute(sql, *args))
            # Without arguments `execute` would take several statements, a COMMIT among them.
            statement = await self.connection.prepare(sql, name="")
            await statement.fetch()
            return _changed(statement.get_statusmsg() or "")
        except Exception as error:
            raise self._ours(error) from error

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names (none if there are no rows) and its rows."""
        try:
            rows = await self.connection.fetch(sql, *args)
            return tuple(rows[0].keys()) if rows else (), [tuple(row) for row in rows]
        except Exception as error:
            raise self._ours(error) from error

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        try:
            await self.connection.execute(sql)
        except Exception as error:
            raise self._ours(error) from error


class BorrowingSession:
    """Borrows a connection of the pool for each statement; each is a transaction of its own."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[HeldSession]:
        async with our_errors(), borrowed(self._pool) as connection:
            yield HeldSession(connection)

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""
        async with self._borrowed() as session:
            return await session.rows(sql, *args)

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""
        async with self._borrowed() as session:
            return await session.run(sql, *args)

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names (none if there are no rows) and its rows."""
        async with self._borrowed() as session:
            return await session.described(sql, args)

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        async with self._borrowed() as session:
            await session.script(sql)


def _changed(tag: str) -> int:
    """Return the number in a command tag such as "INSERT 0 5"."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
