"""Real processes that are killed in a rebuild, in a swap, and beside each other: the versions stay equal."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import Deposited, balances, bank, table
from processes import Processes, processes

from tidings.sourcing import replay

SCRIPT = str(Path(__file__).with_name("balances_service.py"))
EVENTS = 3000

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as some:
        yield some


async def seed(store_url: str, events: int) -> None:
    """Publish, and let the first version catch up."""
    service = bank(store_url)
    view = balances(service, 1, batched=True)
    async with service:
        await asyncio.gather(*[service.publish(Deposited(account=f"a{n % 9}", cents=n)) for n in range(events)])
        await view.wait_until_caught_up()


async def ended(process: "subprocess.Popen[bytes]", started: Processes) -> int:
    code = await asyncio.to_thread(process.wait, 30)
    assert code in (0, -signal.SIGKILL), started.output()
    return code


async def equal_in_the_end(store_url: str, events: int) -> None:
    """Let both versions catch up here; they must hold every event once."""
    service = bank(store_url)
    view = balances(service, 1)
    balances(service, 2, batched=True)
    async with service:
        async with asyncio.timeout(60):
            while not all([await _is_there(service, version, events) for version in (1, 2)]):  # noqa: ASYNC110 - rows
                await asyncio.sleep(0.02)
        assert await table(service, 1) == await table(service, 2)
        assert await replay.swap(service.store, "balances", 2, patience=20) == (1, 2)
        assert await view.fetch_value("SELECT sum(moves) FROM {balances}") == events


async def _is_there(service: object, version: int, events: int) -> bool:
    sql = f"SELECT sum(moves) FROM balances_v{version}"
    moves = int(await service.fetch_value(sql) or 0)  # type: ignore[attr-defined]
    assert moves <= events, f"version {version} handled something twice"
    return moves == events


@pytest.mark.parametrize(("point", "times"), [("lane.before_commit", 2), ("lane.after_commit", 1)])
async def test_killed_in_a_rebuild(store_url: str, started: Processes, point: str, times: int) -> None:
    await seed(store_url, EVENTS)
    killed = started.start(SCRIPT, store_url, "--die", point, times)
    assert await ended(killed, started) == -signal.SIGKILL
    await equal_in_the_end(store_url, EVENTS)


async def test_killed_in_the_swap(store_url: str, started: Processes) -> None:
    await seed(store_url, 300)
    killed = started.start(SCRIPT, store_url, "--die", "swap.before_commit", 1, "--swap")
    assert await ended(killed, started) == -signal.SIGKILL
    service = bank(store_url)
    balances(service, 1)
    balances(service, 2)
    async with service:
        assert await service.store.reading.live_version("balances") == 1
    await equal_in_the_end(store_url, 300)


async def test_several_processes_one_killed_under_live_appends(store_url: str, started: Processes) -> None:
    await seed(store_url, EVENTS)
    workers = [started.start(SCRIPT, store_url, "--inline") for _ in range(2)]
    publisher = started.start(SCRIPT, store_url, "--inline", "--publish", 300)
    await asyncio.sleep(2)
    workers[0].kill()
    assert await ended(publisher, started) == 0
    workers[1].send_signal(signal.SIGTERM)
    await asyncio.to_thread(workers[1].wait, 30)
    await equal_in_the_end(store_url, EVENTS + 300)
