"""A transaction that another server decides (PREPARE TRANSACTION) holds the fence like an open one, over restarts."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from servers import Server

from tidings.backends.postgres import PostgresStore, open_store
from tidings.errors import StoreUnavailableError
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.world import World

INSERT = (
    "INSERT INTO tidings.log (lane, type, version, id, source, time, key, correlation, keep, data) "
    "VALUES (0, 'fence.written', '1', $1, 'fence', 0, $1, $1, 'forever', '{}')"
)


@pytest.fixture
async def store(server: Server) -> AsyncIterator[PostgresStore]:
    await server.fetch("DROP SCHEMA IF EXISTS tidings CASCADE")
    made = open_store(server.url, World(system_clock, random.Random(1), uuid7_ids))
    await made.open(migrate=True)
    yield made
    await made.close()


async def prepare(server: Server, key: str) -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute("BEGIN")
    await connection.execute(INSERT, key)
    await connection.execute(f"PREPARE TRANSACTION '{key}'")
    await connection.close()


class Reader:
    """Reads the log on and on; `ids` is what it has seen."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._scanned = 0
        self.ids: list[str] = []

    async def look(self) -> list[str]:
        page = await self._store.reading.read(self._scanned, None, range(self._store.lanes), 10)
        self._scanned = page.scanned
        self.ids += [record.envelope.id for record in page.records]
        return self.ids

    async def look_until(self, wanted: list[str]) -> None:
        async with asyncio.timeout(10):
            while self.ids != wanted:
                with suppress(StoreUnavailableError):  # the connections of the server's run before
                    await self.look()
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_it_holds_every_reader_until_it_is_decided(server: Server, store: PostgresStore, end: str) -> None:
    reader = Reader(store)
    await store.publish([envelope("before")])
    await prepare(server, "prepared")
    await store.publish([envelope("after")])
    for _ in range(5):  # a reader that counted only processes would go past it with its second look
        assert await reader.look() == ["before"]
    facts: Any = await store.status()
    assert facts["fence held by"] == "prepared transaction prepared"
    assert facts["fence held seconds"] >= 0
    await server.fetch(f"{end} PREPARED 'prepared'")
    await reader.look_until(["before", "prepared", "after"] if end == "COMMIT" else ["before", "after"])


async def test_it_holds_them_over_a_restart_in_which_it_gets_another_name(server: Server, store: PostgresStore) -> None:
    reader = Reader(store)
    await store.publish([envelope("before")])
    await prepare(server, "one")
    await prepare(server, "two")
    await store.publish([envelope("after")])
    assert await reader.look() == ["before"]
    await asyncio.to_thread(server.stop, "immediate")
    await asyncio.to_thread(server.start)
    names = await server.fetch("SELECT virtualtransaction FROM pg_locks WHERE relation = 'tidings.log'::regclass")
    assert [name.startswith("-1/") for (name,) in names] == [True, True]
    for _ in range(5):
        with suppress(StoreUnavailableError):
            assert await reader.look() == ["before"]
    await server.fetch("COMMIT PREPARED 'two'")
    for _ in range(5):  # the other is older still
        assert await reader.look() == ["before"]
    await server.fetch("COMMIT PREPARED 'one'")
    await reader.look_until(["before", "one", "two", "after"])


async def test_the_one_that_holds_is_named_among_others(server: Server, store: PostgresStore) -> None:
    connection = await asyncpg.connect(server.url)
    for name, sql in (("stranger", "CREATE TABLE IF NOT EXISTS elsewhere ()"), ("holder", INSERT)):
        await connection.execute("BEGIN")
        await connection.execute(sql, *([name] if name == "holder" else []))
        await connection.execute(f"PREPARE TRANSACTION '{name}'")
    await connection.close()
    try:
        assert (await store.status())["fence held by"] == "prepared transaction holder"
    finally:
        for name in ("stranger", "holder"):
            await server.fetch(f"ROLLBACK PREPARED '{name}'")
