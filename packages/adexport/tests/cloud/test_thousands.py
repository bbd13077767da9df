"""Many exports at once: none is refused, the API goes on answering, all end, and pages know at once.

`benchmarks/exports.py` asks for 5,000 in a minute. The shorter storm here must pass on a machine that does other things
too, so its answers need only come before a proxy gives up.
"""

import asyncio
import hashlib
import statistics
import sys
from pathlib import Path

import aiohttp
import pytest
from asking import Answers, asked
from export_load import (
    Clock,
    all_ended,
    connected,
    cpu_of_family,
    in_the_cloud,
    many_files,
    on_one_machine,
    one_worker_then_another,
    page_delays,
    stored_in,
    through_a_clock,
    until_made,
)
from local_cloud import Machine, Place

FIRST, CALM, STORM, STORM_SECONDS = 5, 20, 150, 3.0
CALM_RATE = 10.0
BEARABLE_MS = 30_000.0


@pytest.fixture
def machine(tmp_path: Path, postgres_url: str) -> Machine:
    """A folder and a database; nobody is at work."""
    return Machine(folder=tmp_path, store=postgres_url)


async def storm(address: str) -> Answers:
    """Ask for a few at leisure, then for many; none is refused."""
    await asked(address, FIRST, 1.0, "First")
    quiet = await asked(address, CALM, CALM / CALM_RATE, "Calm")
    busy = await asked(address, STORM, STORM_SECONDS, "Storm")
    assert busy.refused == quiet.refused == []
    assert len(set(busy.exports)) == STORM
    for kind in ("post", "read"):
        calm, hurried = quiet.percentile(kind, 99), busy.percentile(kind, 99)
        print(f"{kind}: p99 {calm:.0f} ms at leisure, {hurried:.0f} ms in the storm")
        assert hurried <= max(3 * calm, BEARABLE_MS), f"{kind}: p99 {hurried:.0f} ms, at leisure {calm:.0f} ms"
    return busy


async def check_all_made(store: str, address: str, wanted: int, sample: list[str]) -> None:
    """All have ended with their file; the files of a sample are what their digests say, and JPEGs."""
    states = await all_ended(store, seconds=150)
    assert states == {"done": wanted}
    async with connected(store) as connection:
        assert await connection.fetchval("SELECT count(*) FROM adexport_cell WHERE state = 'done'") == wanted
        digests = {
            row["export_id"]: row["sha256"]
            for row in await connection.fetch("SELECT export_id, sha256 FROM adexport_cell")
        }
    assert len(set(digests.values())) == wanted, "each has words of its own"
    async with aiohttp.ClientSession(address) as session:
        for export in sample:
            async with session.get(f"/v1/exports/{export}/files/0") as answer:
                content = await answer.read()
            assert content.startswith(b"\xff\xd8")
            assert hashlib.sha256(content).hexdigest() == digests[export]


async def test_a_storm_on_postgres_with_workers(machine: Machine) -> None:
    async with on_one_machine(machine, workers=2) as address:
        busy = await storm(address)
        await check_all_made(machine.store, address, FIRST + CALM + STORM, busy.exports[::10])


async def test_a_storm_in_the_cloud(place: Place) -> None:
    async with in_the_cloud(place) as (address, _):
        busy = await storm(address)
        await check_all_made(place.store, address, FIRST + CALM + STORM, busy.exports[::10])


JOINED_BY = 0.25
"""The least share of the work that is left, where half is expected: processes start, and batches are not equal."""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who has worked, which only Linux has")
@pytest.mark.soak
async def test_a_worker_that_joins_in_the_middle_takes_its_share(machine: Machine) -> None:
    files = 1500
    async with one_worker_then_another(machine) as (address, first, second):
        export = await many_files(address, files, "Joined")
        await until_made(machine.store, export, files // 10)
        await asyncio.to_thread(second.start)
        began = [cpu_of_family(first.pid), cpu_of_family(second.pid)]
        await until_made(machine.store, export, files)
        of_first, of_second = (
            cpu_of_family(worker.pid) - before for worker, before in zip((first, second), began, strict=True)
        )
    share = of_second / (of_first + of_second)
    assert JOINED_BY <= share <= 1 - JOINED_BY, f"{of_first:.1f} s of the first worker, {of_second:.1f} s of the second"


PAGES = [pytest.param(6, 5.0, id="6"), pytest.param(40, 0.3, id="40", marks=pytest.mark.soak)]
"""How many files, and seconds within which half of the pages know. What is asserted of six holds on a busy machine."""


@pytest.mark.parametrize(("count", "seconds"), PAGES)
async def test_a_page_knows_at_once_that_a_file_is_stored(machine: Machine, count: int, seconds: float) -> None:
    async with on_one_machine(machine) as address:
        seen = await page_delays(address, count, stored_in(machine), "Page")
    assert min(seen) > -0.1, "told before it was stored"
    assert statistics.median(seen) <= seconds, seen


@pytest.mark.parametrize(("count", "seconds"), PAGES)
async def test_in_the_cloud_a_page_knows_at_once_that_a_file_is_stored(
    place: Place, count: int, seconds: float
) -> None:
    async with Clock(place.endpoint) as clock, in_the_cloud(through_a_clock(place, clock)) as (address, _):
        seen = await page_delays(address, count, clock.stored.__getitem__, "Page")
    assert min(seen) > -0.1, "told before it was stored"
    assert statistics.median(seen) <= seconds, seen
