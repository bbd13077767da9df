"""Measures the bullmq:// transport beside BullMQ's own libraries for Node and Python, on one Redis, in one run.

python benchmarks/bullmq.py [--rounds 5] [--quick] [--only WORD]. What each figure means and what was seen:
docs/reference/benchmarks-brokers.md.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec
import ours
from frame import Case, Goal, installed, machine, print_report, run_rounds
from peers import raw_bullmq

from tidings import Service
from tidings.backends.bullmq import open_transport
from tidings.backends.bullmq.transport import MAX_BATCH
from tidings.events import Envelope, encode_event
from tidings.service import system_clock, uuid7_ids
from tidings.world import World

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "packages/tidings/tests/brokers"))

import node_bullmq  # noqa: E402  the tests install BullMQ for Node, and start Redis
from redis_server import RedisServer  # noqa: E402

BULK = 100
QUEUE = "bench"
PAYLOAD = encode_event(ours.order(1)).decode()
Figures = Mapping[str, Sequence[float]]
Measure = Callable[[str, int, int], Coroutine[None, None, float]]


class Sizes(msgspec.Struct, frozen=True):
    """How many jobs each case does in a round."""

    single: int
    bulk: int
    slow: int
    relayed: int


FULL = Sizes(3_000, 20_000, 4_000, 20_000)
QUICK = Sizes(200, 1_000, 200, 1_000)


class Bench:
    """The cases, each on an empty Redis; `versions` collects what the neighbours say they are."""

    def __init__(self, redis: RedisServer, sizes: Sizes) -> None:
        self.versions: dict[str, str] = {}
        self._redis = redis
        self._sizes = sizes

    def add(self, width: int) -> Figures:
        """Measure adding jobs, one at a time or in pieces."""
        count = self._sizes.single if width == 1 else self._sizes.bulk
        figures = {}
        for name, measure in self._three("add", add).items():
            self._redis.call("FLUSHALL")
            figures[f"add, {width} at a time: {name}"] = [measure(count, width)]
            self._check("wait", count)
        return figures

    def process(self, width: int) -> Figures:
        """Measure working on jobs that wait: `width` at most are in hand at a time."""
        figures = {}
        for name, measure in self._three("work", process).items():
            # Python's library is slow whatever the width: it gets fewer jobs of the same kind.
            count = self._sizes.slow if width == 1 or name == "Python" else self._sizes.bulk
            self._redis.call("FLUSHALL")
            asyncio.run(add(self._url(), count, BULK))
            figures[f"process, {width} in hand: {name}"] = [measure(count, width)]
            self._check("wait", 0)
            self._check("active", 0)
        return figures

    def relay(self) -> Figures:
        """Measure the relay beside loops that send the same, as many at a time."""
        count, width = self._sizes.relayed, MAX_BATCH
        rates = {
            "tidings": lambda: relay(self._redis, self._url(), count),
            "its transport in a loop": lambda: add(self._url(), count, width),
            "redis-py in a loop": lambda: raw_bullmq.add(self._redis.port, QUEUE, envelopes(count), width),
        }
        figures = {}
        for name, measure in rates.items():
            self._redis.call("FLUSHALL")
            figures[f"relay: {name}"] = [asyncio.run(measure())]
            self._check("wait", count)
        return figures

    def _three(self, command: str, mine: Measure) -> dict[str, Callable[[int, int], float]]:
        node, folder = node_bullmq.installed()
        tail = [command, str(self._redis.port), QUEUE]
        for_node = [node, str(HERE / "peers/bullmq_node.mjs"), str(folder), *tail]
        for_python = [sys.executable, str(HERE / "peers/bullmq_python.py"), *tail]
        return {
            "tidings": lambda count, width: asyncio.run(mine(self._url(), count, width)),
            "Node": lambda count, width: self._peer("Node", for_node, count, width),
            "Python": lambda count, width: self._peer("Python", for_python, count, width),
        }

    def _peer(self, name: str, command: list[str], count: int, width: int) -> float:
        done = subprocess.run(
            [*command, str(count), str(width)], env={**os.environ, "PAYLOAD": PAYLOAD}, capture_output=True, text=True,
            timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        self.versions[f"bullmq for {name}"] = said["version"]
        return float(said["rate"])

    def _check(self, key: str, count: int) -> None:
        there = int(self._redis.call("LLEN", f"bull:{QUEUE}:{key}")[1:])
        assert there == count, f"{there} jobs in {key}, and {count} should be there"

    def _url(self) -> str:
        return self._redis.url(queue=QUEUE, inward=QUEUE)


def envelopes(count: int) -> list[Envelope]:
    """Return orders in envelopes."""
    now = system_clock()
    return [
        Envelope(id=f"job-{number}", source="bench", type="bench.order.placed", time=now, correlation=f"job-{number}",
                 data=PAYLOAD.encode(), key=f"order-{number % ours.KEYS}")
        for number in range(count)
    ]  # fmt: skip


async def add(url: str, count: int, width: int) -> float:
    """Send orders through the transport, `width` at a time; return jobs per second."""
    transport = open_transport(url, World(system_clock, Random(), uuid7_ids))
    await transport.open()
    orders = envelopes(count)
    began = time.perf_counter()
    for first in range(0, count, width):
        refused = await transport.send(orders[first : first + width])
        assert not refused
    seconds = time.perf_counter() - began
    await transport.close()
    return count / seconds


async def process(url: str, count: int, width: int) -> float:
    """Receive and settle until all are done; return jobs per second, from the first one done to the last."""
    transport = open_transport(url, World(system_clock, Random(), uuid7_ids))
    await transport.open()
    await transport.settle(await transport.receive(1))
    began = time.perf_counter()
    done = 1
    while done < count:
        deliveries = await transport.receive(width)
        await transport.settle(deliveries)
        done += len(deliveries)
    seconds = time.perf_counter() - began
    await transport.close()
    return (count - 1) / seconds


async def relay(redis: RedisServer, url: str, count: int) -> float:
    """Fill a log, then relay it; return events per second, from the first one in the queue to the last."""
    with TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/bench.db"
        async with relaying(store, url):
            pass  # from now on the relay has a place in the log
        await ours.fill(store, count)
        async with asyncio.timeout(120), relaying(store, url):
            there, first, began = 0, 0, 0.0
            while there < count:
                there = int(redis.call("LLEN", f"bull:{QUEUE}:wait")[1:])
                if there and not began:
                    first, began = there, time.perf_counter()
                await asyncio.sleep(0.005)
            return (count - first) / (time.perf_counter() - began)


def relaying(store: str, url: str) -> AbstractAsyncContextManager[Service]:
    """Run the relay alone."""
    service = Service("bench", store=store, transport=url)
    service.register(ours.OrderPlaced)
    return service.running(consumers=False)


def cases_of(bench: Bench) -> dict[str, Callable[[], Figures]]:
    """Return each case by its name."""
    return {
        "add 1": lambda: bench.add(1),
        "add bulk": lambda: bench.add(BULK),
        "process 1": lambda: bench.process(1),
        "process 20": lambda: bench.process(20),
        "relay": bench.relay,
    }


def goals_of() -> list[Goal]:
    """Return what the figures shall be beside each other."""
    processed = "process, 20 in hand"
    return [
        Goal(f"{processed}: tidings", (f"{processed}: Python",), at_least=3),
        Goal(f"{processed}: tidings", (f"{processed}: Node",), at_least=1),
        Goal("process, 1 in hand: tidings", ("process, 1 in hand: Node",), at_least=1),
        Goal("add, 1 at a time: tidings", ("add, 1 at a time: Node",), at_least=1),
        Goal(f"add, {BULK} at a time: tidings", (f"add, {BULK} at a time: Node",), at_least=1),
        Goal("relay: tidings", ("relay: its transport in a loop", "relay: redis-py in a loop"), at_least=0.7),
    ]


def main() -> None:
    """Run the rounds and print the report."""
    parser = argparse.ArgumentParser(description="Measure the bullmq:// transport beside BullMQ's own libraries.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small round: does everything run?")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder)).start()
        try:
            bench = Bench(redis, QUICK if args.quick else FULL)
            cases = [Case(measure) for name, measure in cases_of(bench).items() if args.only in name]
            results = run_rounds(cases, 1 if args.quick else args.rounds)
        finally:
            redis.kill()
    settings = {**machine(), **installed("tidings", "redis", "hiredis", "msgspec"), **bench.versions}
    print_report(results, goals_of(), {**settings, "settings": "Redis with AOF (everysec); asyncio without uvloop"})


if __name__ == "__main__":
    main()
