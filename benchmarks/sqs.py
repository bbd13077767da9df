"""Measures the sqs:// transport and the relay over it beside plain loops that send the same, on one stand-in for AWS.

python benchmarks/sqs.py [--rounds 7] [--quick]. What each figure means and what was seen:
docs/reference/benchmarks-brokers.md.
"""

import argparse
import asyncio
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import ours
from frame import Case, Goal, installed, machine, print_report, run_rounds
from peers import raw_sqs

from tidings import Service
from tidings.backends.sqs import open_topology, open_transport
from tidings.backends.sqs.transport import MAX_BATCH
from tidings.events import Envelope, encode_event
from tidings.service import system_clock, uuid7_ids
from tidings.world import World

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from cloud_servers import CREDENTIALS, AwsServer

PAYLOAD = encode_event(ours.order(1))
KINDS = {"standard": "", "FIFO": ".fifo"}
FULL, QUICK = 3_000, 1_000


class Bench:
    """The cases, each on a queue of its own."""

    def __init__(self, endpoint: str, count: int) -> None:
        self._endpoint = endpoint
        self._count = count

    def send(self, kind: str) -> Mapping[str, Sequence[float]]:
        """Measure the relay, its transport in a loop, and a plain loop."""
        cases: dict[str, Callable[[str], Any]] = {
            "relay": lambda name: relay(self._url(name), self._count),
            "its transport in a loop": lambda name: add(self._url(name), self._count),
            "aiobotocore in a loop": lambda name: raw_sqs.add(
                self._endpoint, name, envelopes(self._count), MAX_BATCH, fifo=kind == "FIFO"
            ),
        }
        return {f"{kind}: {case}": [asyncio.run(self._on_a_queue(kind, measure))] for case, measure in cases.items()}

    def receive(self) -> Mapping[str, Sequence[float]]:
        """Measure receiving and settling what waits, through the transport."""

        async def drain(name: str) -> float:
            await add(self._url(name), self._count)
            return await receive(self._url(name), self._count)

        return {"standard: received and settled": [asyncio.run(self._on_a_queue("standard", drain))]}

    def hot(self) -> Mapping[str, Sequence[float]]:
        """Measure a FIFO queue when all events have one key, and when every second one has it."""
        count = self._count // 5
        cases: dict[str, Callable[[str], Any]] = {
            "one key": lambda name: add(self._url(name), count, hot=1),
            "every second event of one key": lambda name: add(self._url(name), count, hot=2),
            "one key, aiobotocore, ten in a call": lambda name: raw_sqs.add(
                self._endpoint, name, envelopes(count, hot=1), MAX_BATCH, fifo=True
            ),
        }
        return {f"FIFO: {case}": [asyncio.run(self._on_a_queue("FIFO", measure))] for case, measure in cases.items()}

    async def _on_a_queue(self, kind: str, measure: Callable[[str], Any]) -> float:
        name = f"bench-{uuid.uuid4().hex[:8]}{KINDS[kind]}"
        await open_topology(self._url(name), world()).apply()
        rate: float = await measure(name)
        return rate

    def _url(self, name: str) -> str:
        return f"sqs://{name}?in={name}&wait=1&endpoint={self._endpoint}"


def world() -> World:
    """Return the world outside."""
    return World(system_clock, Random(), uuid7_ids)


def envelopes(count: int, hot: int = 0) -> list[Envelope]:
    """Return orders in envelopes; with `hot` every so many-th has the same key."""
    now = system_clock()
    return [
        Envelope(id=f"event-{number}", source="bench", type="bench.order.placed", time=now, correlation="bench",
                 data=PAYLOAD, key="hot" if hot and number % hot == 0 else f"order-{number % ours.KEYS}")
        for number in range(count)
    ]  # fmt: skip


async def add(url: str, count: int, hot: int = 0) -> float:
    """Send orders through the transport; return messages per second."""
    transport = open_transport(url, world())
    await transport.open()
    orders = envelopes(count, hot)
    began = time.perf_counter()
    for first in range(0, count, MAX_BATCH):
        assert not await transport.send(orders[first : first + MAX_BATCH])
    seconds = time.perf_counter() - began
    await transport.close()
    return count / seconds


async def receive(url: str, count: int) -> float:
    """Receive and settle until all are done; return messages per second."""
    transport = open_transport(url, world())
    await transport.open()
    began, done = time.perf_counter(), 0
    while done < count:
        deliveries = await transport.receive(100)
        await transport.settle(deliveries)
        done += len(deliveries)
    seconds = time.perf_counter() - began
    await transport.close()
    return count / seconds


async def relay(url: str, count: int) -> float:
    """Fill a log, then relay it; return events per second, from the first batch sent to the last."""
    with TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/bench.db"
        async with relaying(store, url):
            pass  # from now on the relay has a place in the log
        await ours.fill(store, count)
        sent: list[tuple[float, int]] = []
        async with asyncio.timeout(120), relaying(store, url) as service:
            while not sent or sent[-1][1] < count:
                left, _ = await service.store.reading.pending("bench:relay", None)
                sent.append((time.perf_counter(), count - left))
                await asyncio.sleep(0.01)
        began, first = next((moment, done) for moment, done in sent if done)
        return (count - first) / (sent[-1][0] - began)


def relaying(store: str, url: str) -> AbstractAsyncContextManager[Service]:
    """Run the relay alone."""
    service = Service("bench", store=store, transport=url)
    service.register(ours.OrderPlaced)
    return service.running(consumers=False)


def goals_of() -> list[Goal]:
    """Return what the figures shall be beside each other."""
    beside = ("its transport in a loop", "aiobotocore in a loop")
    return [Goal(f"{kind}: relay", tuple(f"{kind}: {one}" for one in beside), at_least=0.7) for kind in KINDS]


def main() -> None:
    """Run the rounds and print the report."""
    parser = argparse.ArgumentParser(description="Measure the sqs:// transport beside plain loops.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small round: does everything run?")
    args = parser.parse_args()
    os.environ.update(CREDENTIALS)
    with TemporaryDirectory() as folder:
        server = AwsServer(Path(folder)).start()
        try:
            bench = Bench(server.url, QUICK if args.quick else FULL)
            cases = [
                *(Case(lambda kind=kind: bench.send(kind)) for kind in KINDS),
                Case(bench.receive),
                Case(bench.hot),
            ]
            results = run_rounds(cases, 1 if args.quick else args.rounds)
        finally:
            server.kill()
    settings = {**machine(), **installed("tidings", "aiobotocore", "ministack", "msgspec")}
    print_report(results, goals_of(), {**settings, "settings": "asyncio without uvloop"})


if __name__ == "__main__":
    main()
