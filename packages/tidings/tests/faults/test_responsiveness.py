"""Slow work does not slow publishing, and a service with nothing to do costs next to nothing."""

import asyncio
import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from statistics import quantiles

import pytest

from tidings import Event, Service, SyncTransaction, SyncWork, Work
from tidings.backends.sqlite.store import SqliteStore

SLEEPERS, SLEEP_SECONDS = 20, 5.0
PUBLISHES, PAUSE_SECONDS = 300, 0.005
PUBLISH_P99_SECONDS = 0.05
IDLE_SHARE = 0.01


class Slow(Event, name="slow.asked"):
    number: int


class Noted(Event, name="slow.noted", key="account"):
    account: str


class Done(Event, name="slow.done"):
    pass


class Asleep:
    """How many handlers sleep at this moment, and whether it was ever all of them."""

    def __init__(self) -> None:
        self.now = 0
        self.all = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def enter(self) -> None:
        self.now += 1
        if self.now == SLEEPERS:
            self._loop.call_soon_threadsafe(self.all.set)


def add_async_sleepers(service: Service, asleep: Asleep) -> None:
    @service.subscribe(Slow, concurrency=SLEEPERS)
    async def sleep(event: Slow, work: Work) -> None:
        asleep.enter()
        await asyncio.sleep(SLEEP_SECONDS)


def add_threaded_sleepers(service: Service, asleep: Asleep) -> None:
    @service.subscribe(Slow, concurrency=SLEEPERS)
    def sleep(event: Slow, work: SyncWork) -> None:
        asleep.enter()
        time.sleep(SLEEP_SECONDS)


@pytest.mark.parametrize("add_sleepers", [add_async_sleepers, add_threaded_sleepers])
async def test_sleeping_work_leaves_publishing_fast(tmp_path: Path, add_sleepers: object) -> None:
    service = Service("slow", store=f"sqlite:///{tmp_path}/slow.db", grace=timedelta(seconds=20))
    service.schema("CREATE TABLE IF NOT EXISTS effect (account TEXT)")
    asleep = Asleep()
    add_sleepers(service, asleep)  # type: ignore[operator]

    @service.subscribe(Noted, ordered=True)
    def note(event: Noted, tx: SyncTransaction) -> None:
        tx.execute("INSERT INTO effect VALUES ($1)", event.account)
        tx.publish(Done())

    async with service:
        assert isinstance(service.store, SqliteStore)
        assert service.store.synchronous == "FULL"
        for number in range(SLEEPERS):
            await service.publish(Slow(number=number))
        async with asyncio.timeout(3):
            await asleep.all.wait()
        seconds = await publish_often(service)
        async with asyncio.timeout(5):
            async for _ in service.changes(Noted, Done):
                if await service.fetch_value("SELECT count(*) FROM effect") == PUBLISHES:
                    break
    p99 = quantiles(seconds, n=100)[98]
    print(f"publish p50 {1000 * quantiles(seconds, n=100)[49]:.1f} ms, p99 {1000 * p99:.1f} ms")
    assert p99 <= PUBLISH_P99_SECONDS


async def publish_often(service: Service) -> list[float]:
    """Publish at a steady pace; return how long each took."""
    seconds = []
    for number in range(PUBLISHES):
        began = time.perf_counter()
        await service.publish(Noted(account=f"a{number % 7}"))
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_SECONDS)
    return seconds


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+apsw"])
def test_idle_service_costs_next_to_nothing(tmp_path: Path, scheme: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name("idle_service.py")), f"{scheme}:///{tmp_path}/idle.db"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(run.stdout)
    print(seen)
    assert seen["handled"]
    assert seen["share"] <= IDLE_SHARE
