"""One seed of sagas: answers that race time-outs, crashes, clocks that jump by a day, operators; then the checks."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from random import Random
from typing import Any

from tidings.backends.sqlite.statements.sagas import SagaStatements
from tidings.errors import OperationError
from tidings.events import Event
from tidings.operations import Filter, redrive, resume_saga
from tidings.rows import STUCK, SagaRow
from tidings.service import Service
from tidings.testing.simulation import saga_checks
from tidings.testing.simulation.planting import Patch, planted
from tidings.testing.simulation.process import Process
from tidings.testing.simulation.run import Report, Simulation
from tidings.testing.simulation.saga_mutants import SAGA_MUTANTS
from tidings.testing.simulation.saga_workload import (
    LIMIT,
    SOURCE,
    STEPS,
    UNDOABLE,
    Offered,
    Ordered,
    Trouble,
    Wanted,
    declare,
)
from tidings.testing.simulation.sweep import sweep
from tidings.testing.unfinished import unfinished

DAY = timedelta(days=1)

MENDED_CLOCK = 3 * DAY
"""In the end every clock is so far ahead that whatever was scheduled by one that had jumped is due."""


def simulate_sagas(seed: int, mutant: str | None = None) -> Report:
    """Run one seed, maybe with a bug planted (see saga_mutants.py), and check every saga."""
    with planted(mutant, SAGA_MUTANTS):
        simulation = SagaSimulation(seed)
        simulation.report.mutant = mutant
        try:
            with simulation.others_faster():
                return simulation.run()
        finally:
            simulation.close()


def sweep_sagas(seeds: Iterable[int], *, jobs: int = 1, mutant: str | None = None) -> Iterator[Report]:
    """Yield the report of every seed, in their order."""
    return sweep(seeds, jobs=jobs, mutant=mutant, run=simulate_sagas)


def sagas_killing(mutant: str, seeds: Iterable[int]) -> Report | None:
    """Return the report of the first of some seeds that finds a planted bug; None if all of them miss it."""
    return next((report for seed in seeds if (report := simulate_sagas(seed, mutant)).violations), None)


class SagaSimulation(Simulation):
    """Everything of one seed; what it does with processes is as in `Simulation`."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.report.of = " --sagas"
        self._jump = timedelta(0)
        self._mended = False
        self._draw = Random(self.random.random())
        self._conflicts = self._draw.choice((0.0, 0.1))
        self._resumed: Counter[str] = Counter()
        self._count = 0

    async def _run(self) -> None:
        slots = self.random.choice((1, 2, 2, 3))
        seconds = self.random.choice((3.0, 10.0, 20.0))
        running = [asyncio.ensure_future(self._slot(number)) for number in range(slots)]
        faults = asyncio.ensure_future(self._faults(seconds))
        clients = [self._client(self._draw.random() * seconds) for _ in range(self._draw.randint(2, 6))]
        await asyncio.gather(faults, *clients)
        await self._heal()
        await self._drain_all()
        await self._check_sagas("after healing", repaired=False)
        self._mended = True
        await self._resume_stuck()
        await self._drain_all()
        await self._check_sagas("after resuming", repaired=True)
        self._over = True
        for process in self._processes:
            process.kill("the end")
        await asyncio.gather(*running)

    async def _live(self, process: Process, release: int) -> None:
        process.clock_error = self._jump
        service = process.make_service(SOURCE, self._file, self._is_alive)
        service.store.cheap_savepoints = self.report.seed % 3 > 0
        declare(service, lambda: self._mended, Random(self._draw.random()))
        await process.live(service.running(), late_commits=self._late_commits)

    @contextmanager
    def others_faster(self) -> Iterator[None]:
        """Let a saga be changed by another transaction meanwhile, now and then: here only one can write at a time."""
        save = SagaStatements.save_saga

        async def save_saga(statements: SagaStatements, row: SagaRow) -> bool:
            return self._draw.random() >= self._conflicts and await save(statements, row)

        patches: list[Patch] = [(SagaStatements, "save_saga", save_saga)]
        with planted("faster", {"faster": lambda: patches}):
            yield

    # Who uses it.

    async def _client(self, when: float) -> None:
        await asyncio.sleep(when)
        self._count += 1
        if self._draw.random() < 0.3:
            await self._quote(f"q-{self._count}")
            return
        ordered = Ordered(order_id=f"o-{self._count}", troubles=self._troubles())
        await self._publish(ordered)
        if self._draw.random() < 0.2:
            await self._publish(ordered)  # a user who has clicked twice

    async def _quote(self, quote_id: str) -> None:
        wanted = self._draw.randint(1, 3)
        await self._publish(Wanted(quote_id=quote_id, offers=wanted))
        for number in range(wanted + self._draw.choice((-1, 0, 1, 2))):
            await asyncio.sleep(self._draw.choice((0.0, 0.1, LIMIT - 0.1, LIMIT)))
            await self._publish(Offered(quote_id=quote_id, supplier=f"s-{number}"))

    def _troubles(self) -> dict[str, Trouble]:
        draw = self._draw
        ways = ("ok", "ok", "ok", "twice", "fail", "silent", "deaf")
        troubles = {step: draw.choice(ways) for step in STEPS if draw.random() < 0.5}
        troubles |= {f"undo {step}": draw.choice(ways) for step in UNDOABLE if draw.random() < 0.4}
        return {name: Trouble(how, self._delay(), draw.choice((0, 0, 0, 1, 3))) for name, how in troubles.items()}

    def _delay(self) -> float:
        """Return when an answer comes: at once, at about the time-out, or long after it."""
        return self._draw.choice((0.0, 0.0, LIMIT - 0.01 + self._draw.random() * 0.02, LIMIT + 3))

    async def _publish(self, event: Event) -> None:
        """Publish as a client does that gives up when it gets no answer: then it may have been, or not."""
        process = self._pick()
        if process is None or process.service is None:
            return
        task = process.make(_quietly(process.service, event))
        dead = asyncio.ensure_future(process.death.wait())
        await asyncio.wait([dead, task], timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()

    def _pick(self) -> Process | None:
        able = [process for process in self._processes if process.alive and process.started]
        return self._draw.choice(able) if able else None

    # Faults.

    async def _faults(self, seconds: float) -> None:
        kinds: tuple[Callable[[], Awaitable[None]], ...] = (self._kill, self._freeze, self._stop, self._leap)
        chosen = self.random.choices(kinds, (3, 1, 1, 3), k=self.random.choice((0, 1, 3, 5)))
        await asyncio.gather(*[self._at(self.random.random() * seconds, fault) for fault in chosen])

    async def _leap(self) -> None:
        """Set the clock of the computer, on which all processes run, a day forward or back."""
        self._set_clocks(self._jump + self._draw.choice((DAY, -DAY)))

    def _set_clocks(self, to: timedelta) -> None:
        self._jump = to
        for process in self._processes:
            process.clock_error = to

    async def _heal(self) -> None:
        self._healed = True
        for process in self._processes:
            process.crash_after = None
        self._set_clocks(MENDED_CLOCK)
        while not any(process.alive and process.started for process in self._processes):  # noqa: ASYNC110
            await asyncio.sleep(0.5)

    async def _resume_stuck(self) -> None:
        """Resume every stuck saga, as an operator does once the services are well again."""
        process = self._pick()
        assert process is not None
        assert process.service is not None
        store = process.service.store
        for row in await store.reading.sagas("order", [STUCK], ("", ""), 1000):
            self._resumed[row.id] += 1
            asked: dict[str, Any] = {"actor": "ann", "reason": "mended", "now": process.service.world.now()}
            with suppress(OperationError):
                await process.make(resume_saga(store, "order", row.id, **asked))

    # The end.

    async def _drain_all(self) -> None:
        """Drain, and redrive what died of a clock's leap: workers then take each other for dead, more than once."""
        for _ in range(10):
            await self._drain()
            process = self._pick()
            assert process is not None
            assert process.service is not None
            store, now = process.service.store, process.service.world.now()
            done = [
                (await process.make(redrive(store, Filter(subscription=name), actor="ann", now=now))).done
                for name in ("order", "quote", "parts")[: 3 if self._mended else 2]
            ]
            if not any(done) and await self._is_drained():  # what a client gave up may have been published meanwhile
                return

    async def _is_drained(self) -> bool:
        async with self._looking() as store:
            statements = store.reading
            return not await unfinished(statements) and await statements.next_scheduled() is None

    async def _check_sagas(self, when: str, *, repaired: bool) -> None:
        async with self._looking() as store:
            facts = await saga_checks.collect(store.reading, self._resumed)
            left = await unfinished(store.reading)
            scheduled = await store.reading.next_scheduled()
        self.report.events = sum(len(log) for log in facts.log.values())
        broken = [*saga_checks.check(facts, repaired=repaired)]
        broken += ["something is left to do"] if left or scheduled is not None else []
        self.report.violations += [f"{when}: {one}" for one in broken]


async def _quietly(service: Service, event: Event) -> None:
    with suppress(Exception):
        await service.publish(event)
