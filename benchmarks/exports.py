"""Measures Ad Export from outside, by real processes: thousands of exports, and how soon a page knows.

python benchmarks/exports.py [--only storm|page|rate] [--topology postgres|cloud] [--count N] [--seconds N]
    [--commits disk|memory]

`--commits memory`: Postgres does not wait for the disk at commits, as in the tests; for machines whose disk is shared.
What each figure means and what was seen: docs/reference/benchmarks-exports.md.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from frame import installed, machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import export_load as load
from asking import Answers, asked
from cloud_servers import CREDENTIALS, AwsServer
from local_cloud import Machine, Place, Redis, prepare
from run_cloud import own_postgres

CALM_SECONDS, CALM_RATE = 20, 5.0
PAGES = 40
FILES, ROUNDS = 600, 3

Here = Machine | Place


async def storm(where: Here, count: int, seconds: float) -> None:
    """Ask at leisure, then in a storm; say how long answers took, and when all had ended."""
    opened = load.on_one_machine(where, workers=2) if isinstance(where, Machine) else load.in_the_cloud(where)
    async with opened as found:
        address = found if isinstance(found, str) else found[0]
        await asked(address, 10, 2.0, "First")
        quiet = await asked(address, int(CALM_SECONDS * CALM_RATE), CALM_SECONDS, "Calm")
        began = time.monotonic()
        busy = await asked(address, count, seconds, "Storm")
        posted = time.monotonic() - began
        print(f"- {count} exports asked for in {posted:.1f} s, refused: {len(quiet.refused + busy.refused)}")
        print("\n| ms | p50 calm | p50 storm | p99 calm | p99 storm | ratio of p99 | wanted |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for kind in quiet.seconds:
            print(row_of(kind, quiet, busy), flush=True)
        states = await load.all_ended(where.store, seconds=900)
        print(f"\n- all ended {time.monotonic() - began:.1f} s after the first was asked for: {dict(states)}")


def row_of(kind: str, quiet: Answers, busy: Answers) -> str:
    """A kind of request, at leisure and in the storm."""
    shown = [f"{answers.percentile(kind, percent):.1f}" for percent in (50, 99) for answers in (quiet, busy)]
    ratio = busy.percentile(kind, 99) / quiet.percentile(kind, 99)
    return f"| {kind} ({len(busy.seconds[kind])}) | {' | '.join(shown)} | {ratio:.2f} | ≤ 3 |"


async def page(where: Here) -> None:
    """Milliseconds from a stored file to the page that hears of it."""
    if isinstance(where, Machine):
        async with load.on_one_machine(where) as address:
            seen = await load.page_delays(address, PAGES, load.stored_in(where), "Page")
    else:
        async with (
            load.Clock(where.endpoint) as clock,
            load.in_the_cloud(load.through_a_clock(where, clock)) as (address, _),
        ):
            seen = await load.page_delays(address, PAGES, clock.stored.__getitem__, "Page")
    ordered = sorted(1000 * each for each in seen[1:])  # the first waits for processes that start
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    p50 = statistics.median(ordered)
    print(f"- stored → page: p50 {p50:.1f} ms (wanted ≤ 300), p99 {p99:.1f} ms, {len(ordered)} files")


async def rate(where: Here) -> None:
    """Files a second by one worker and by two of one rendering process each, in turns."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(ROUNDS):
        for workers in found:
            opened = (
                load.on_one_machine(where, workers=workers)
                if isinstance(where, Machine)
                else load.in_the_cloud(where, concurrency=workers, batch_size=2)
            )
            async with opened as given:
                address = given if isinstance(given, str) else given[0]
                warm = await load.many_files(address, 20, f"Warm {number} {workers}")
                await load.until_made(where.store, warm, 20)
                began = time.monotonic()
                export = await load.many_files(address, FILES, f"Rate {number} {workers}")
                await load.until_made(where.store, export, FILES)
                found[workers].append(FILES / (time.monotonic() - began))
    one, two = (statistics.median(rates) for rates in found.values())
    seen = {workers: [round(each, 1) for each in rates] for workers, rates in found.items()}
    print(
        f"- {FILES} JPEGs of 1080x1080: {one:.1f} a second with one worker, {two:.1f} with two: {two / one:.2f} (wanted"
    )
    print(f"  ≥ 1.7); {ROUNDS} rounds in turns, medians: {seen}")


async def measure(name: str, commits: str, cases: dict[str, Callable[[Here], Awaitable[None]]]) -> None:
    """Each case on servers of its own."""
    for case, run in cases.items():
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="adexport-bench-")))
            print(f"\n## {case}, {name}\n", flush=True)
            await run(await place_of(name, commits, stack, folder))


async def place_of(name: str, commits: str, stack: ExitStack, folder: Path) -> Here:
    """Start the servers that a topology needs."""
    store = own_postgres(stack, folder)
    if commits == "memory":
        async with load.connected(store) as connection:
            await connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            await connection.execute("SELECT pg_reload_conf()")
    if name == "postgres":
        return Machine(folder=folder, store=store)
    aws, redis = AwsServer(folder).start(), Redis(folder / "redis").start()
    stack.callback(aws.kill)
    stack.callback(redis.kill)
    place = Place(name="bench", folder=folder, endpoint=aws.url, redis=redis.place, store=store)
    await prepare(place)
    return place


def main() -> None:
    """Measure what is asked for, and print it as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("storm", "page", "rate"))
    parser.add_argument("--topology", choices=("postgres", "cloud"))
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--commits", choices=("disk", "memory"), default="disk")
    options = parser.parse_args()
    os.environ.update(CREDENTIALS)
    for name, said in {**machine(), **installed("fastapi", "uvicorn", "asyncpg", "skia-python", "ministack")}.items():
        print(f"- {name}: {said}")
    cases: dict[str, Callable[[Here], Awaitable[None]]] = {
        "storm": lambda where: storm(where, options.count, options.seconds),
        "page": page,
        "rate": rate,
    }  # fmt: skip
    chosen = {name: run for name, run in cases.items() if options.only in (None, name)}
    for topology in ("postgres", "cloud"):
        if options.topology in (None, topology):
            asyncio.run(measure(topology, options.commits, chosen))


if __name__ == "__main__":
    main()
