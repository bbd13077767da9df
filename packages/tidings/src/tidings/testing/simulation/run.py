"""One seed: processes on one file, clients, faults, healing, then the checks. Only the world is made up."""

import asyncio
import logging
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from random import Random

from msgspec import Struct, field

from tidings import points
from tidings.backends.sqlite import open_store
from tidings.consuming import worker
from tidings.rows import PARKED
from tidings.service import uuid7_ids
from tidings.store import Store
from tidings.testing.simulation import checks
from tidings.testing.simulation.clients import Clients
from tidings.testing.simulation.loop import GROUP, SimulatedLoop, StuckError, bury
from tidings.testing.simulation.mutants import planted
from tidings.testing.simulation.network import Network, SimulatedTransport
from tidings.testing.simulation.process import EPOCH, Crash, Process
from tidings.testing.simulation.workload import SOURCE, SUBSCRIPTIONS, Options, Witness, declare, subscribed
from tidings.testing.unfinished import unfinished
from tidings.world import World

LONGEST_DRAIN = 900.0
"""Virtual seconds after the healing within which everything must be settled."""

LOOKS = (0.03, 0.4)
"""Seconds between looks for other processes' commits here: looking is most of what an idle simulation does."""


LANES = 4
"""Lanes of the simulated log: a few are enough to be shared out, and fewer rows make a seed cheaper."""


class Report(Struct):
    """What one seed brought. `trace` is equal for equal seeds; `violations` are the promises that were broken."""

    seed: int
    violations: list[str] = field(default_factory=list)
    mutant: str | None = None
    trace: int = 0
    steps: int = 0
    seconds: float = 0.0
    events: int = 0
    crashes: list[str] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)
    of: str = ""

    @property
    def replay(self) -> str:
        """The command that runs this seed again, step by step the same."""
        planted_bug = f" --mutant {self.mutant}" if self.mutant is not None else ""
        return f"python -m tidings.testing.simulation{self.of} --seed {self.seed}{planted_bug}"

    def __str__(self) -> str:
        """Say what happened, and how to see it again."""
        head = f"seed {self.seed}: {self.events} events, {len(self.crashes)} crashes at points, {self.seconds:.0f} s"
        return "\n  ".join([f"{head}, trace {self.trace:08x}", *self.violations, f"again: {self.replay}"])


def simulate(seed: int, mutant: str | None = None) -> Report:
    """Run one seed, maybe with a bug planted (see mutants.py), and check every promise.

    The same seed does the same, step by step.
    """
    with planted(mutant):
        simulation = Simulation(seed)
        simulation.report.mutant = mutant
        try:
            return simulation.run()
        finally:
            simulation.close()


@lru_cache(maxsize=1)
def _template() -> bytes:
    """Return an empty database with every table, made once: migrating costs more than a simulation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "template.db")
        world = World(lambda: EPOCH, Random(0), uuid7_ids)

        async def make() -> None:
            store = open_store(f"sqlite+apsw:///{path}", world)
            store.lanes = LANES
            await store.open(migrate=True)
            await store.close()

        asyncio.run(make())
        return path.read_bytes()


class Simulation:
    """Everything of one seed. Only one may run at a time in a Python process: the points are watched globally."""

    def __init__(self, seed: int) -> None:
        self.report = Report(seed)
        draw = self.random = Random(seed)
        self.loop = SimulatedLoop(Random(draw.random()), draw.choice((0.0, 0.5, 0.9)))
        memory = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="tidings-sim-", dir=memory if memory.is_dir() else None))
        self._file = self._folder / "sim.db"
        self._file.write_bytes(_template())
        self._processes: list[Process] = []
        self._pids: Counter[int] = Counter()
        self._late_commits = draw.random() < 0.5
        self._options = Options(
            names=tuple(sorted(draw.sample(list(SUBSCRIPTIONS), draw.choice((1, 2, 2, 3))))),
            after_dead=draw.choice(("block", "block", "continue")),
            pause_after=draw.choice((None, None, None, 20, 4)),
            concurrency=draw.choice((1, 3, 20)),
            lengthy=draw.choice((0.0, 0.1, 0.5)),
        )
        self._focus = dict.fromkeys(draw.sample(points.POINTS, draw.choice((0, 1, 2))), 0.2)
        self._crashes_left = draw.choice((0, 1, 2, 4))
        self._first_release = self._release = draw.choice((1, 1, 2))
        self._side_by_side = False
        self._deployed = asyncio.Event()
        self._deployed.set()
        self._with_relay = draw.random() < 0.7
        self._over = False
        self._healed = False

    # Running.

    def run(self) -> Report:
        """Run to the end, and return what it brought."""
        asyncio.set_event_loop(self.loop)
        with _watched(self._visit), _quiet():
            try:
                self.loop.run_until_complete(self._run())
            except StuckError as error:
                self.report.violations.append(f"stuck: {error}")
        self.report.steps, self.report.seconds = self.loop.steps, self.loop.time()
        return self.report

    async def _run(self) -> None:
        self.network = Network(self.loop, Random(self.random.random()))
        self.network.failing = self.random.choice((0.0, 0.0, 0.2))
        self.witness = Witness(Random(self.random.random()))
        slots = self.random.choice((1, 2, 2, 2, 3, 4))
        poison = self.random.random() < 0.25
        self.clients = Clients(Random(self.random.random()), self.network, self._pick, self._options.names, poison)
        running = [asyncio.ensure_future(self._slot(number)) for number in range(slots)]
        seconds = self.random.choice((1.0, 5.0, 12.0))
        faults = asyncio.ensure_future(self._faults(seconds))
        rolls = self._release == 1 and self.random.random() < 0.7
        rolling = asyncio.ensure_future(self._at(self.random.random() * seconds, self._roll)) if rolls else faults
        await self.clients.work(self.random.randint(2, 10), seconds)
        await asyncio.gather(faults, rolling)
        await self._heal()
        await self._drain()
        await self._check("after healing")
        self.witness.mended = self.random.random() < 0.7
        await self.clients.repair()
        await self._drain()
        await self._check("after redriving")
        self._over = True
        for process in self._processes:
            process.kill("the end")
        await asyncio.gather(*running)

    async def _slot(self, number: int) -> None:
        """Keep one process running, as a supervisor does."""
        while not self._over:
            await self._deployed.wait()
            process = self._start(number)
            await process.death.wait()
            self._note(f"{number} died: {process.killed_at}")
            if not self._over:
                await asyncio.sleep(self.random.random() * self.random.choice((0.1, 3.0)))

    def _start(self, number: int) -> Process:
        # In a container every process has the same id; elsewhere each gets a new one.
        pid = number + 1 if self.random.random() < 0.3 else 100 + len(self._processes)
        process = Process(number, pid, self.loop, Random(self.random.random()))
        self._processes.append(process)
        if not self._healed and self.random.random() < 0.15:
            process.crash_after = int(self.random.random() * 300)
        process.make(self._live(process, self.random.choice((1, 2)) if self._side_by_side else self._release))
        return process

    async def _live(self, process: Process, release: int) -> None:
        service = process.make_service(SOURCE, self._file, self._is_alive)
        process.release = release
        service.store.cheap_savepoints = self.report.seed % 3 > 0
        service.store.batch = service.store.batch if self.report.seed % 2 else 1  # after a full one is read ahead
        declare(service, self.witness, self._options, release)
        service.transport = service.inward = SimulatedTransport(self.network)
        await process.live(service.running(relay=self._with_relay), late_commits=self._late_commits)

    def _is_alive(self, pid: int) -> bool:
        return any(process.alive and process.pid == pid for process in self._processes)

    def _pick(self) -> Process | None:
        able = [process for process in self._processes if process.alive and process.started]
        return self.clients.random.choice(able) if able else None

    # Faults.

    def _visit(self, point: str) -> None:
        process = GROUP.get()
        self.report.points[point] += 1
        if not isinstance(process, Process) or not process.alive:
            return
        self._note(f"{process.number} {point}")
        if self._healed or self._crashes_left <= 0:
            return
        if self.random.random() < self._focus.get(point, 0.002):
            self._crashes_left -= 1
            self.report.crashes.append(point)
            process.kill(point)
            raise Crash(point)

    def _note(self, what: str) -> None:
        self.report.trace = zlib.crc32(f"{self.loop.time():.6f} {what}".encode(), self.report.trace)

    async def _faults(self, seconds: float) -> None:
        """Kill, freeze, stop and mislead processes at random times; operators get in the way too."""
        kinds = (self._kill, self._freeze, self._stop, self._mislead, self.clients.operate)
        chosen = self.random.choices(kinds, (2, 2, 1, 2, 2), k=self.random.choice((0, 1, 3, 5)))
        await asyncio.gather(*[self._at(self.random.random() * seconds, fault) for fault in chosen])

    async def _at(self, when: float, fault: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(when)
        await fault()

    async def _kill(self) -> None:
        if (process := self._pick()) is not None:
            process.kill("killed from outside")

    async def _freeze(self) -> None:
        """Stop a process for longer than its lease, often: then it goes on as if nothing had happened."""
        if (process := self._pick()) is None:
            return
        for _ in range(self.random.choice((0, 500))):
            if process.waits_to_write:  # with what it has read before, and maybe owns no more when it goes on
                break
            await asyncio.sleep(0.002)
        process.frozen = True
        await asyncio.sleep(self.random.random() * 20)
        self.loop.thaw(process)

    async def _stop(self) -> None:
        if (process := self._pick()) is not None:
            process.stopping.set()

    async def _mislead(self) -> None:
        """Let the clock of a process be wrong for a while."""
        if (process := self._pick()) is None:
            return
        process.clock_error = timedelta(seconds=self.random.choice((-20, -2, 2, 20, 20)))
        await asyncio.sleep(2 + self.random.random() * 6)
        process.clock_error = timedelta(0)

    async def _roll(self) -> None:
        """Let two releases run side by side from now on: each process that starts is of one of them."""
        self._side_by_side = not self._healed
        await self._stop()

    # The end.

    async def _heal(self) -> None:
        """From now on nothing fails by itself; every process is of the second release, and nothing is paused."""
        self._healed = True
        self.network.failing = 0.0
        for process in self._processes:
            process.crash_after = None
        if self._release == 1:
            await self._deploy()
        while not any(process.alive and process.started for process in self._processes):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await self.clients.resume_all()

    async def _deploy(self) -> None:
        """Stop every process, then start the second release; or let it take over from the first one by one."""
        if self._side_by_side:
            self._side_by_side, self._release = False, 2
        else:
            self._deployed.clear()
        for process in self._processes:
            if process.release != self._release or not self._deployed.is_set():
                process.stopping.set()
        for process in self._processes:
            if process.stopping.is_set():
                await process.death.wait()
        self._release = 2
        self._deployed.set()

    async def _drain(self) -> None:
        """Wait until nothing is left to do, as the store says; not longer than LONGEST_DRAIN."""
        until, pause = self.loop.time() + LONGEST_DRAIN, 0.5
        while self.loop.time() < until:
            if await self._is_drained():
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 10.0)

    async def _is_drained(self) -> bool:
        if self.network.waiting:
            return False
        async with self._looking() as store:
            statements = store.reading
            left = [one for one in await unfinished(statements) if self._with_relay or one.subscription != checks.RELAY]
            rows = await statements.letters([PARKED], None, 0, 1000)
            records = await statements.records([row.position for row in rows])
            parked = [one for one in records.values() if one.envelope.type in self._types()]
            return not left and not parked and await statements.next_scheduled() is None

    def _types(self) -> set[str]:
        return {one for name in self._options.names for one in SUBSCRIPTIONS[name][1]}

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[Store]:
        """Look at the file as somebody outside every process does."""
        store = open_store(f"sqlite+apsw:///{self._file}", World(lambda: EPOCH, Random(0), uuid7_ids))
        await store.open(migrate=False, read_only=True)
        try:
            yield store
        finally:
            await store.close()

    async def _check(self, when: str) -> None:
        async with self._looking() as store:
            facts = await checks.collect(store.reading, subscribed(self._options.names, self._first_release))
            some = self.random.sample(facts.log, min(2, len(facts.log)))
            explained = [one for seen in some for one in await checks.explained(store, facts, seen)]
            broken = [
                *explained,
                *checks.all_or_nothing(facts, self.clients.history),
                *checks.effects_once(facts),
                *checks.ordered(facts, self._options.after_dead),
                *checks.stable_ids(facts, self.witness.calls),
                *checks.kept(facts),
                *(checks.relayed(facts, self.network) if self._with_relay else ()),
                *checks.drained(facts, self._types(), self._with_relay),
            ]
        self.report.events = len(facts.log)
        self.report.violations += [f"{when}: {one}" for one in broken]

    def close(self) -> None:
        """Bury what the processes left, and remove the file."""
        for process in self._processes:
            process.kill("the end")
            bury(process.tasks)
        self.loop.close()
        asyncio.set_event_loop(None)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _watched(visit: Callable[[str], None]) -> Iterator[None]:
    points.watch(visit)
    before = worker.FIRST_LOOK, worker.LONGEST_LOOK
    worker.FIRST_LOOK, worker.LONGEST_LOOK = LOOKS
    try:
        yield
    finally:
        worker.FIRST_LOOK, worker.LONGEST_LOOK = before
        points.watch(None)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the product logs about crashes and retries is expected here."""
    log = logging.getLogger("tidings")
    level, log_level = log.level, logging.getLogger("asyncio").level
    log.setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
        logging.getLogger("asyncio").setLevel(log_level)
