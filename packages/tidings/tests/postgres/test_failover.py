"""Two servers, one address: a primary that dies, a streaming standby that is promoted, a service that outlives it.

What had reached the standby is kept and handled once. What had not is gone, with its effects and its progress, as the
docs say: its positions come again, and nothing that follows is skipped.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
from servers import Server, servers

from tidings import Event, Service, SyncWork, Transaction
from tidings.errors import StoreBusyError, StoreUnavailableError

Effects = Counter[tuple[str, str]]


class Placed(Event, name="failover.placed", key="order"):
    order: str
    number: int


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary, and the standby that follows it."""
    with servers() as new:
        primary, standby = new(), new()
        primary.make()
        standby.follow(primary)
        yield primary, standby


def make(primary: Server, standby: Server) -> Service:
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    service = Service("outlives", store=f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write")
    service.schema("CREATE TABLE IF NOT EXISTS effect (handler text, name text)")

    @service.subscribe(Placed, ordered=True)
    async def book(event: Placed, tx: Transaction) -> None:
        await tx.execute("INSERT INTO effect VALUES ('book', $1)", f"{event.order}-{event.number}")

    @service.subscribe(Placed)
    def send(event: Placed, work: SyncWork) -> None:
        with work.finish() as tx:
            tx.execute("INSERT INTO effect VALUES ('send', $1)", f"{event.order}-{event.number}")

    return service


async def publish(service: Service, order: str, count: int) -> set[str]:
    """Publish so many events, each under an id of its own until it is confirmed; return their names."""
    for number in range(count):
        async with asyncio.timeout(40):
            while True:
                with suppress(StoreUnavailableError, StoreBusyError):
                    await service.publish(Placed(order=order, number=number), id=f"{order}-{number}")
                    break
                await asyncio.sleep(0.05)
    return {f"{order}-{number}" for number in range(count)}


async def effects_are(service: Service, names: set[str]) -> Effects:
    """Wait until every name has both of its effects; return how often each is there."""
    found: Effects = Counter()
    async with asyncio.timeout(40):
        while not {(handler, name) for handler in ("book", "send") for name in names} <= found.keys():
            await asyncio.sleep(0.05)
            with suppress(StoreUnavailableError):
                rows = await service.fetch_all("SELECT handler, name FROM effect")
                found = Counter((row[0], row[1]) for row in rows)
    return found


async def confirm_at(primary: Server, standbys: str) -> None:
    """Let the primary confirm a commit once these standbys have it."""
    await primary.fetch(f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
    await primary.fetch("SELECT pg_reload_conf()")


@pytest.mark.timeout(120)
async def test_a_service_goes_on_at_the_promoted_standby(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    await confirm_at(primary, "*")
    service = make(primary, standby)
    async with service:
        kept = await publish(service, "kept", 60)
        await effects_are(service, kept)
        # The standby follows no more, and the primary confirms by itself: what comes now is lost with it.
        await standby.fetch("ALTER SYSTEM SET primary_conninfo = ''")
        await standby.fetch("SELECT pg_reload_conf()")
        await confirm_at(primary, "")
        lost = await publish(service, "lost", 30)
        await effects_are(service, lost)
        during = asyncio.create_task(publish(service, "during", 60))  # those that come first are lost, too
        await asyncio.to_thread(primary.stop, "immediate")
        await asyncio.to_thread(standby.promote)
        await during
        after = await publish(service, "after", 60)
        there = {row[0] for row in await service.fetch_all("SELECT id FROM tidings.log")}
        found = await effects_are(service, there)
        held = await service.fetch_value("SELECT count(*) FROM tidings.held")
    assert kept | after <= there
    assert {name for _, name in found} == there, "an event has its effects if and only if it is there"
    assert set(found.values()) == {1}
    assert held == 0
    assert lost & there == set(), "the standby had them, so that nothing was lost and the test proves less than it says"
