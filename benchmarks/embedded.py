"""Measures Tidings on one SQLite file beside raw code on the same file, huey and DBOS, in one run.

python benchmarks/embedded.py [--rounds 7] [--quick] [--only WORD]. About four minutes. What each figure means and what
was seen: docs/reference/benchmarks.md. The neighbours' environments are made by `make bench`.
"""

import argparse
import asyncio
import json
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import ours
from frame import Case, Goal, installed, machine, print_report, run_rounds
from peers import raw_sqlite

from tidings import points

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = {"sqlite3": "sqlite", "apsw": "sqlite+apsw"}
CALLERS = (1, 64, 512)
RATES = (20, 100)
Figures = Mapping[str, Sequence[float]]


class Sizes(msgspec.Struct, frozen=True):
    """How much each case does in a round."""

    published: Mapping[int, int]
    drained: int
    work: int
    huey: int
    dbos: int
    seconds: float


FULL = Sizes({1: 200, 64: 12_800, 512: 20_480}, 20_000, 2_000, 4_000, 400, 1.0)
QUICK = Sizes({1: 20, 64: 640, 512: 1_024}, 400, 200, 200, 20, 0.2)


def store_url(library: str, file: Path) -> str:
    """Return the URL of a file, through `sqlite3` or `apsw`."""
    return f"{LIBRARIES[library]}:///{file}"


class Bench:
    """The cases, each in a fresh file below one folder."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._folder = folder
        self._sizes = sizes
        self._number = 0
        self.versions: dict[str, str] = {}

    def _file(self) -> Path:
        self._number += 1
        return self._folder / f"{self._number}.db"

    def _filled(self, library: str, count: int) -> Path:
        """Return a copy of a file whose log holds `count` events that nobody has handled."""
        template = self._folder / f"filled-{library}-{count}.db"
        if not template.exists():
            asyncio.run(ours.fill(store_url(library, template), count))
        return Path(shutil.copy(template, self._file()))

    # Publishing.

    def publish(self, library: str, callers: int) -> Figures:
        """Measure Tidings."""
        rate = asyncio.run(ours.publish(store_url(library, self._file()), callers, self._sizes.published[callers]))
        return {f"publish, {callers} callers: tidings, {library}": [rate]}

    def publish_raw(self, library: str, callers: int, writer: str) -> Figures:
        """Measure group commit of ready rows."""
        file, count = self._filled(library, 1), self._sizes.published[callers]
        rows = ready_rows(file, count)
        make = raw_sqlite.InlineWriter if writer == "inline" else raw_sqlite.ThreadWriter

        async def run() -> float:
            raw = make(raw_sqlite.connect(library, str(file)))

            async def each(part: Sequence[raw_sqlite.Row]) -> None:
                for row in part:
                    await raw.publish(row)

            began = time.perf_counter()
            await asyncio.gather(*(each(rows[caller::callers]) for caller in range(callers)))
            seconds = time.perf_counter() - began
            raw.close()
            return count / seconds

        return {f"publish, {callers} callers: raw {writer}, {library}": [asyncio.run(run())]}

    # Draining.

    def drain(self, library: str) -> Figures:
        """Measure an ordered Transaction handler that writes a row of its own for each event, and check the rows."""
        count = self._sizes.drained
        file = self._filled(library, count)
        rate = asyncio.run(ours.drain_with_effects(store_url(library, file), count))
        check_charges(library, file, count)
        return {f"drain, a write each: tidings, {library}": [rate]}

    def drain_raw(self, library: str, *, effect: bool, batch: int = raw_sqlite.BATCH) -> Figures:
        """Measure a plain loop over batches, and check its rows."""
        count = self._sizes.drained
        file = self._filled(library, count)
        connection = raw_sqlite.connect(library, str(file))
        decode = msgspec.json.Decoder(ours.OrderPlaced).decode
        seconds = raw_sqlite.drain(connection, decode, count, effect=effect, batch=batch)
        connection.close()
        if effect:
            check_charges(library, file, count)
        name = "raw" if batch == raw_sqlite.BATCH else f"raw by {batch}"
        return {f"drain, {'a write each' if effect else 'no-op'}: {name}, {library}": [count / seconds]}

    def drain_nothing(self, library: str, shape: str) -> Figures:
        """Measure a handler that does nothing."""
        count = self._sizes.drained if shape == "Transaction" else self._sizes.work
        store = store_url(library, self._filled(library, count))
        rate = asyncio.run(ours.drain_nothing(store, count, shape))
        return {f"drain, no-op: tidings {shape}, {library}": [rate]}

    def huey(self, fsync: int) -> Figures:
        """Measure huey."""
        return self._neighbour("huey", f"huey, {'fsync' if fsync else 'no fsync'}", self._sizes.huey, str(fsync))

    def dbos(self) -> Figures:
        """Measure DBOS."""
        return self._neighbour("dbos", "dbos", self._sizes.dbos)

    def _neighbour(self, package: str, name: str, count: int, *more: str) -> Figures:
        python = ROOT / ".venv-bench" / package / "bin" / "python"
        script = ROOT / "benchmarks" / "peers" / f"drain_{package}.py"
        command = [str(python), str(script), str(self._file()), str(count), *more]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.versions[package] = answer["version"]
        return {f"drain, no-op: {name}": [answer["rate"]]}

    # Latency.

    def latency(self, library: str, rate: int) -> Figures:
        """Measure Tidings at a steady rate."""
        count = max(5, int(rate * self._sizes.seconds))
        seen = asyncio.run(ours.latencies(store_url(library, self._file()), rate, count, points.watch))
        return {f"{since} → handler, {rate}/s: tidings, {library}": values for since, values in seen.items()}

    def latency_raw(self, library: str, rate: int) -> Figures:
        """Measure the raw loop at a steady rate."""
        file, count = self._filled(library, 1), max(5, int(rate * self._sizes.seconds))
        with sqlite3.connect(file) as connection:
            connection.execute("DELETE FROM tidings_log")
        seen = asyncio.run(raw_latencies(library, file, rate, count))
        return {f"{since} → handler, {rate}/s: raw, {library}": values for since, values in seen.items()}


async def raw_latencies(library: str, file: Path, rate: int, count: int) -> dict[str, list[float]]:
    """Return milliseconds from the call of publish, and from the commit, to the raw loop's handler."""
    moments = ours.Moments()
    loop = raw_sqlite.Loop(library, str(file), ours.OrderPlaced, moments.committed)
    rows = ready_rows(file, count)

    async def handle(event: ours.OrderPlaced) -> None:
        moments.handled[event.number] = time.perf_counter()

    running = asyncio.create_task(loop.run(handle))
    await moments.publish_steadily(lambda number: loop.publish(rows[number]), rate, count)
    running.cancel()
    await asyncio.wait([running])
    loop.close()
    return moments.milliseconds()


def ready_rows(file: Path, count: int) -> list[raw_sqlite.Row]:
    """Return rows as Tidings writes them, their ids fresh and their data encoded."""
    service = ours.service_on(store_url("sqlite3", file))
    rows = []
    for number in range(count):
        event = ours.order(number)
        data, moment = msgspec.json.encode(event), time.time_ns() // 1000
        event_id = service.world.fresh_id()
        routed = (number % 16, "bench.order.placed", "1", event_id, "bench", moment, None, event.order_id, None)
        rows.append((*routed, event_id, None, None, None, None, "forever", None, data))
    return rows


def check_charges(library: str, file: Path, count: int) -> None:
    """Exit unless each event has left exactly one row, those of a key in the order of the events."""
    connection: Any = sqlite3.connect(file) if library == "sqlite3" else apsw.Connection(str(file))
    charged = connection.execute("SELECT order_id, number FROM charge ORDER BY rowid").fetchall()
    connection.close()
    ours.check_charges(charged, count)


def cases_of(bench: Bench) -> dict[str, Callable[[], Figures]]:
    """Return every case by its name."""
    cases: dict[str, Callable[[], Figures]] = {}
    for library in LIBRARIES:
        for callers in CALLERS:
            cases[f"publish {callers} {library}"] = partial(bench.publish, library, callers)
            for writer in ("inline", "thread"):
                cases[f"publish {callers} {library} {writer}"] = partial(bench.publish_raw, library, callers, writer)
        cases[f"drain {library}"] = partial(bench.drain, library)
        cases[f"drain {library} raw"] = partial(bench.drain_raw, library, effect=True)
        cases[f"drain {library} raw by 200"] = partial(bench.drain_raw, library, effect=True, batch=200)
        cases[f"no-op {library} raw"] = partial(bench.drain_raw, library, effect=False)
        cases[f"no-op {library} Transaction"] = partial(bench.drain_nothing, library, "Transaction")
        cases[f"no-op {library} Work"] = partial(bench.drain_nothing, library, "Work")
        for rate in RATES:
            cases[f"latency {rate} {library}"] = partial(bench.latency, library, rate)
            cases[f"latency {rate} {library} raw"] = partial(bench.latency_raw, library, rate)
    return cases | neighbours_of(bench)


def neighbours_of(bench: Bench) -> dict[str, Callable[[], Figures]]:
    """Return the cases of those neighbours whose environment is there."""
    known: dict[str, dict[str, Callable[[], Figures]]] = {
        "huey": {f"no-op huey {fsync}": partial(bench.huey, fsync) for fsync in (0, 1)},
        "dbos": {"no-op dbos": bench.dbos},
    }
    here = [name for name in known if (ROOT / ".venv-bench" / name / "bin" / "python").exists()]
    return {case: measure for name in here for case, measure in known[name].items()}


def goals_of() -> list[Goal]:
    """Return what shall be reached."""
    goals = []
    for library in LIBRARIES:
        for callers, ratio in ((64, 0.35), (512, 0.5)):
            name = f"publish, {callers} callers:"
            raw = tuple(f"{name} raw {writer}, {library}" for writer in ("inline", "thread"))
            goals.append(Goal(f"{name} tidings, {library}", raw, at_least=ratio))
        name = "drain, a write each:"
        goals.append(Goal(f"{name} tidings, {library}", (f"{name} raw, {library}",), at_least=0.5))
        for neighbour, ratio in (("huey, no fsync", 6), ("huey, fsync", 11), ("dbos", 50)):
            figure = f"drain, no-op: tidings Transaction, {library}"
            goals.append(Goal(figure, (f"drain, no-op: {neighbour}",), at_least=ratio))
        for rate in RATES:
            figure = f"call → handler, {rate}/s: tidings, {library}"
            goals.append(Goal(figure, (f"call → handler, {rate}/s: raw, {library}",), at_most=1.3))
            goals.append(Goal(figure.replace("call", "commit"), at_most=5))
    return goals


def settings_of(bench: Bench) -> dict[str, str]:
    """Return versions and settings."""
    return {
        **machine(),
        "sqlite3": f"SQLite {sqlite3.sqlite_version}",
        "apsw": f"SQLite {apsw.sqlite_lib_version()}",
        **installed("tidings", "msgspec"),
        **bench.versions,
        "settings": "WAL, synchronous=FULL; "
        "batches of up to 200 events or 20 ms (raw: 50 events); Work: 20 at a time; huey: 1 worker thread",
    }


def main() -> None:
    """Run the rounds and print the report."""
    parser = argparse.ArgumentParser(description="Measure Tidings on SQLite beside raw code and its neighbours.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small round: does everything run?")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        bench = Bench(Path(folder), QUICK if args.quick else FULL)
        cases = [Case(measure) for name, measure in cases_of(bench).items() if args.only in name]
        results = run_rounds(cases, 1 if args.quick else args.rounds)
        print_report(results, goals_of(), settings_of(bench))


if __name__ == "__main__":
    main()
