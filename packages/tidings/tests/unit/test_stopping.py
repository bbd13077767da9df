"""However a service is stopped, its leases are released, nothing is half-done, and it does end."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tidings import Event, Service, SyncWork, Transaction, Work


class Asked(Event, name="stopping.asked", version=1, key="name"):
    """Something was asked for."""

    name: str


def service_in(folder: Path, *, grace: float) -> Service:
    made = Service("stopping", store=f"sqlite:///{folder}/stopping.db", grace=timedelta(seconds=grace))
    made.schema("CREATE TABLE IF NOT EXISTS told (name TEXT)")
    return made


@asynccontextmanager
async def left_behind(folder: Path) -> AsyncIterator[Any]:
    """Look at what a service that has ended has left in its store."""
    looking = service_in(folder, grace=1)
    await looking.store.open(migrate=False, read_only=True)
    try:
        yield looking.store.reading
    finally:
        await looking.store.close()


async def nothing_is_held(folder: Path, *names: str) -> None:
    async with left_behind(folder) as reading:
        assert await reading.workers() == []
        for name in names:
            assert {step.owner for step in await reading.steps(name)} == {None}
            assert await reading.running(name) == []


def busy_service(folder: Path, *, grace: float) -> tuple[Service, asyncio.Event]:
    """Return a service whose handlers are in the middle of something once it runs, and what says so."""
    made, begun = service_in(folder, grace=grace), asyncio.Event()

    @made.subscribe(Asked)
    async def write(event: Asked, tx: Transaction) -> None:
        await tx.execute("INSERT INTO told VALUES ($1)", event.name)
        await asyncio.sleep(0.002)

    @made.subscribe(Asked)
    async def work(event: Asked, work: Work) -> None:
        begun.set()
        await asyncio.sleep(30)

    return made, begun


async def test_a_stop_without_grace_leaves_nothing_half_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, begun = busy_service(tmp_path, grace=0)
    async with made:
        await asyncio.gather(*[made.publish(Asked(name=str(number))) for number in range(300)])
        await begun.wait()
    await nothing_is_held(tmp_path, "write", "work")
    async with left_behind(tmp_path) as reading:
        rows = (await reading.query("SELECT count(*) FROM told", ()))[1]
        pending, _ = await reading.pending("write", ["stopping.asked"])
        assert rows[0][0] + pending == 300
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_stop_that_is_cancelled_ends_the_grace_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    made, begun = busy_service(tmp_path, grace=60)

    async def run() -> None:
        async with made:
            await made.publish(Asked(name="a"))
            await begun.wait()

    running = asyncio.create_task(run())
    await begun.wait()
    await asyncio.sleep(0.1)
    running.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await running
    await nothing_is_held(tmp_path, "write", "work")
    assert made.worker is None
    async with made.running(consumers=False):  # and it can be run again
        pass


async def test_lanes_that_were_fenced_at_the_last_moment_are_released_too(tmp_path: Path) -> None:
    made, begun = busy_service(tmp_path, grace=0.2)
    async with made:
        await made.publish(Asked(name="a"))
        await begun.wait()
        assert made.worker is not None
        for lane in made.worker.lanes:
            lane.stop()
        await made.store.run(lambda statements: statements.fence("write"))
    await nothing_is_held(tmp_path, "write", "work")


async def test_a_stop_whose_store_has_failed_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, begun = busy_service(tmp_path, grace=0.2)
    async with made:
        await made.publish(Asked(name="a"))
        await begun.wait()
        made.store._writing._connection.close()  # type: ignore[attr-defined]
    assert "could not be retired; others take over within 10 s" in caplog.text


async def test_a_plain_function_that_never_ends_keeps_no_stop_waiting(tmp_path: Path) -> None:
    made, begun, over = service_in(tmp_path, grace=0.1), threading.Event(), threading.Event()

    @made.subscribe(Asked)
    def stuck(event: Asked, work: SyncWork) -> None:
        begun.set()
        over.wait(60)

    started = 0.0
    async with made:
        await made.publish(Asked(name="a"))
        await asyncio.to_thread(begun.wait, 10)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    await nothing_is_held(tmp_path, "stuck")
    (thread,) = [one for one in threading.enumerate() if one.name.startswith("tidings-stuck")]
    assert thread.daemon  # or Python would wait for it at its end
    over.set()
