"""What a server is asked and told first: whether a pooler stands before it, and which limits are not its to set."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from msgspec import Struct

from tidings.errors import ServiceError

log = logging.getLogger("tidings")

_OF_A_SESSION = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
}
"""What the server is told, whatever the database's defaults. It ends the transaction of a machine that is gone or
frozen, for it would hold the fence; statements have limits of ours, which know whose statement it is."""

LIMITS_TRANSACTIONS = 17
"""Since this version of Postgres there is a transaction_timeout."""


_HOLD_EVERYTHING = ("UTF8", "SQL_ASCII")
"""Encodings of a database that take every text; the second is that of one made without a locale."""


class Greeting(Struct, frozen=True):
    """What the first connection has told. `limits_transactions`: the server knows transaction_timeout."""

    database: str = ""
    pooled: bool = False
    limits_transactions: bool = False

    @property
    def settings(self) -> dict[str, str]:
        """What every connection is opened with."""
        settings = {"application_name": "tidings"}
        if not self.pooled:  # of others a pooler refuses a connection
            settings |= _OF_A_SESSION | ({"transaction_timeout": "0"} if self.limits_transactions else {})
        return settings


async def greet(connect: Callable[..., Awaitable["asyncpg.Connection[Any]"]]) -> Greeting:
    """Ask a server on a connection of its own; raises ServiceError for a database that cannot hold every text.

    A pooler is known by its process id, which is not the server's.
    """
    connection = await connect(statement_cache_size=0)
    try:
        [(pid, database)] = await connection.fetch("SELECT pg_backend_pid(), current_database()")
        pooled = pid != connection.get_server_pid()
        version = connection.get_server_version().major
        encoding = connection.get_settings().server_encoding
    finally:
        await connection.close()
    if encoding not in _HOLD_EVERYTHING:
        raise ServiceError(
            f"The database has the encoding {encoding}, but events hold text of every script: make one with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )
    if pooled:
        log.warning(
            "A connection pooler stands before the database: LISTEN and prepared statements do not work through "
            "it, so the log is polled. Give the store a direct address for shorter waits."
        )
    return Greeting(database, pooled, version >= LIMITS_TRANSACTIONS)
