"""Seeds of projections: versions are built beside each other, swapped and rebuilt under live appends and every fault.

Run by hand: `python -m tidings.testing.simulation.projections --seed N [--count M] [--mutant NAME]`.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

from tidings.consuming import projecting
from tidings.errors import OperationError, ProjectionLagError, TidingsError
from tidings.events import Registry, decode_event
from tidings.rows import BEHIND, DEAD, PARKED, RETRY, ProjectionRow, Record
from tidings.sourcing import replay
from tidings.statements import Statements
from tidings.testing.simulation.ledger import LEDGER, SOURCE, Chosen, Clients, Entered, Failures, State, declare, fold
from tidings.testing.simulation.planting import planted
from tidings.testing.simulation.process import Process
from tidings.testing.simulation.projection_mutants import MUTANTS
from tidings.testing.simulation.run import Report, Simulation
from tidings.testing.unfinished import every_record, unfinished

BATCH, PAGE = 3, 7
"""Events of a batch, and of a replay's page, here: a few, so that there are many of them."""

UNSETTLED = (RETRY, BEHIND, PARKED, DEAD)


class LedgerReport(Report):
    """What one seed of projections brought."""

    @property
    def replay(self) -> str:
        """The command that runs this seed again, step by step the same."""
        planted_bug = f" --mutant {self.mutant}" if self.mutant is not None else ""
        return f"python -m tidings.testing.simulation.projections --seed {self.seed}{planted_bug}"


def simulate_projections(seed: int, mutant: str | None = None) -> Report:
    """Run one seed, maybe with a bug planted; the same seed does the same, step by step."""
    with planted(mutant, MUTANTS), _small_pages():
        simulation = ProjectionSimulation(seed)
        simulation.report.mutant = mutant
        try:
            return simulation.run()
        finally:
            simulation.close()


@contextmanager
def _small_pages() -> Iterator[None]:
    before, projecting.PAGE = projecting.PAGE, PAGE
    try:
        yield
    finally:
        projecting.PAGE = before


class ProjectionSimulation(Simulation):
    """Processes of two releases on one file; the second has a further version, which an operator swaps in."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.report = LedgerReport(seed)
        draw = self.random
        self._draw = Random(draw.random())
        self._failures = Failures()
        self._chosen = Chosen(draw.random() < 0.5, draw.random() < 0.3, draw.random() < 0.5)
        self._ledger_clients = Clients(Random(draw.random()), self._chosen)
        self._with_relay = False
        self._release = self._first_release = 1
        self._seen: dict[str, int] = {}  # account -> entries that a query of the live ledger has shown
        self._registry = Registry()
        self._registry.register(Entered)

    # Running.

    async def _run(self) -> None:
        seconds = self._draw.choice((1.0, 4.0))
        running = [asyncio.ensure_future(self._slot(number)) for number in range(self._draw.choice((1, 2, 3)))]
        looking = asyncio.ensure_future(self._look(seconds))
        faults = [self._at(self._draw.random() * seconds, one) for one in self._some_faults()]
        rolling = self._at(self._draw.random() * seconds, self._roll)
        operating = [self._at(self._draw.random() * seconds * 1.5, self._operate) for _ in range(4)]
        publishing = [self._publish(seconds) for _ in range(self._draw.randint(5, 40))]
        await asyncio.gather(looking, rolling, *faults, *operating, *publishing)
        await self._end()
        self._over = True
        for process in self._processes:
            process.kill("the end")
        await asyncio.gather(*running)

    async def _end(self) -> None:
        self._healed = True
        for process in self._processes:
            process.crash_after = None
        await self._deploy()
        while self._pick() is None:  # noqa: ASYNC110 - a process that is up
            await asyncio.sleep(0.5)
        await self._drain()
        await self._operate(final=True)
        await self._drain()
        async with self._looking() as store:
            await self._compare(store.reading, at_the_end=True)

    def _some_faults(self) -> list[Callable[[], Awaitable[None]]]:
        kinds: Sequence[Callable[[], Awaitable[None]]] = (self._kill, self._freeze, self._stop, self._mislead)
        return list(self._draw.choices(kinds, (3, 2, 1, 1), k=self._draw.choice((0, 1, 3))))

    async def _live(self, process: Process, release: int) -> None:
        service = process.make_service(SOURCE, self._file, self._is_alive)
        process.release = release
        service.store.batch = BATCH
        declare(service, self._failures, self._chosen, release)
        await process.live(service, late_commits=self._late_commits)

    def _pick(self) -> Process | None:
        able = [process for process in self._processes if process.alive and process.started]
        return self._draw.choice(able) if able else None

    async def _publish(self, seconds: float) -> None:
        await asyncio.sleep(self._draw.random() * seconds)
        if (process := self._pick()) is not None and process.service is not None:
            await self._in(process, self._ledger_clients.publish(process.service))

    async def _operate(self, *, final: bool = False) -> None:
        """Swap to a version, or rebuild one that is not live, through some process; it may be too early."""
        if (process := self._pick()) is None or process.service is None:
            return
        store = process.service.store
        version = 2 if final else self._draw.choice((None, None, 1, 2))
        if not final and self._draw.random() < 0.3:
            await self._in(process, replay.rebuild(store, LEDGER, self._draw.choice((1, 2))))
        else:
            await self._in(process, replay.swap(store, LEDGER, version, patience=5.0 if final else 0.5))
        await self._check_now()

    async def _in(self, process: Process, call: Coroutine[Any, Any, Any]) -> None:
        """Do something in a process, which may die meanwhile."""
        task, death = process.make(call), asyncio.ensure_future(process.death.wait())
        await asyncio.wait([task, death], return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if task.done() and not task.cancelled():
            with suppress(ProjectionLagError, OperationError):
                error = task.exception()
                if error is not None and not isinstance(error, TidingsError):
                    self._note(f"a client's call failed: {error!r}")

    # Looking.

    async def _look(self, seconds: float) -> None:
        while self.loop.time() < seconds:
            await asyncio.sleep(self._draw.random() * 0.1)
            await self._check_now()

    async def _check_now(self) -> None:
        async with self._looking() as store:
            await self._compare(store.reading)

    async def _is_drained(self) -> bool:
        async with self._looking() as store:
            said = store.reading
            inline = [row for row in await said.projections() if await said.any_inline(row.subscription)]
            return not await unfinished(said) and not inline and await said.next_scheduled() is None

    async def _compare(self, said: Statements, *, at_the_end: bool = False) -> None:
        """Nothing is awaited here but a reader of its own, so no process goes on meanwhile: it is one moment."""
        entries = []
        for record in await every_record(said):
            event = decode_event(record.envelope, self._registry)
            assert isinstance(event, Entered)
            entries.append((record, event))
        self.report.events = len(entries)
        for row in await said.projections():
            handled = await self._handled(said, row, [record for record, _ in entries])
            expected = fold((e.account, e.number) for record, e in entries if record.position in handled)
            self._judge(row, await _table(said, row), expected)
            if at_the_end and len(handled) != len(entries):
                self._broken(f"{row.subscription} has handled {len(handled)} of {len(entries)} events in the end")
        if at_the_end and await said.live_version(LEDGER) != 2:
            self._broken("the second version could not be swapped in")
        await self._watch_queries(said)

    async def _handled(self, said: Statements, row: ProjectionRow, records: Sequence[Record]) -> set[int]:
        """Return the positions that the store says a version has handled: passed and not held, or inline."""
        progress = {step.lane: step.position for step in await said.steps(row.subscription)}
        held = {one.position for one in await said.letters(UNSETTLED, row.subscription, 0, 10_000)}
        _, marks = await said.query("SELECT id FROM tidings_inlined WHERE subscription = $1", [row.subscription])
        inline = {mark[0] for mark in marks}
        return {
            record.position
            for record in records
            if record.envelope.id in inline
            or (record.position <= progress.get(record.lane, 0) and record.position not in held)
        }

    def _judge(self, row: ProjectionRow, state: State, expected: State) -> None:
        for account in sorted(state.keys() | expected.keys()):
            if state.get(account) != expected.get(account):
                self._broken(
                    f"{row.subscription}: {account} is {state.get(account)}, but what was handled makes "
                    f"{expected.get(account)}"
                )

    async def _watch_queries(self, said: Statements) -> None:
        """What a query of the live version has shown once must not be gone later."""
        live = next((row for row in await said.projections() if row.name == LEDGER and row.live), None)
        state = await _table(said, live) if live is not None else {}
        for account, before in self._seen.items():
            now = state.get(account, (0, 0))[0]
            if now < before:
                self._broken(f"a query showed {before} entries of {account}, and later {now}")
        self._seen = {account: entries for account, (entries, _) in state.items()}

    def _broken(self, what: str) -> None:
        if len(self.report.violations) < 5:
            self.report.violations.append(f"at {self.loop.time():.2f} s: {what}")


async def _table(said: Statements, row: ProjectionRow) -> State:
    _, found = await said.query(f"SELECT account, entries, chain FROM {row.tables[0]}", [])
    return {one[0]: (one[1], one[2]) for one in found}


def killed_by(mutant: str, most: int) -> Report | None:
    """Return the report of the first seed, of so many, that finds a planted bug; None if all of them miss it."""
    reports = (simulate_projections(seed, mutant) for seed in range(most))
    return next((report for report in reports if report.violations), None)


def main() -> int:
    """Run the seeds that were asked for; print what broke, and return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m tidings.testing.simulation.projections", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="a bug to plant first")
    args = parser.parse_args()
    broken = 0
    for seed in range(args.seed, args.seed + args.count):
        report = simulate_projections(seed, args.mutant)
        broken += bool(report.violations)
        if report.violations or args.count == 1:
            print(report, flush=True)
    print(f"{broken} of {args.count} seeds broke a promise.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
