"""The store's statements in Postgres's SQL, table by table."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tidings.backends.postgres.driver import READ_ONLY, HeldSession, Session, gave_up, is_canceled
from tidings.backends.postgres.fence import Fence
from tidings.backends.postgres.statements.held import HeldStatements
from tidings.backends.postgres.statements.log import LogStatements
from tidings.backends.postgres.statements.progress import ProgressStatements
from tidings.backends.postgres.statements.projections import ProjectionStatements
from tidings.backends.postgres.statements.ready import ReadyStatements
from tidings.backends.postgres.statements.sagas import SagaStatements
from tidings.backends.postgres.statements.scheduled import ScheduledStatements
from tidings.backends.postgres.statements.streams import StreamStatements
from tidings.errors import StatementError, StoreBusyError, StoreUnavailableError
from tidings.statements import Value

_CONTROLS = {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE", "VACUUM"}
_FIRST_WORD = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]*)", re.DOTALL)


class PostgresStatements(
    LogStatements,
    ProgressStatements,
    HeldStatements,
    ReadyStatements,
    ScheduledStatements,
    StreamStatements,
    SagaStatements,
    ProjectionStatements,
):
    """Implements tidings.store.Statements on a session. `spoken`: the user's SQL was said on it."""

    def __init__(self, session: Session, lanes: int, fence: Fence, *, locking: bool = False) -> None:
        self._db = session
        self._lanes = lanes
        self._fence = fence
        self._locking = locking
        self._depth = 0
        self._unreleased = ""
        self._given_up = False
        self.spoken = False
        self.touched: set[str] = set()

    @property
    def connection(self) -> Any:
        """The driver's connection, for integrations that write through it; None outside a transaction."""
        self.spoken = True  # whatever is said there
        return self._db.connection if isinstance(self._db, HeldSession) else None

    async def execute(self, sql: str, args: Sequence[Value]) -> int:
        """Execute the user's statement; return how many rows it changed."""
        checked = _checked(sql)
        with self._noting_failure():
            return await self._db.run(checked, *args)

    async def query(self, sql: str, args: Sequence[Value]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Execute the user's query; return column names and rows."""
        checked = _checked(sql)
        with self._noting_failure():
            return await self._db.described(checked, args)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        self.spoken = True
        try:
            yield
        except BaseException as error:
            self._given_up = True
            if isinstance(error, StoreBusyError) and is_canceled(error.__cause__):
                raise gave_up(error.__cause__) from error
            raise

    def check_whole(self) -> None:
        """Raise StatementError if a statement has failed and its error was swallowed: nothing can be kept then."""
        if self._given_up:
            raise StatementError(
                "A statement failed and its error was swallowed, but Postgres has given up the whole transaction: let "
                "the error out, or write what cannot fail (INSERT … ON CONFLICT)."
            )

    async def savepoint(self) -> None:
        """Mark a place to return to; places nest. The release of the last one goes in the same round trip."""
        self._depth += 1
        await self._db.script(f"{self._unreleased}SAVEPOINT s{self._depth}")
        self._unreleased = ""

    async def release(self) -> None:
        """Keep what was done since the last savepoint; raises StatementError if a statement of it has failed."""
        self.check_whole()
        self._unreleased += f"RELEASE SAVEPOINT s{self._depth};"
        self._depth -= 1

    async def roll_back_to_savepoint(self) -> None:
        """Undo what was done since the last savepoint."""
        await self._db.script(f"ROLLBACK TO SAVEPOINT s{self._depth}; RELEASE SAVEPOINT s{self._depth}")
        self._depth -= 1
        self._unreleased = ""
        self._given_up = False


class AskingStatements(PostgresStatements):
    """Statements in a transaction that only reads."""

    async def query(self, sql: str, args: Sequence[Value]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Execute the user's query; raises StatementError for one that would write."""
        try:
            return await super().query(sql, args)
        except StoreUnavailableError as error:
            if getattr(error.__cause__, "sqlstate", None) == READ_ONLY:  # said of this transaction, not of the server
                raise StatementError(f"A query only reads: {error.__cause__}. What writes is a command.") from error
            raise


def _checked(sql: str) -> str:
    first = _FIRST_WORD.match(sql)
    word = first.group(1).upper() if first else ""
    if word in _CONTROLS:
        raise StatementError(
            f"{word} was refused: the transaction belongs to Tidings, which commits it once the block ends. Raise an "
            "exception to roll back."
        )
    return sql
