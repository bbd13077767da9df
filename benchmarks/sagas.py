"""Sagas in flight: how many events a second, and how much memory, beside the same flow written by hand.

python benchmarks/sagas.py [--sagas 10000] [--rounds 3] [--stores sqlite,postgres] [--server URL]. By hand it is plain
Transaction subscriptions: one row for each flow, the same outgoing event, the same time limit as a delayed event.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path

from frame import Case, installed, machine, print_report, run_rounds
from msgspec import Struct
from postgres_server import running

from tidings import Event, Saga, Service, Transaction, on, on_timer, starts

STATUS = Path("/proc/self/status")
LIMIT = timedelta(hours=1)


class Placed(Event, name="flow.placed", key="order"):
    """A flow begins."""

    order: str
    cents: int


class PayAsked(Event, name="flow.pay.asked", key="order"):
    """It asks for something, and waits."""

    order: str
    cents: int


class Paid(Event, name="flow.paid", key="order"):
    """It was answered."""

    order: str


class Confirmed(Event, name="flow.confirmed", key="order"):
    """It is over."""

    order: str
    cents: int


class TooLate(Event, name="flow.too.late", key="order"):
    """By hand: the time limit."""

    order: str


class Order(Struct):
    """What a flow remembers."""

    cents: int = 0


class Flow(Saga[Order], name="flow", by="order"):
    """The flow as a saga."""

    @starts(Placed)
    def begin(self, event: Placed) -> None:
        """Ask, and wait for an hour at most."""
        self.state.cents = event.cents
        self.publish(PayAsked(order=self.id, cents=event.cents))
        self.start_timer("payment", LIMIT)

    @on(Paid)
    def paid(self, event: Paid) -> None:
        """Confirm."""
        self.cancel_timer("payment")
        self.publish(Confirmed(order=self.id, cents=self.state.cents))
        self.complete()

    @on_timer("payment")
    def too_late(self) -> None:
        """Give up."""
        self.compensated()


def as_sagas(url: str) -> Service:
    """Return the service whose flows are sagas."""
    service = Service("flows", store=url)
    service.register(PayAsked, Confirmed)
    service.saga(Flow)
    return service


def by_hand(url: str) -> Service:
    """Return the service whose flows are rows that two handlers keep."""
    service = Service("flows", store=url)
    service.register(PayAsked, Confirmed)
    service.schema(
        "CREATE TABLE IF NOT EXISTS flow (id TEXT PRIMARY KEY, status TEXT NOT NULL, cents BIGINT NOT NULL, "
        "timer TEXT NOT NULL)"
    )

    @service.subscribe(Placed, ordered=True)
    async def begin(event: Placed, tx: Transaction) -> None:
        tx.publish(PayAsked(order=event.order, cents=event.cents))
        timer = tx.publish(TooLate(order=event.order), delay=LIMIT).id
        await tx.execute("INSERT INTO flow VALUES ($1, 'running', $2, $3)", event.order, event.cents, timer)

    @service.subscribe(Paid, ordered=True)
    async def paid(event: Paid, tx: Transaction) -> None:
        row = await tx.fetch_one("SELECT cents, timer FROM flow WHERE id = $1", event.order)
        assert row is not None  # it was placed before
        await tx.execute("UPDATE flow SET status = 'completed' WHERE id = $1", event.order)
        await tx.cancel(row[1])
        tx.publish(Confirmed(order=event.order, cents=row[0]))

    @service.subscribe(TooLate, ordered=True)
    async def too_late(event: TooLate, tx: Transaction) -> None:
        await tx.execute("UPDATE flow SET status = 'compensated' WHERE id = $1", event.order)

    return service


WAYS = {"sagas": as_sagas, "by hand": by_hand}


def memory() -> float:
    """Return this process's memory in MiB."""
    line = next(one for one in STATUS.read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def publish(service: Service, events: Sequence[Event]) -> None:
    """Publish events while nobody handles any."""
    async with service.running(consumers=False):
        for start in range(0, len(events), 500):
            await asyncio.gather(*(service.publish(event) for event in events[start : start + 500]))


async def handled(service: Service, sql: str, wanted: int) -> float:
    """Wait until a query counts so many; return the seconds."""
    began = time.perf_counter()
    while await service.fetch_value(sql) < wanted:  # noqa: ASYNC110 - the table says it
        await asyncio.sleep(0.1)
    return time.perf_counter() - began


async def run(way: str, url: str, flows: int) -> dict[str, float]:
    """Let every flow begin, then be answered; return events per second, and memory while all are in flight."""
    table = ("tidings.saga" if url.startswith("postgresql") else "tidings_saga") if way == "sagas" else "flow"
    counted = f"SELECT count(*) FROM {table} WHERE status = "
    make: Callable[[], Service] = partial(WAYS[way], url)
    async with make():
        before = memory()
    names = [f"order-{n:06}" for n in range(flows)]
    await publish(make(), [Placed(order=name, cents=n) for n, name in enumerate(names)])
    async with make() as service:
        begun = await handled(service, f"{counted}'running'", flows)
        in_flight = memory() - before
        scheduled = await service.fetch_value(f"SELECT count(*) FROM {_scheduled(url)}")
    await publish(make(), [Paid(order=name) for name in names])
    async with make() as service:
        ended = await handled(service, f"{counted}'completed'", flows)
        left = await service.fetch_value(f"SELECT count(*) FROM {_scheduled(url)}")
    if (scheduled, left) != (flows, 0):
        raise SystemExit(f"{way}: {scheduled} time limits ran, {left} were left; expected {flows} and 0")
    return {"begun": flows / begun, "ended": flows / ended, "memory": in_flight}


def _scheduled(url: str) -> str:
    return "tidings.scheduled" if url.startswith("postgresql") else "tidings_scheduled"


def case(way: str, store: str, fresh: Callable[[], object], flows: int) -> Case:
    """Return a case that runs in a process of its own, whose memory is its own."""

    def measure() -> dict[str, list[float]]:
        with fresh() as url:  # type: ignore[attr-defined]
            command = [sys.executable, __file__, "--way", way, "--url", url, "--sagas", str(flows)]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        said = {"begun": "begun, events/s", "ended": "answered, events/s", "memory": "in flight, MiB more"}
        return {f"{store}, {said[name]}: {way}": [value] for name, value in told.items()}

    return Case(measure)


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description="Measure sagas in flight beside the same flow written by hand.")
    parser.add_argument("--sagas", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", default="sqlite,postgres")
    parser.add_argument("--server", help="the URL of a database on a server where databases may be created")
    parser.add_argument("--way", choices=WAYS, help="for its own processes: one way, on the store --url")
    parser.add_argument("--url", default="")
    args = parser.parse_args()
    if args.way:
        done: Awaitable[dict[str, float]] = run(args.way, args.url, args.sagas)
        print(json.dumps(asyncio.run(done)))  # type: ignore[arg-type]
        return
    with running(args.server) as server, tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(10_000))
        places = {
            "sqlite": lambda: nullcontext(f"sqlite:///{folder}/{next(numbers)}.db"),
            "postgres": server.database,
        }
        chosen = [case(way, store, places[store], args.sagas) for store in args.stores.split(",") for way in WAYS]
        results = run_rounds(chosen, args.rounds)
        print_report(results, [], {**machine(), **installed("tidings", "asyncpg"), **server.settings()})


if __name__ == "__main__":
    main()
