"""Cuts the connections to one Postgres database, as a failover, a restart or an impatient administrator does."""

import asyncio
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

CUT_SECONDS = 0.4
ALL_AT_ONCE = 10
"""One cut in so many ends every connection, the others one each."""

SHUT_AT, SHUT_SECONDS = 20, 2.0
"""At this cut the database lets nobody in for a while, as a restarting server does."""

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
