"""Connections for the user's questions: each reads one committed state, and writes nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tidings.backends.sqlite.driver import Connection
from tidings.backends.sqlite.statements import AskingStatements
from tidings.errors import TransactionHeldTooLongError

ASKING_SECONDS = 10.0
"""So long a question may keep its state: meanwhile the write-ahead log grows."""

MOST_IDLE = 4
"""Connections kept for the next questions; to open one takes some 0.1 ms."""


class Asking:
    """Connections of their own, because a question waits while the store's one reading connection reads on."""

    def __init__(self, connect: Callable[[], Connection], lanes: int) -> None:
        self._connect = connect
        self._lanes = lanes
        self._idle: list[Connection] = []
        self._open = True

    @asynccontextmanager
    async def state(self) -> AsyncIterator[AskingStatements]:
        """Give statements over one committed state; raises TransactionHeldTooLongError."""
        connection = self._idle.pop() if self._idle else self._connected()
        limit = asyncio.timeout(ASKING_SECONDS)
        connection.run("BEGIN")
        try:
            async with limit:
                yield AskingStatements(connection, self._lanes)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TransactionHeldTooLongError(
                f"A query was open for more than {ASKING_SECONDS:g} s: do slow work before or after it."
            ) from error
        finally:
            if connection.in_transaction:  # else a failure of the disk has ended it
                connection.run("ROLLBACK")
            if self._open and len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    def _connected(self) -> Connection:
        connection = self._connect()
        connection.run("PRAGMA query_only = ON")
        connection.run("PRAGMA wal_autocheckpoint = 0")
        return connection

    def close(self) -> None:
        """Close what is idle; a question under way closes its own."""
        self._open = False
        while self._idle:
            self._idle.pop().close()
