"""psycopg 3: publish in the transaction of a connection, sync and async, and handlers that write through one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol, overload

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, Connection, RawCursor
from psycopg.rows import tuple_row

from tidings.backends.postgres.driver import Rows, gave_way, is_canceled, of_the_server
from tidings.consuming.executor import Executor, driven
from tidings.errors import StoreUnavailableError, TidingsError
from tidings.events import Envelope, Event
from tidings.integrations.joining import AsyncBegun, AsyncExecutor, Block, Publisher, flush, publisher_on
from tidings.integrations.threads import Begun, BlockingExecutor
from tidings.publishing.outbox import Outbox
from tidings.service import Service

__all__ = ["Publish", "async_psycopg_executor", "outbox", "psycopg_executor", "publish"]

AnyConnection = Connection[Any] | AsyncConnection[Any]


class Publish(Protocol):
    """What `outbox` gives: publishes when the block ends."""

    def __call__(
        self, event: Event, *, id: str | None = None, delay: timedelta | None = None, at: datetime | None = None
    ) -> Envelope:
        """Publish an event; see tidings.Transaction.publish."""


@overload
def publish(
    connection: Connection[Any],
    event: Event,
    *,
    service: Service | None = None,
    id: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
) -> Envelope: ...
@overload
def publish(
    connection: AsyncConnection[Any],
    event: Event,
    *,
    service: Service | None = None,
    id: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
) -> Awaitable[Envelope]: ...
def publish(
    connection: AnyConnection,
    event: Event,
    *,
    service: Service | None = None,
    id: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
) -> Envelope | Awaitable[Envelope]:
    """Publish an event in the transaction of a connection, by an insert now; await it on an async connection.

    Let it be the transaction's last statement, because readers of the log wait for a transaction that has published;
    or use `outbox`. In autocommit it is a transaction of its own. `service` may be left out where the process has one.
    Raises ServiceError, EventEncodeError, StoreError.
    """
    pending = Outbox()
    publisher = publisher_on(connection, service)
    envelope = publisher.buffer(pending, event, id, delay, at)
    if isinstance(connection, AsyncConnection):
        return _write_later(connection, pending, publisher, envelope)
    _write(connection, pending, publisher)
    return envelope


def _write(connection: Connection[Any], pending: Outbox, publisher: Publisher) -> None:
    if connection.autocommit:
        with connection.transaction():
            driven(flush(pending, BlockingSession(connection), publisher))
    else:
        driven(flush(pending, BlockingSession(connection), publisher))


async def _write_later(
    connection: AsyncConnection[Any], pending: Outbox, publisher: Publisher, envelope: Envelope
) -> Envelope:
    if connection.autocommit:
        async with connection.transaction():
            await flush(pending, AsyncSession(connection), publisher)
    else:
        await flush(pending, AsyncSession(connection), publisher)
    return envelope


@overload
def outbox(connection: Connection[Any], *, service: Service | None = None) -> AbstractContextManager[Publish]: ...
@overload
def outbox(
    connection: AsyncConnection[Any], *, service: Service | None = None
) -> AbstractAsyncContextManager[Publish]: ...
def outbox(
    connection: AnyConnection, *, service: Service | None = None
) -> AbstractContextManager[Publish] | AbstractAsyncContextManager[Publish]:
    """Open `connection.transaction()` and give a function that publishes: all is inserted at once before the commit.

    `async with` on an async connection. Blocks nest, as transactions do: an inner one rolled back takes its events
    along. A publish after the block raises TransactionClosedError.
    """
    if isinstance(connection, AsyncConnection):
        return _async_outbox(connection, service)
    return _outbox(connection, service)


@contextmanager
def _outbox(connection: Connection[Any], service: Service | None) -> Iterator[Publish]:
    block = Block(publisher_on(connection, service))
    with connection.transaction():
        with block:
            yield block.publish
        driven(flush(block.outbox, BlockingSession(connection), block.publisher))


@asynccontextmanager
async def _async_outbox(connection: AsyncConnection[Any], service: Service | None) -> AsyncIterator[Publish]:
    block = Block(publisher_on(connection, service))
    async with connection.transaction():
        with block:
            yield block.publish
        await flush(block.outbox, AsyncSession(connection), block.publisher)


def psycopg_executor(connect: Callable[[], AbstractContextManager[Connection[Any]]]) -> Executor:
    """Let handlers write through a sync connection: `(event, connection: psycopg.Connection)`, run in a thread.

    `connect` gives a connection for a block: `pool.connection` of psycopg_pool, or `lambda: psycopg.connect(url)`.
    """

    @contextmanager
    def begin() -> Iterator[Begun]:
        with connect() as connection, connection.transaction():
            yield BlockingSession(connection), connection, connection, connection

    return BlockingExecutor(begin, failure, (Connection,))


def async_psycopg_executor(connect: Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]) -> Executor:
    """Let handlers write through an async connection: `(event, connection: psycopg.AsyncConnection)`.

    `connect` gives a connection for a block, such as `pool.connection` of psycopg_pool's AsyncConnectionPool.
    """

    @asynccontextmanager
    async def begin() -> AsyncIterator[AsyncBegun]:
        async with connect() as connection, connection.transaction():
            yield AsyncSession(connection), connection, connection

    return AsyncExecutor(begin, failure, (AsyncConnection,))


def failure(error: BaseException) -> TidingsError | None:
    """Return our error for one of psycopg's, None if it is not one."""
    if not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StoreUnavailableError(f"The connection to the database broke ({error}). It is tried again.")
    return of_the_server(error)


def _of_ours(error: psycopg.Error) -> TidingsError | None:
    """Return our error for a statement of Tidings; that the server gave it up is no fault of the handler's."""
    return gave_way(error) if is_canceled(error) else failure(error)


class BlockingSession:
    """Implements the store's Session on a sync connection. Its coroutines never wait: they block."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    def _execute(self, sql: str, args: Sequence[Any] | None) -> RawCursor[Any]:
        # Arguments, if only none, let the server refuse several statements in one, a COMMIT among them.
        try:
            return RawCursor(self._connection, row_factory=tuple_row).execute(sql.encode(), args)
        except psycopg.Error as error:
            raise _of_ours(error) or error from error

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""
        return (await self.described(sql, args))[1]

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""
        return max(0, self._execute(sql, args).rowcount)

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names and its rows."""
        cursor = self._execute(sql, args)
        return _names(cursor), cursor.fetchall() if cursor.description else []

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        self._execute(sql, None)


class AsyncSession:
    """Implements the store's Session on an async connection."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def _execute(self, sql: str, args: Sequence[Any] | None) -> AsyncRawCursor[Any]:
        try:
            return await AsyncRawCursor(self._connection, row_factory=tuple_row).execute(sql.encode(), args)
        except psycopg.Error as error:
            raise _of_ours(error) or error from error

    async def rows(self, sql: str, *args: Any) -> Rows:
        """Execute one statement; return its rows."""
        return (await self.described(sql, args))[1]

    async def run(self, sql: str, *args: Any) -> int:
        """Execute one statement; return how many rows it changed."""
        return max(0, (await self._execute(sql, args)).rowcount)

    async def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], Rows]:
        """Execute one statement; return its column names and its rows."""
        cursor = await self._execute(sql, args)
        return _names(cursor), await cursor.fetchall() if cursor.description else []

    async def script(self, sql: str) -> None:
        """Execute several statements."""
        await self._execute(sql, None)


def _names(cursor: RawCursor[Any] | AsyncRawCursor[Any]) -> tuple[str, ...]:
    return tuple(column.name for column in cursor.description or ())
