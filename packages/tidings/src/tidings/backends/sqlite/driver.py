"""The two SQLite libraries behind one small face: the standard `sqlite3`, and `apsw` with a SQLite of its own."""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from tidings.errors import (
    ConstraintError,
    StatementError,
    StoreBusyError,
    StoreFullError,
    StoreUnavailableError,
    TidingsError,
)

Row = tuple[Any, ...]

# Result codes, https://www.sqlite.org/rescode.html
_BUSY, _LOCKED, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _CONSTRAINT, _NOTADB, _READONLY = 5, 6, 10, 11, 13, 14, 19, 26, 8

# What SQL is made of, as far as finding placeholders needs it: strings, names, comments, placeholders, semicolons.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?\*/
    | \$(?P<number>[1-9][0-9]*) | (?P<end>;)""",
    re.VERBOSE | re.DOTALL,
)
_CONTROLS = {"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "PRAGMA", "VACUUM"}
_FIRST_WORD = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]*)", re.DOTALL)


@lru_cache(maxsize=1024)
def render(sql: str) -> str:
    """Return the user's SQL with `$n` as SQLite's `?n`.

    SQLite would bind `$n` by first appearance. Raises StatementError for several statements in one, and for words
    that would end or leave the transaction.
    """
    word = _FIRST_WORD.match(sql)
    if word and word.group(1).upper() in _CONTROLS:
        raise StatementError(
            f"{word.group(1).upper()} was refused: the transaction belongs to Tidings, which commits it once the block "
            "ends. Raise an exception to roll back."
        )
    for token in _TOKEN.finditer(sql):
        if token.group("end") and _TOKEN.sub(_blank_comment, sql[token.end() :]).strip():
            raise StatementError("Several statements in one call were refused: send them one by one.")
    return _TOKEN.sub(lambda token: f"?{token.group('number')}" if token.group("number") else token.group(0), sql)


def _blank_comment(token: re.Match[str]) -> str:
    return "" if token.group(0).startswith(("--", "/*", ";")) else token.group(0)


class Connection(Protocol):
    """One open connection; a transaction is begun and ended by hand."""

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Execute one statement; return how many rows it changed."""

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each row of arguments."""

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Execute one statement; return its rows."""

    def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], list[Row]]:
        """Execute one statement; return its column names and its rows."""

    def script(self, sql: str) -> None:
        """Execute several statements."""

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open."""

    def interrupt(self) -> None:
        """Stop a statement that another thread runs."""

    def close(self) -> None:
        """Close the connection."""


class EndedConnection:
    """Stands in place of a connection for statements whose transaction has ended: all of them raise its error."""

    in_transaction = False

    def __init__(self, error: TidingsError) -> None:
        self.error = error

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Refuse; the error is a new one each time, or its traceback would grow."""
        raise type(self.error)(str(self.error))

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Refuse."""
        self.run(sql)

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Refuse."""
        self.run(sql)
        return []

    def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], list[Row]]:
        """Refuse."""
        self.run(sql)
        return (), []

    def script(self, sql: str) -> None:
        """Refuse."""
        self.run(sql)

    def interrupt(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is open."""


class StandardConnection:
    """A connection of Python's own `sqlite3`."""

    version = sqlite3.sqlite_version

    def __init__(self, path: str) -> None:
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Execute one statement; return how many rows it changed."""
        try:
            return self._connection.execute(sql, args).rowcount
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each row of arguments."""
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Execute one statement; return its rows."""
        try:
            return self._connection.execute(sql, args).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], list[Row]]:
        """Execute one statement; return its column names and its rows."""
        try:
            cursor = self._connection.execute(sql, args)
            return tuple(column[0] for column in cursor.description or ()), cursor.fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def script(self, sql: str) -> None:
        """Execute several statements."""
        for statement in split(sql):
            self.run(statement)

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open."""
        return self._connection.in_transaction

    def interrupt(self) -> None:
        """Stop a statement that another thread runs."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _translated(self, error: sqlite3.Error) -> TidingsError:
        return translated(getattr(error, "sqlite_errorcode", 1), str(error))


def split(script: str) -> list[str]:
    """Split a script into statements, as SQLite itself finds their ends (triggers and strings included)."""
    statements, current = [], ""
    for part in re.split(r"(?<=;)", script):
        current += part
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    if current.strip():
        statements.append(current)
    return statements


def is_read_only(error: object) -> bool:
    """Say whether a library's error is that of a write where only reading is allowed."""
    code: int = getattr(error, "sqlite_errorcode", getattr(error, "result", 0))
    return code & 0xFF == _READONLY


def translated(code: int, message: str) -> TidingsError:
    """Return our error for a SQLite result code."""
    primary = code & 0xFF
    message = message.rstrip(".")
    if primary in (_BUSY, _LOCKED):
        return StoreBusyError(f"The SQLite file is busy ({message}): another process writes. It is tried again.")
    if primary == _FULL:
        return StoreFullError(f"The SQLite file cannot grow ({message}): free disk space. Nothing was half-written.")
    if primary in (_IOERR, _CANTOPEN, _READONLY, _CORRUPT, _NOTADB):
        return StoreUnavailableError(
            f"The SQLite file cannot be used ({message}): check that the disk is healthy and the folder writable."
        )
    if primary == _CONSTRAINT:
        return ConstraintError(f"A constraint refused the row: {message}.")
    return StatementError(f"SQLite refused a statement: {message}.")
