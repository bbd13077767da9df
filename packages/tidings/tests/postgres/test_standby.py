"""A standby: nothing is decided by what it says, nobody writes there, and who only reads may read."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from servers import Server, servers

from tidings.backends.postgres import PostgresStore, open_store
from tidings.backends.postgres.fence import Fence
from tidings.errors import StoreUnavailableError
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.world import World


@pytest.fixture
def server() -> Iterator[Server]:
    with servers() as new:
        server = new()
        server.make()
        yield server


def new_store(url: str) -> PostgresStore:
    return open_store(url, World(system_clock, random.Random(1), uuid7_ids))


async def test_a_standby_decides_nothing_until_it_is_promoted(server: Server) -> None:
    writing, reading = new_store(server.url), new_store(server.url)
    await writing.open(migrate=True)
    await writing.publish([envelope("e1")])
    assert await writing.reading.head() == 1
    await asyncio.to_thread(server.stop)
    (server.data / "standby.signal").touch()
    await asyncio.to_thread(server.start)

    with pytest.raises(StoreUnavailableError):
        await writing._fence.look()
    with pytest.raises(StoreUnavailableError):
        await new_store(server.url).open(migrate=False)
    await reading.open(migrate=False, read_only=True)
    assert len(await reading.reading.recent(0, 10)) == 1
    with pytest.raises(StoreUnavailableError, match="standby"):
        await Fence(reading._session).look()

    await reading.reading.query("SELECT pg_promote()", ())
    await reading.close()
    assert await writing.reading.head() == 1
    assert writing.history == 1
    await writing.close()
