"""asyncpg behind a small face: sessions that hold a connection or borrow one for each statement; our errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
    TransactionHeldTooLongError,
)

Rows = list[Any]

# Classes of SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_BUSY = {"40001", "40P01", "55P03"}
_FULL = {"53100", "53200"}
_CANCELED = "57014"
READ_ONLY = "25006"
"""The SQLSTATE of a write where only reading is allowed."""

_NOT_HERE = {READ_ONLY, "25P03", "25P04", "XX001", "XX002"}
"""A server that only reads (the old primary, after a failover), a transaction ended because it was idle or long, and
files that are damaged. XX000 is not among them: extensions raise it for arguments of the user's."""

_GONE_CLASSES = ("08", "57", "53", "58")
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, asyncio.IncompleteReadError)

CONNECT_SECONDS = 10.0
"""So long a new connection may take."""

ANSWER_SECONDS = 30.0
"""So long one statement outside a transaction, or the end of one, may take: a network that swallows everything must
end in another try. Within a transaction its own limit is shorter."""

SCRIPT_SECONDS = 3600.0
"""So long a migration, a script of a service's tables or an operator's question may take."""

CUT_OFF_SECONDS = 1.0
"""How long a cancellation waits for a connection that is being opened."""

ROLLBACK_SECONDS = 2.0
"""A transaction that is not rolled back by then loses its connection, which ends it on the server."""

# As DISCARD ALL, without what asyncpg keeps: its prepared statements. RESET ALL alone leaves the role.
_FORGET = (
    "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; "
    "SELECT pg_advisory_unlock_all()"
)
FORGET_WITHIN = f"SET CONSTRAINTS ALL IMMEDIATE; {_FORGET}"
"""Forgets within the transaction, as its last word: behind a pooler the next one may be another connection's. What is
deferred to the commit comes before, because it may need what was set."""


def translated(error: BaseException) -> TidingsError | None:
    """Return our error for one of asyncpg's that a statement of ours met, None if it is not one."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return StoreBusyError(f"A table was changed meanwhile ({error}). It is tried again.")
    if is_canceled(error):  # of our own: it waited for a lock
        return gave_way(error)
    if isinstance(error, asyncpg.PostgresError):
        return of_the_server(error)
    if isinstance(error, TimeoutError):
        return StoreUnavailableError("The database did not answer in time. It is tried again.")
    if isinstance(error, _LOST):
        return StoreUnavailableError(f"The connection to the database broke ({error}). It is tried again.")
    return None


def gave_way(error: object) -> StoreBusyError:
    """Return our error for a statement of Tidings that the server gave up: it says nothing of the user's."""
    return StoreBusyError(f"Postgres gave a statement of Tidings up ({error}). It is tried again.")


def gave_up(error: object) -> StatementError:
    """Return our error for a statement of the user's that the server gave up."""
    return StatementError(f"Postgres gave a statement up ({error}): make it faster, or raise statement_timeout.")


def is_canceled(error: BaseException | None) -> bool:
    """Say whether the server gave a statement up: for statement_timeout, or because somebody canceled it."""
    return getattr(error, "sqlstate", None) == _CANCELED


def of_the_server(error: Any) -> TidingsError:
    """Return our error for one that the server sent, by its `sqlstate`, whatever the driver."""
    state = error.sqlstate or ""
    if state in _BUSY:
        return StoreBusyError(f"The database is busy ({error}). It is tried again.")
    if state in _FULL:
        return StoreFullError(f"The database is out of space or memory ({error}): nothing was half-written.")
    if state == _CANCELED:
        return gave_up(error)
    if state.startswith("23"):
        return ConstraintError(f"A constraint refused the row: {error}.")
    if state in _NOT_HERE or state.startswith(_GONE_CLASSES):
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
            f"No connection to the database ({str(error) or 'it is silent'}): check that it runs, and the store's URL."
        ) from error


async def connect(*args: Any, **options: Any) -> "asyncpg.Connection[Any]":
    """Do asyncpg.connect, but let a cancellation wait until it has ended: cut off in the middle it leaves an exception
    that nobody retrieves, of which Python complains when the service stops."""
    opening: asyncio.Task[asyncpg.Connection[Any]] = asyncio.ensure_future(asyncpg.connect(*args, **options))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening], timeout=CUT_OFF_SECONDS)
        opening.cancel()
        opening.add_done_callback(_unwanted)
        raise


def _unwanted(opening: "asyncio.Task[asyncpg.Connection[Any]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()


@asynccontextmanager
async def borrowed(
    pool: "asyncpg.Pool[Any]", *, answer_first: bool = False
) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """Borrow a connection of the pool; raises StoreUnavailableError.

    `answer_first`: whoever waits for the answer does not wait until the connection is back.
    """
    async with connecting():
        connection = await pool.acquire()
    try:
        yield connection  # type: ignore[misc]
    except StoreUnavailableError:
        end(connection)  # after a failover the next one leads to the new primary
        raise
    finally:
        if answer_first:
            _give_back(pool, connection)
        else:
            await pool.release(connection)


_giving_back: set["asyncio.Task[None]"] = set()


def _give_back(pool: "asyncpg.Pool[Any]", connection: Any) -> None:
    """Give a connection back, without waiting for it, which takes two rounds of the loop. Closing the pool waits."""
    task = asyncio.get_running_loop().create_task(pool.release(connection))
    _giving_back.add(task)
    task.add_done_callback(_given_back)


def _given_back(task: "asyncio.Task[None]") -> None:
    _giving_back.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved: such a connection is closed, and that is no error of anybody's


def is_gone(connection: "asyncpg.Connection[Any]") -> bool:
    """Say whether a connection is closed."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back already
        return True


def end(connection: Any) -> None:
    """End a connection at once; the server rolls back whatever was open on it."""
    if not is_gone(connection):
        connection.terminate()


async def forget(connection: Any) -> None:
    """Undo what the user's SQL has set for the session, which others get next; where that fails, end it."""
    if is_gone(connection):
        return
    try:
        async with asyncio.timeout(ROLLBACK_SECONDS):
            await connection.execute(_FORGET)
    except BaseException as error:
        end(connection)
        if not isinstance(error, Exception):
            raise


@asynccontextmanager
async def transaction_on(
    connection: "asyncpg.Connection[Any]", limit: float | None, begun_by: "HeldSession | None" = None, **options: Any
) -> AsyncIterator[None]:
    """Open a transaction for a block, whose errors stay as they are; with `begun_by`, by that session's first word.

    It is read committed unless `options` say otherwise, whatever the database's default: fences look at the present.
    Raises TransactionHeldTooLongError when it lasts longer than `limit` seconds, also where the block has swallowed
    its cancellation; StoreUnavailableError when the server does not answer.
    """
    transaction = connection.transaction(**{"isolation": "read_committed", **options})
    loop = asyncio.get_running_loop()
    force = None if limit is None else loop.call_later(limit + ROLLBACK_SECONDS, end, connection)
    patience, swallowed, committing = asyncio.timeout(limit), False, False
    try:
        async with patience:
            if begun_by is None:
                async with our_errors():
                    await transaction.start()
            else:
                begun_by.begin = transaction.start
            yield
            if swallowed := patience.expired():
                raise TimeoutError
            if begun_by is None or begun_by.begin is None:
                committing = True
                async with our_errors():
                    await transaction.commit()
    except BaseException as error:
        answers = await _rolled_back(transaction, connection)
        if not patience.expired():
            raise
        if isinstance(error, TimeoutError) and (committing or not (answers or swallowed)):
            raise StoreUnavailableError("The database did not answer in time. It is tried again.") from error
        raise TransactionHeldTooLongError(
            f"A transaction was open for more than {limit:g} s and was rolled back, because every reader of the log "
            "waits for it. Do slow work before it, or in a Work handler."
        ) from error
    finally:
        if force is not None:
            force.cancel()


async def _rolled_back(transaction: Any, connection: "asyncpg.Connection[Any]") -> bool:
    """Undo a transaction; where that fails its connection goes, and with it the transaction. Says which it was."""
    if is_gone(connection):
        return False
    if not connection.is_in_transaction():
        return True
    try:
        async with asyncio.timeout(ROLLBACK_SECONDS):
            await transaction.rollback()
    except BaseException as error:
        end(connection)
        if isinstance(error, Exception):
            return False
        raise
    return True


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
    """Says everything on one connection, within whatever transaction is open there.

    `patience`: seconds that a statement may take; None for as long as the connection allows. `begin`: what is called
    before the first statement; then it is None.
    """

    def __init__(self, connection: "asyncpg.Connection[Any]", patience: float | None = None) -> None:
        self.connection = connection
        self.begin: Callable[[], Awaitable[None]] | None = None
        self._patience = patience

    async def _begin(self) -> None:
        if self.begin is not None:
            begin, self.begin = self.begin, None
            await begin()

    def _ours(self, error: Exception) -> Exception:
        # InterfaceError is said of a lost connection, and of a statement with too few arguments.
        if isinstance(error, asyncpg.InterfaceError) and not is_gone(self.connection):
            return StatementError(f"A statement was not sent: {error}.")
        return translated(error) or error

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""
        try:
            await self._begin()
            return await self.connection.fetch(sql, *args, timeout=self._patience)
        except Exception as error:
            raise self._ours(error) from error

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""
        try:
            await self._begin()
            if args:
                return _changed(await self.connection.execute(sql, *args, timeout=self._patience))
            # Without arguments `execute` would take several statements, a COMMIT among them.
            statement = await self.connection.prepare(sql, name="", timeout=self._patience)
            await statement.fetch(timeout=self._patience)
            return _changed(statement.get_statusmsg() or "")
        except Exception as error:
            raise self._ours(error) from error

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names (none if there are no rows) and its rows."""
        try:
            await self._begin()
            rows = await self.connection.fetch(sql, *args, timeout=self._patience)
            return tuple(rows[0].keys()) if rows else (), [tuple(row) for row in rows]
        except Exception as error:
            raise self._ours(error) from error

    async def copy(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write rows into a table of ours, in their order."""
        try:
            await self._begin()
            await self.connection.copy_records_to_table(
                table, schema_name="tidings", columns=columns, records=rows, timeout=self._patience
            )
        except Exception as error:
            raise self._ours(error) from error

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        try:
            await self._begin()
            await self.connection.execute(sql, timeout=self._patience)
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
        """Execute one statement of the user's; return its column names (none if there are no rows) and its rows."""
        async with self._borrowed() as session:
            try:
                return await session.described(sql, args)
            finally:
                await forget(session.connection)

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        async with self._borrowed() as session:
            await session.script(sql)


def _changed(tag: str) -> int:
    """Return the number in a command tag such as "INSERT 0 5"."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
