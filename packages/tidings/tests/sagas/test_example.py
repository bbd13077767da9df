"""The order saga as three processes, on both stores: steps fail, processes are killed, and money and goods add up."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tidings import Event, Service

ROOT = Path(__file__).resolve().parents[4]
EXAMPLE = ROOT / "examples" / "order_saga"
SERVICES = ("orders", "payments", "inventory")
CENTS, LAMPS = 10_000, 50
STORES = ("sqlite", "postgres")


class OrderPlaced(Event, name="shop.order.placed", key="order_id"):
    order_id: str
    customer: str
    item: str
    cents: int


class OrderCancelled(Event, name="shop.order.cancelled", key="order_id"):
    order_id: str


class Shop:
    """Three processes on one store, and what is asked of them."""

    def __init__(self, url: str, faults: dict[str, str], patience: float) -> None:
        self.url = url
        self.env = {"STORE": url, "FAULTS": json.dumps(faults), "EXAMPLE": str(EXAMPLE), "PATIENCE": str(patience)}
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.client = Service("client", store=url)
        self.client.register(OrderPlaced, OrderCancelled)
        self.orders: set[str] = set()

    async def start(self, name: str) -> None:
        command = (
            sys.executable,
            "-m",
            "tidings.cli",
            "run",
            "faulty:service",
            "--app-dir",
            str(Path(__file__).parent),
        )
        env = {**os.environ, **self.env, "SERVICE": name}
        quiet = asyncio.subprocess.DEVNULL
        self.processes[name] = await asyncio.create_subprocess_exec(*command, env=env, stdout=quiet, stderr=quiet)

    async def kill(self, name: str) -> None:
        process = self.processes[name]
        process.kill()
        await process.wait()
        await self.start(name)

    async def place(self, order_id: str, cents: int = 100, item: str = "lamp") -> None:
        self.orders.add(order_id)
        async with self.client.transaction() as tx:
            await tx.execute("INSERT INTO orders (id, status) VALUES ($1, 'placed')", order_id)
            tx.publish(OrderPlaced(order_id=order_id, customer="ann", item=item, cents=cents))

    async def ended(self) -> dict[str, str]:
        """Wait until every order and every saga has ended; return how the orders did."""
        while True:
            rows = await self.client.fetch_all("SELECT id, status FROM orders")
            found = {row["id"]: row["status"] for row in rows}
            counts = await self.client.store.reading.saga_counts()
            over = sum(number for (_, status), number in counts.items() if status in ("completed", "compensated"))
            if "placed" not in found.values() and len(found) == len(self.orders) == over == sum(counts.values()):
                return found
            await asyncio.sleep(0.05)

    async def check_balance(self, statuses: dict[str, str]) -> None:
        """Nothing was lost or made: what ann has not, the confirmed orders have, and likewise the lamps."""
        ask = self.client.fetch_all
        confirmed = {order for order, status in statuses.items() if status == "confirmed"}
        taken = {row[0]: row[1] for row in await ask("SELECT order_id, cents FROM payments WHERE state = 'taken'")}
        allocated = {row[0] for row in await ask("SELECT order_id FROM allocations WHERE state = 'allocated'")}
        assert set(taken) == allocated == confirmed
        assert (await ask("SELECT cents FROM accounts"))[0][0] == CENTS - sum(taken.values())
        assert (await ask("SELECT number FROM stock"))[0][0] == LAMPS - len(confirmed)


@pytest.fixture
def store_url(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], AbstractContextManager[str]]
) -> Any:
    if request.param == "sqlite":
        yield f"sqlite+apsw:///{tmp_path}/shop.db"
        return
    with new_database() as url:
        yield url


@asynccontextmanager
async def shop_on(url: str, faults: dict[str, str], patience: float) -> AsyncIterator[Shop]:
    shop = Shop(url, faults, patience)
    async with asyncio.timeout(100), shop.client.running():
        for name in SERVICES:
            await shop.start(name)
        try:
            while len(await shop.client.store.reading.subscriptions()) < 4:  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(0.1)
            async with shop.client.transaction() as tx:
                await tx.execute("INSERT INTO accounts VALUES ('ann', $1)", CENTS)
                await tx.execute("INSERT INTO stock VALUES ('lamp', $1)", LAMPS)
            yield shop
        finally:
            for process in shop.processes.values():
                process.kill()
                await process.wait()


@pytest.mark.parametrize("store_url", STORES, indirect=True)
async def test_each_step_fails_before_and_after_its_effect(store_url: str) -> None:
    once = {f"{name} {name}-{when}-once": f"{when} once" for name in SERVICES[1:] for when in ("before", "after")}
    always = {f"{name} {name}-{when}": when for name in SERVICES[1:] for when in ("before", "after")}
    async with shop_on(store_url, {**once, **always}, patience=4) as shop:
        for fault in (*once, *always):
            await shop.place(fault.partition(" ")[2])
        await shop.place("fine")
        await shop.place("too-dear", cents=CENTS + 1)
        await shop.place("no-such-thing", item="unicorn")
        await shop.place("called-off")
        await shop.client.publish(OrderCancelled(order_id="called-off"))
        statuses = await shop.ended()
        await shop.check_balance(statuses)
    refused = {fault.partition(" ")[2] for fault in always} | {"too-dear", "no-such-thing"}
    assert {order: status for order, status in statuses.items() if order in refused} == dict.fromkeys(
        refused, "refused"
    )
    others = {order: status for order, status in statuses.items() if order not in refused | {"called-off"}}
    assert set(others.values()) == {"confirmed"}


@pytest.mark.parametrize("store_url", STORES, indirect=True)
async def test_each_process_is_killed(store_url: str) -> None:
    random = Random(7)
    async with shop_on(store_url, {}, patience=60) as shop:

        async def customers() -> None:
            for number in range(40):
                await shop.place(f"o-{number}", cents=CENTS + 1 if number % 9 == 5 else 100)
                await asyncio.sleep(random.random() * 0.1)

        async def killer() -> None:
            for name in (*SERVICES, *SERVICES):
                await asyncio.sleep(random.random() * 0.7)
                await shop.kill(name)

        await asyncio.gather(customers(), killer())
        statuses = await shop.ended()
        await shop.check_balance(statuses)
    refused = {order for order, status in statuses.items() if status == "refused"}
    assert refused == {f"o-{number}" for number in range(40) if number % 9 == 5}


@pytest.mark.parametrize("store_url", STORES, indirect=True)
async def test_one_command_runs_it(store_url: str) -> None:
    quiet = asyncio.subprocess
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE / "run.py"), store_url, stdout=quiet.PIPE, stderr=quiet.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    lines = [line for line in said.splitlines() if line.startswith(("o-", "ann"))]
    statuses = ["o-1: confirmed", "o-2: refused", "o-3: confirmed", "o-4: refused"]
    assert lines == [*statuses, "ann has 300 cents, the shop has 0 lamps"]
