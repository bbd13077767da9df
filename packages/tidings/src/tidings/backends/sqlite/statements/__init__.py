"""The store's statements in SQLite's SQL, table by table."""

from collections.abc import Sequence
from typing import Any

from tidings.backends.sqlite.driver import Connection, EndedConnection, is_read_only, render
from tidings.backends.sqlite.statements.held import HeldStatements
from tidings.backends.sqlite.statements.log import LogStatements
from tidings.backends.sqlite.statements.progress import ProgressStatements
from tidings.backends.sqlite.statements.projections import ProjectionStatements
from tidings.backends.sqlite.statements.ready import ReadyStatements
from tidings.backends.sqlite.statements.rows import Appended
from tidings.backends.sqlite.statements.sagas import SagaStatements
from tidings.backends.sqlite.statements.scheduled import ScheduledStatements
from tidings.backends.sqlite.statements.streams import StreamStatements
from tidings.errors import StatementError, StoreError, StoreUnavailableError, TidingsError
from tidings.statements import Value


class SqliteStatements(
    LogStatements,
    ProgressStatements,
    HeldStatements,
    ReadyStatements,
    ScheduledStatements,
    StreamStatements,
    SagaStatements,
    ProjectionStatements,
):
    """Implements tidings.store.Statements over one connection.

    They are coroutines, as the port says, but none waits: SQLite answers in microseconds.
    """

    def __init__(self, connection: Connection, lanes: int) -> None:
        self._db = self._connection = connection
        self._begun = False
        self._lanes = lanes
        self._depth = 0
        self.touched: set[str] = set()
        self.appended: Appended | None = None
        self.tail: Appended | None = None

    def start(self) -> None:
        """Begin anew: a transaction has begun or was rolled back."""
        self._db = self._connection
        self._begun = True
        self._depth = 0
        self.touched = set()
        self.appended = None

    async def execute(self, sql: str, args: Sequence[Value]) -> int:
        """Execute the user's statement; return how many rows it changed."""
        try:
            return self._db.run(render(sql), _bindable(args))
        except StoreError:
            self._end_if_rolled_back()
            raise

    async def query(self, sql: str, args: Sequence[Value]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Execute the user's query; return column names and rows."""
        try:
            return self._db.described(render(sql), _bindable(args))
        except StoreError:
            self._end_if_rolled_back()
            raise

    def _end_if_rolled_back(self) -> None:
        # OR ROLLBACK, RAISE(ROLLBACK) and some failures of the disk end the transaction under us. Whatever were said
        # after it would commit by itself, statement by statement.
        if self._begun and not self._db.in_transaction:
            self.end(
                StatementError(
                    "A statement failed and rolled back the whole transaction (such as INSERT OR ROLLBACK), of which "
                    "nothing is left: let a constraint fail the statement alone (OR ABORT, which is the default)."
                )
            )

    def end(self, error: TidingsError) -> None:
        """Let everything that is still said here raise an error: the transaction is over."""
        self._db = EndedConnection(error)

    async def savepoint(self) -> None:
        """Mark a place to return to; places nest."""
        self._depth += 1
        self._db.run(f"SAVEPOINT s{self._depth}")

    async def release(self) -> None:
        """Keep what was done since the last savepoint."""
        self._db.run(f"RELEASE s{self._depth}")
        self._depth -= 1

    async def roll_back_to_savepoint(self) -> None:
        """Undo what was done since the last savepoint."""
        self._db.run(f"ROLLBACK TO s{self._depth}")
        self.appended = None  # some of it may be undone
        await self.release()


class AskingStatements(SqliteStatements):
    """Statements on a connection that only reads."""

    async def query(self, sql: str, args: Sequence[Value]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Execute the user's query; raises StatementError for one that would write."""
        try:
            return await super().query(sql, args)
        except StoreUnavailableError as error:
            if is_read_only(error.__cause__):  # said of this connection, not of the file
                raise StatementError(f"A query only reads: {error.__cause__}. What writes is a command.") from error
            raise


def _bindable(args: Sequence[Value]) -> Sequence[Value]:
    for number, value in enumerate(args, 1):
        if value is not None and type(value) not in (str, int, float, bytes, bool):
            raise StatementError(
                f"${number} is a {type(value).__name__}, which SQLite has no type for: pass str, int, float, bytes, "
                "bool or None (a datetime as text or microseconds, JSON as text or bytes)."
            )
    return args
