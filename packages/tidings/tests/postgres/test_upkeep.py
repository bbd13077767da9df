"""Workers keep the log up by themselves, one at a time; operators may, too. The same on both stores."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tidings import Event, Service, Transaction, operations
from tidings.backends.postgres import PostgresStore, partitions
from tidings.consuming import upkeep, worker
from tidings.events import Envelope
from tidings.operations import DAY

EVERY = 0.5


class Noted(Event, name="upkeep.noted", key="account", keep=timedelta(seconds=1)):
    account: str


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, of one kind and of the other."""
    if request.param == "sqlite":
        return f"sqlite+apsw:///{tmp_path}/log.db"
    given: str = request.getfixturevalue("postgres_url")
    return given


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let workers keep up so often that a test sees it; the times at which they do."""
    turns: list[float] = []

    async def noted(*args: Any, **options: Any) -> upkeep.Maintained:
        turns.append(asyncio.get_running_loop().time())
        return await upkeep.maintain(*args, **options)

    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(worker, "UPKEEP_SECONDS", EVERY)
    monkeypatch.setattr(worker, "maintain", noted)
    monkeypatch.setattr(partitions, "RANGE", 10)
    return turns


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - other tasks do it
            await asyncio.sleep(0.02)


def make(url: str, handled: list[str]) -> Service:
    service = Service("shop", store=url)

    @service.subscribe(Noted, ordered=True)
    async def note(event: Noted, tx: Transaction) -> None:
        handled.append(event.account)

    return service


async def test_workers_drop_what_is_past_one_at_a_time(url: str, often: list[float]) -> None:
    handled: list[str] = []
    made = [make(url, handled) for _ in range(3 if url.startswith("postgresql") else 1)]
    async with AsyncExitStack() as stack:
        for service in made:
            await stack.enter_async_context(service)
        first = made[0]
        if isinstance(first.store, PostgresStore):  # ranges are there before the first event
            await until(lambda: has_table(first, "log_keep_1_0"))
        for number in range(25):
            await first.publish(Noted(account=str(number)))

        async def is_empty() -> bool:
            return await first.store.reading.recent(0, 1) == []

        await until(is_empty)
        assert len(handled) == 25
        if isinstance(first.store, PostgresStore):
            await until(lambda: has_no_table(first, "log_keep_1_0"))
    assert len(often) > 2
    assert min(after - before for before, after in pairwise(often)) > 0.9 * EVERY


async def has_table(service: Service, table: str) -> bool:
    return bool(await service.fetch_value("SELECT to_regclass($1) IS NOT NULL", f"tidings.{table}"))


async def has_no_table(service: Service, table: str) -> bool:
    return not await has_table(service, table)


async def test_what_is_not_settled_stays_whoever_keeps_up(url: str, often: list[float]) -> None:
    service = make(url, [])
    async with service.running(consumers=False):
        for number in range(25):
            await service.publish(Noted(account=str(number)))
        await asyncio.sleep(1.1)
        done = await operations.maintain(service.store, now=service.world.now())
        assert sum(done.dropped.values()) == 0
        assert len(await service.store.reading.recent(0, 100)) == 25


async def test_admissions_are_kept_for_the_longest_horizon_a_service_has_said(url: str, often: list[float]) -> None:
    patient, hasty = (
        Service(name, store=url, horizon=timedelta(days=days)) for name, days in (("patient", 30), ("hasty", 1))
    )
    for service in (patient, hasty):
        async with service:
            await until(lambda service=service: says_horizon(service))  # type: ignore[misc]
    old = Envelope(
        id="e", source="x", type="a.b", time=datetime.now(UTC) - timedelta(days=20), correlation="e", data=b"{}"
    )
    async with hasty.running(consumers=False):
        await hasty.store.run(lambda statements: statements.admit([old]))
        assert (await operations.maintain(hasty.store, now=hasty.world.now(), horizon=DAY)).admitted == 0
        assert await hasty.store.run(lambda statements: statements.admit([old])) == []
        assert (await operations.maintain(hasty.store, now=hasty.world.now() + 11 * DAY, horizon=DAY)).admitted == 1


async def says_horizon(service: Service) -> bool:
    table = "tidings.meta" if isinstance(service.store, PostgresStore) else "tidings_meta"
    return bool(await service.fetch_value(f"SELECT count(*) FROM {table} WHERE name = $1", f"horizon:{service.name}"))


def tidings(*arguments: str) -> str:
    command = [sys.executable, "-m", "tidings.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_the_command_line_lists_migrates_and_maintains(url: str) -> None:
    assert "missing" in await asyncio.to_thread(tidings, "store", "migrate", "--list", "--store", url)
    assert "CREATE TABLE tidings" in await asyncio.to_thread(tidings, "store", "migrate", "--print", "--store", url)
    assert "Applied: 0001_log" in await asyncio.to_thread(tidings, "store", "migrate", "--store", url)
    assert "up to date" in await asyncio.to_thread(tidings, "store", "migrate", "--store", url)
    handled: list[str] = []
    async with make(url, handled) as service:
        await service.publish(Noted(account="a"))
        await until(lambda: is_handled(handled))
    await asyncio.sleep(1.1)
    done = await asyncio.to_thread(tidings, "store", "maintain", "--json", "--store", url)
    assert json.loads(done) == {"dropped": {"1": 1}, "admitted": 0, "left": []}
    said = await asyncio.to_thread(tidings, "store", "maintain", "--store", url)
    assert "0 admissions past the horizon dropped." in said


async def is_handled(handled: list[str]) -> bool:
    return bool(handled)
