"""Cuts the connections to one Postgres database, as an impatient administrator does, or crashes its server."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

CUT_SECONDS = 0.4
ALL_AT_ONCE = 10
"""One cut in so many ends every connection, the others one each."""

SHUT_AT, SHUT_SECONDS = 20, 2.0
"""At this cut the database lets nobody in for a while, as a restarting server does."""

CRASH_SECONDS = 1.0
"""Between the end of one crash of the server and the next."""

ONE = "ORDER BY random() LIMIT 1"


async def let_in(admin: str, store: str) -> None:
    """Let the database take connections again."""
    connection = await asyncpg.connect(admin)
    await connection.execute(f'ALTER DATABASE "{urlsplit(store).path.removeprefix("/")}" ALLOW_CONNECTIONS true')
    await connection.close()


async def cut_for_ever(admin: str, store: str, log: Path) -> None:
    """Cut until killed; write down how many each time."""
    database = urlsplit(store).path.removeprefix("/")
    connection = await asyncpg.connect(admin)
    for number in count(1):
        await asyncio.sleep(CUT_SECONDS)
        if number == SHUT_AT:
            await connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        cut = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE datname = $1 "
            f"AND backend_type = 'client backend' {ONE if number % ALL_AT_ONCE else ''}) chosen",
            database,
        )
        if number == SHUT_AT:
            await asyncio.sleep(SHUT_SECONDS)
            await connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        with log.open("a") as file:
            file.write(f"{cut}\n")


def the_server(data: Path) -> Any:
    """Return the server over a folder of data, as servers.py of the Postgres tests has made it."""
    sys.path.append(str(Path(__file__).parents[1] / "postgres"))
    from servers import Server

    return Server(data)


def crash_for_ever(data: Path, store: str, log: Path) -> None:
    """Crash the server until killed, by turns one process of it, which ends all its others, and all at once."""
    server = the_server(data)
    for number in count(1):
        time.sleep(CRASH_SECONDS)
        if number % 2:
            with contextlib.suppress(OSError, asyncpg.PostgresError):  # it has not recovered yet
                os.kill(asyncio.run(_a_backend(store)), signal.SIGKILL)
        else:
            server.stop("immediate")
            server.start()
        with log.open("a") as file:
            file.write("1\n")


async def _a_backend(store: str) -> int:
    connection = await asyncpg.connect(store)
    try:
        pid: int = await connection.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
            f"{ONE}"
        )
        return pid
    finally:
        await connection.close()


def bring_up(data: Path) -> None:
    """Start the server again, if its last crash was cut short."""
    server = the_server(data)
    with contextlib.suppress(subprocess.CalledProcessError):  # it runs
        server.start()
