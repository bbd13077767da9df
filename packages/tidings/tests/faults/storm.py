"""Kills a running service over and over, each time at a named point, then lets it drain; prints what was hit as JSON.

    python storm.py FOLDER STORE PROCESSES HITS KILLS CUTS SEED [ADMIN]

It ends once every point has had its HITS, all kills together are KILLS and there were CUTS.

With ADMIN, the URL of another database on the same Postgres, connections to the store are cut all the time, too. Where
ADMIN is the folder of a server's data, that server is crashed instead, and started again.
Processes are forked from this one, which has everything imported and no file open: a start costs milliseconds. A
process kills itself with SIGKILL at the n-th visit of one of the points that were not hit often enough yet, whichever
it comes to first; nothing of it runs any further.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cuts import bring_up, crash_for_ever, cut_for_ever, let_in
from storm_service import Client, Operator, is_drained, kind_of, make_service

from tidings import points
from tidings.consuming import leases
from tidings.errors import StoreUnavailableError

OVERDUE_SECONDS = 10.0
"""A process that has come to none of its points by then is ended."""

TRIES = 4
"""How many processes may live for each hit that is wanted."""

HITS_TO_A_POWER_CUT = {"sqlite": 1_000_000, "postgresql": 2}
"""Kind of store -> at every how many hits the other processes are killed too, as when a machine loses power. Not on
SQLite, where each point is hit so much more often that it would take too long."""

SHORT_LIVES, SHORT_SECONDS = 2, 0.5
"""After a loss of power so many processes in each place are killed before long, wherever they are: while they start,
or take over."""

DRAIN_SECONDS = 60.0
BEAT_SECONDS = 0.3
"""Shorter than in production, so that four processes notice each other's deaths within the test."""


def visits(random: Random, point: str) -> int:
    """Return at which visit of a point to die: rare points soon, the others a little later."""
    return random.randint(1, 2 if point.startswith(("redrive", "work.failed", "lane.taken")) else 5)


def kill_at(visits: dict[str, int], hits: Path) -> None:
    """Kill this process at the n-th visit of a point, whichever comes first; leave the point's name in a file."""
    left = Counter(visits)

    def visited(reached: str) -> None:
        left[reached] -= 1
        if left[reached] == 0:
            hits.joinpath(str(os.getpid())).write_text(reached)
            os.kill(os.getpid(), signal.SIGKILL)

    points.watch(visited)


async def live(folder: Path, store: str, random: Random, clients: int) -> None:
    """Run the service with clients and an operator until killed. A start that was cut off is made again."""
    while True:
        try:
            async with make_service(folder, store) as service:
                client = Client(service, folder, random, store, clients)
                await asyncio.gather(client.run(), Operator(service).run())
        except StoreUnavailableError as error:
            print("a start was cut off:", error, file=sys.stderr)
            await asyncio.sleep(0.1)


async def drain(folder: Path, store: str) -> None:
    """Run the service with an operator and no clients until everything is handled and sent."""
    async with make_service(folder, store) as service:
        operator = asyncio.create_task(Operator(service).run())
        while not operator.done() and not await is_drained(service, folder, store):  # noqa: ASYNC110 - others do it
            await asyncio.sleep(0.1)
        if operator.done():
            operator.result()
        operator.cancel()


def fork(life: Callable[[], None]) -> int:
    """Start a process that lives a life; return its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        life()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


@contextmanager
def cutting(folder: Path, store: str, admin: str | None) -> Iterator[Callable[[], int]]:
    """Cut connections meanwhile, from a process of its own; yields how many were cut so far. Without admin none are."""
    log = folder / "cuts.txt"
    log.touch()
    data = None if admin is None or "://" in admin else Path(admin)

    def life() -> None:
        crash_for_ever(data, store, log) if data is not None else asyncio.run(cut_for_ever(str(admin), store, log))

    pid = None if admin is None else fork(life)
    try:
        yield lambda: sum(map(int, log.read_text().split()))
    finally:
        if pid is not None and admin is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            bring_up(data) if data is not None else asyncio.run(let_in(admin, store))


@dataclass
class _Life:
    until: float
    short: bool
    ended: bool = False


class Storm:
    """Keeps so many processes alive until every point was hit often enough and enough were killed, or have lived.

    `cut_enough` says whether there were cuts enough as well.
    """

    def __init__(
        self, folder: Path, store: str, processes: int, hits: int, kills: int, cut_enough: Callable[[], bool], seed: int
    ) -> None:
        self._folder = folder
        self._store = store
        self._processes = processes
        self._random = Random(seed)
        self._wanted, self._kills_wanted, self._cut_enough = hits, kills, cut_enough
        self._lives = max(len(points.POINTS) * hits, kills) * TRIES
        self._running: dict[int, _Life] = {}
        self._reports = folder / "hits"
        self._reports.mkdir()
        self._to_a_power_cut = HITS_TO_A_POWER_CUT[kind_of(store)]
        self._short_lives = 0
        self.hits: Counter[str] = Counter()
        self.felled = 0
        self.overdue = 0
        self.crashed: list[str] = []

    def blow(self) -> None:
        """Start and kill until all is hit."""
        while (missing := self._missing()) and self._lives and not self.crashed:
            while len(self._running) < self._processes:
                self._start(missing)
            self._end_overdue()
            self._reap()
            time.sleep(0.002)
        self._lose_power()
        while self._running:
            self._end_overdue()
            self._reap()

    @property
    def kills(self) -> int:
        """How many processes were ended by SIGKILL so far."""
        return self.hits.total() + self.felled

    def _missing(self) -> list[str]:
        missing = [point for point in points.POINTS if self.hits[point] < self._wanted]
        enough = self.kills >= self._kills_wanted and self._cut_enough()
        return missing if missing or enough else list(points.POINTS)

    def _start(self, missing: list[str]) -> None:
        self._lives -= 1
        visiting = {point: visits(self._random, point) for point in missing}
        random = Random(self._random.getrandbits(64))

        def life() -> None:
            kill_at(visiting, self._reports)
            asyncio.run(live(self._folder, self._store, random, self._processes))

        short, self._short_lives = self._short_lives > 0, max(0, self._short_lives - 1)
        seconds = self._random.uniform(0, SHORT_SECONDS) if short else OVERDUE_SECONDS
        self._running[fork(life)] = _Life(time.monotonic() + seconds, short)

    def _end_overdue(self) -> None:
        for pid, life in self._running.items():
            if not life.ended and time.monotonic() > life.until:
                life.ended = True
                os.kill(pid, signal.SIGKILL if life.short else signal.SIGTERM)

    def _reap(self) -> None:
        pid, status = os.waitpid(-1, os.WNOHANG) if self._running else (0, 0)
        if not pid:
            return
        life, report = self._running.pop(pid), self._reports / str(pid)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if killed and report.exists():
            self.hits[report.read_text()] += 1
            report.unlink()
            if self.hits.total() % self._to_a_power_cut == 0:
                self._lose_power()
        elif killed:
            self.felled += 1
            self._lives += life.short
        elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM:
            self.overdue += 1
        else:
            self.crashed.append(str(os.waitstatus_to_exitcode(status)))  # a defect, not the storm

    def _lose_power(self) -> None:
        for life in self._running.values():
            life.until, life.short = 0.0, True
        self._short_lives = SHORT_LIVES * self._processes

    def calm(self) -> bool:
        """Let everything drain; say whether it did in time."""
        pids = [fork(lambda: asyncio.run(drain(self._folder, self._store))) for _ in range(self._processes)]
        until = time.monotonic() + DRAIN_SECONDS
        while pids and time.monotonic() < until:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                pids.remove(pid)
                if status:
                    self.crashed.append(f"while draining: {os.waitstatus_to_exitcode(status)}")
            time.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return not pids


def main() -> None:
    """Blow, calm down, and report."""
    folder, store = Path(sys.argv[1]), sys.argv[2]
    processes, hits, kills, wanted, seed = map(int, sys.argv[3:8])
    leases.BEAT_SECONDS = BEAT_SECONDS
    began = time.monotonic()
    with cutting(folder, store, sys.argv[8] if len(sys.argv) > 8 else None) as cuts:
        storm = Storm(folder, store, processes, hits, kills, lambda: cuts() >= wanted, seed)
        storm.blow()
    blown = time.monotonic()
    drained = storm.calm()
    report = {
        "hits": storm.hits,
        "kills": storm.kills,
        "overdue": storm.overdue,
        "crashed": storm.crashed,
        "drained": drained,
        "cuts": cuts(),
        "seconds": {"storm": round(blown - began, 1), "calm": round(time.monotonic() - blown, 1)},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
