"""Kills a running service over and over, each time at a named point, then lets it drain; prints what was hit as JSON.

    python storm.py FOLDER STORE PROCESSES HITS SEED [ADMIN]

With ADMIN, the URL of another database on the same Postgres, connections to the store are cut all the time, too.
Processes are forked from this one, which has everything imported and no file open: a start costs milliseconds. A
process kills itself with SIGKILL at the n-th visit of its point, so nothing of it runs any further.
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
from pathlib import Path
from random import Random

from cuts import cut_for_ever, let_in
from storm_service import CLIENT_SECONDS, Client, Operator, is_drained, kind_of, make_service

from tidings import points
from tidings.consuming import leases
from tidings.errors import StoreUnavailableError

OVERDUE_SECONDS = 6.0
"""A process that has not reached its point by then is ended, and the point is tried again later."""

TRIES = 3
"""How often a point may be tried for each hit that is wanted."""

DRAIN_SECONDS = 60.0
BEAT_SECONDS = 0.3
"""Shorter than in production, so that four processes notice each other's deaths within the test."""


def visits(random: Random, point: str) -> int:
    """Return at which visit of a point to die: rare points soon, the others a little later."""
    return random.randint(1, 2 if point.startswith(("redrive", "work.failed", "lane.taken")) else 5)


def kill_at(point: str, visit: int) -> None:
    """Kill this process at the n-th visit of a point."""
    left = visit

    def visited(reached: str) -> None:
        nonlocal left
        left -= reached == point
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    points.watch(visited)


async def live(folder: Path, store: str, random: Random, clients: int) -> None:
    """Run the service with clients and an operator until killed. A start that was cut off is made again."""
    seconds = CLIENT_SECONDS[kind_of(store)]
    while True:
        try:
            async with make_service(folder, store) as service:
                client = Client(service, folder, random, clients, seconds)
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
    pid = None if admin is None else fork(lambda: asyncio.run(cut_for_ever(admin, store, log)))
    try:
        yield lambda: sum(map(int, log.read_text().split()))
    finally:
        if pid is not None and admin is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            asyncio.run(let_in(admin, store))


class Storm:
    """Keeps so many processes alive until every point was hit often enough, or was tried often enough."""

    def __init__(self, folder: Path, store: str, processes: int, hits: int, seed: int) -> None:
        self._folder = folder
        self._store = store
        self._processes = processes
        self._random = Random(seed)
        self._wanted = [point for point in points.POINTS for _ in range(hits)]
        self._random.shuffle(self._wanted)
        self._tries = len(self._wanted) * TRIES
        self._running: dict[int, tuple[str, float]] = {}
        self.hits: Counter[str] = Counter()
        self.overdue: Counter[str] = Counter()
        self.crashed: list[str] = []

    def blow(self) -> None:
        """Start and kill until all is hit."""
        while (self._wanted and self._tries) or self._running:
            while self._wanted and self._tries and len(self._running) < self._processes:
                self._start(self._wanted.pop())
            self._end_overdue()
            self._reap()
            time.sleep(0.002)

    def _start(self, point: str) -> None:
        self._tries -= 1
        visit, random = visits(self._random, point), Random(self._random.getrandbits(64))

        def life() -> None:
            kill_at(point, visit)
            asyncio.run(live(self._folder, self._store, random, self._processes))

        self._running[fork(life)] = (point, time.monotonic())

    def _end_overdue(self) -> None:
        for pid, (point, started) in self._running.items():
            if point and time.monotonic() - started > OVERDUE_SECONDS:
                os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        pid, status = os.waitpid(-1, os.WNOHANG) if self._running else (0, 0)
        if not pid:
            return
        point, _ = self._running.pop(pid)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.hits[point] += 1
            return
        self._wanted.insert(0, point)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM:
            self.overdue[point] += 1
        else:
            self.crashed.append(f"on the way to {point}: {os.waitstatus_to_exitcode(status)}")
            self._tries = 0  # a defect, not the storm: no need to see it again

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
    folder, store, processes, hits, seed = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    leases.BEAT_SECONDS = BEAT_SECONDS
    storm = Storm(folder, store, processes, hits, seed)
    began = time.monotonic()
    with cutting(folder, store, sys.argv[6] if len(sys.argv) > 6 else None) as cuts:
        storm.blow()
    blown = time.monotonic()
    drained = storm.calm()
    report = {
        "hits": storm.hits,
        "overdue": storm.overdue,
        "crashed": storm.crashed,
        "drained": drained,
        "cuts": cuts(),
        "seconds": {"storm": round(blown - began, 1), "calm": round(time.monotonic() - blown, 1)},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
