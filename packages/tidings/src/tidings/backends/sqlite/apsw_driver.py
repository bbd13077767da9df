"""A connection of `apsw`, which brings a SQLite of its own: newer, and safe with several processes on one file."""

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from tidings.backends.sqlite.driver import Row, translated
from tidings.errors import TidingsError

_OPEN = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


class ApswConnection:
    """The same face as StandardConnection."""

    version = apsw.sqlite_lib_version()

    def __init__(self, path: str) -> None:
        try:
            self._connection = apsw.Connection(path, flags=_OPEN, statementcachesize=200)
        except apsw.Error as error:
            raise self._translated(error) from error

    def run(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Execute one statement; return how many rows it changed."""
        try:
            cursor = self._connection.execute(sql, args)
            for _ in cursor:
                pass
            return self._connection.changes()
        except apsw.Error as error:
            raise self._translated(error) from error

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each row of arguments."""
        try:
            self._connection.executemany(sql, rows)
        except apsw.Error as error:
            raise self._translated(error) from error

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Execute one statement; return its rows."""
        try:
            return self._connection.execute(sql, args).fetchall()
        except apsw.Error as error:
            raise self._translated(error) from error

    def described(self, sql: str, args: Sequence[Any]) -> tuple[tuple[str, ...], list[Row]]:
        """Execute one statement; return its column names and its rows."""
        try:
            cursor = self._connection.cursor()
            names: tuple[str, ...] = ()

            def remember(cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
                nonlocal names
                names = tuple(column[0] for column in cursor.get_description())
                return True

            cursor.exec_trace = remember
            rows = cursor.execute(sql, args).fetchall()
            return names, rows
        except apsw.Error as error:
            raise self._translated(error) from error

    def script(self, sql: str) -> None:
        """Execute several statements."""
        self.run(sql)

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

    def _translated(self, error: apsw.Error) -> TidingsError:
        return translated(getattr(error, "result", 1), str(error))
