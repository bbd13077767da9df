"""Measures the event store beside the `eventsourcing` library and raw drivers, on Postgres and SQLite, in one run.

python benchmarks/sourcing.py [--rounds 7] [--short] [--quick] [--only WORD] [--server URL]. What each figure
means and what was seen: docs/reference/benchmarks-sourcing.md.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import msgspec
import ours_sourcing
from frame import Case, Goal, installed, machine, print_report, run_rounds
from postgres_server import running

HERE = Path(__file__).resolve().parent
PEER = HERE.parent / ".venv-bench/eventsourcing/bin/python"
WRITERS = (1, 8)
Figures = Mapping[str, Sequence[float]]
Fresh = Callable[[], AbstractContextManager[str]]


class Sizes(msgspec.Struct, frozen=True):
    """How much each case does in a round."""

    appended: int
    bulk: int
    replayed: int
    loaded: int
    racing: int


FULL = Sizes(1_600, 20_000, 100_000, 1_000, 8_000)
SHORT = Sizes(320, 8_000, 20_000, 1_000, 1_600)
QUICK = Sizes(80, 2_000, 2_000, 100, 320)


@contextmanager
def sqlite_file() -> Iterator[str]:
    """Give the URL of a SQLite file that is not there yet; remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        yield f"sqlite:///{folder}/bench.db"


class Bench:
    """The cases on one store; each run has a fresh database."""

    def __init__(self, store: str, fresh: Fresh, sizes: Sizes, versions: dict[str, str]) -> None:
        self._store = store
        self._fresh = fresh
        self._sizes = sizes
        self._versions = versions

    def cases(self) -> dict[str, Case]:
        """Return every case by name."""
        sizes = self._sizes
        found = {}
        for writers in WRITERS:
            run = partial(ours_sourcing.append, writers=writers, count=sizes.appended)
            found[f"append {writers}"] = self._ours(f"append, {writers} writers", run)
            found[f"append {writers} eventsourcing"] = self._theirs(f"append-{writers}", sizes.appended)
        found["bulk"] = self._ours("append, 1,000 at a time", partial(ours_sourcing.bulk, count=sizes.bulk))
        found["bulk eventsourcing"] = self._theirs("bulk", sizes.bulk)
        found["replay"] = Case(self._replay)
        found["replay eventsourcing"] = self._theirs("replay", sizes.replayed)
        found["load"] = Case(self._load)
        found["load eventsourcing"] = self._theirs("load", sizes.loaded)
        if self._store == "Postgres":
            found["missed"] = Case(self._missed)
        return {f"{self._store} {name}": case for name, case in found.items()}

    def _ours(self, name: str, run: Callable[[str], "asyncio.Future[float]"]) -> Case:
        def measure() -> Figures:
            with self._fresh() as url:
                return {f"{self._store}, {name}: tidings": [asyncio.run(run(url))]}  # type: ignore[arg-type]

        return Case(measure)

    def _replay(self) -> Figures:
        with self._fresh() as url:
            rates = asyncio.run(ours_sourcing.replay(url, self._sizes.replayed))
        return {f"{self._store}, replay: {name}": [rate] for name, rate in rates.items()}

    def _load(self) -> Figures:
        with self._fresh() as url:
            taken = asyncio.run(ours_sourcing.load(url, self._sizes.loaded))
        return {f"{self._store}, {name}: tidings": values for name, values in taken.items()}

    def _missed(self) -> Figures:
        with self._fresh() as url:
            written, missed = asyncio.run(ours_sourcing.race(url, self._sizes.racing))
        return {"Postgres, events written while read: tidings": [written], "Postgres, events missed: tidings": [missed]}

    def _theirs(self, case: str, count: int) -> Case:
        names = {
            "append-1": "append, 1 writers",
            "append-8": "append, 8 writers",
            "bulk": "append, 1,000 at a time",
        }

        def measure() -> Figures:
            with self._fresh() as url:
                command = [str(PEER), str(HERE / "peers/store_eventsourcing.py"), url, case, str(count)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
            told = json.loads(done.stdout)
            self._versions["eventsourcing"] = told["version"]
            return {
                f"{self._store}, {names.get(name, name)}: eventsourcing": values
                for name, values in told["figures"].items()
            }

        return Case(measure)


def goals() -> Iterator[Goal]:
    """Yield what issue 5 asks for."""
    for store in ("Postgres", "SQLite"):
        for name, ratio in (
            ("append, 1 writers", 3),
            ("append, 8 writers", 8),
            ("append, 1,000 at a time", 3),
            ("replay", 3.5),
        ):
            yield Goal(f"{store}, {name}: tidings", (f"{store}, {name}: eventsourcing",), at_least=ratio)
        yield Goal(f"{store}, replay: tidings", (f"{store}, replay: raw",), at_least=0.5)
        for name in ("load", "load, snapshot"):
            yield Goal(f"{store}, {name}: tidings", (f"{store}, {name}: eventsourcing",), at_most=1)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--short", action="store_true", help="a fifth of the counts")
    parser.add_argument("--quick", action="store_true", help="small counts, one round: does everything run?")
    parser.add_argument("--only", default="", help="only cases whose name holds this word")
    parser.add_argument("--server", help="URL of a database on the Postgres server to measure on")
    options = parser.parse_args()
    if not PEER.exists():
        sys.exit(f"{PEER} is missing: run `make bench`, which installs the peers.")
    sizes = QUICK if options.quick else SHORT if options.short else FULL
    versions: dict[str, str] = {}
    with running(options.server) as server:
        cases = Bench("Postgres", server.database, sizes, versions).cases()
        cases.update(Bench("SQLite", sqlite_file, sizes, versions).cases())
        chosen = [case for name, case in cases.items() if options.only in name]
        results = run_rounds(chosen, 1 if options.quick else options.rounds)
        settings = {**machine(), **installed("tidings", "asyncpg", "msgspec"), **versions, **server.settings()}
    print_report(results, list(goals()), settings)


if __name__ == "__main__":
    main()
