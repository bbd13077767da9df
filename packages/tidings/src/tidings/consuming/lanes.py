"""The lanes of one subscription that this worker owns: how far it is in each, and reading on from there."""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from tidings.errors import LeaseLostError
from tidings.points import reach
from tidings.rows import BarePage, LaneStep, Page, Record
from tidings.statements import Statements
from tidings.store import Store

LAG_KEPT = 1000
"""Positions that the written progress of a lane without events may lag behind what was looked at."""


class Care(Struct):
    """How many events are still run one by one, in all lanes together that were taken from one dead owner."""

    left: int


class Lane(Struct):
    """One lane: its newest step, the position written with it, and how far it was looked at."""

    step: int
    position: int
    seen: int


_Asked = tuple[int, Sequence[str] | None, list[int], int]
"""What one read of the log asks for: after which position, which types and lanes, how many at most."""

_Rebalanced = tuple[list[LaneStep], dict[int, Care], set[int], Sequence[str] | None]
"""The steps on which lanes were taken, how careful to be with those, which lanes were kept, and the stored types."""


class Lanes:
    """Owns lanes by the progress chain: whoever inserts the next step has the lane, so of two only one can commit."""

    def __init__(self, subscription: str, types: Sequence[str] | None, store: Store, worker: str) -> None:
        self._subscription = subscription
        self._types = types
        self._store = store
        self._worker = worker
        self._owned: dict[int, Lane] = {}
        self._history = store.history
        self._ahead: tuple[_Asked, asyncio.Task[Page]] | None = None
        # Of what stands in this worker's name, also while it has forgotten how far it was: it has not died meanwhile.
        self._cares: dict[int, Care] = {}

    @property
    def owned(self) -> list[int]:
        """Numbers of the owned lanes."""
        return list(self._owned)

    @property
    def calm_everywhere(self) -> bool:
        """True if no lane runs its events one by one."""
        return not any(self.careful(lane) for lane in self._owned)

    def careful(self, lane: int) -> bool:
        """Say whether a lane runs its events one by one."""
        return lane in self._owned and lane in self._cares and self._cares[lane].left > 0

    def calm_part(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records before the first whose lane runs its events one by one."""
        if self.calm_everywhere:
            return records
        return records[: next((n for n, record in enumerate(records) if self.careful(record.lane)), len(records))]

    def lacks(self, alive: Collection[str]) -> bool:
        """Say whether this worker has less than its part."""
        return len(self._owned) < self._part(alive)

    def _part(self, alive: Collection[str]) -> int:
        return -(-self._store.lanes // max(1, len(alive)))

    async def is_short(self, alive: Collection[str]) -> bool:
        """Forget lanes that another worker has taken meanwhile; say whether to take a free one, or to release some."""
        steps = await self._store.reading.steps(self._subscription)
        for step in steps:
            if not self._has(step):
                self._owned.pop(step.lane, None)
        self._forget_cares(steps)
        others = [step for step in steps if step.lane not in self._owned]
        forgotten = any(step.owner == self._worker for step in others)
        # A lane that was too careful to be handed on when another worker came may be calm now.
        surplus = any(not self.careful(lane) for lane in sorted(self.owned)[self._part(alive) :])
        return forgotten or surplus or (self.lacks(alive) and any(self._is_free(step, alive) for step in others))

    def _has(self, step: LaneStep) -> bool:
        """Say whether the newest step of a lane is the one that this worker knows, and is in its name."""
        return step.owner == self._worker and step.lane in self._owned and self._owned[step.lane].step == step.step

    def _forget_cares(self, steps: Iterable[LaneStep]) -> None:
        for step in steps:
            if step.owner != self._worker:
                self._cares.pop(step.lane, None)

    def lose_all(self) -> None:
        """Forget every lane: another owner has taken over, or this worker's state is in doubt."""
        self._owned.clear()

    async def rebalance(self, alive: Collection[str]) -> bool:
        """Take free lanes up to this worker's part, and release what is above it. Says whether lanes were taken.

        A lane is free if it was released, or if its owner is not alive; then its events are run carefully at first.
        """

        async def unit(statements: Statements) -> _Rebalanced:
            types = await self._stored_types(statements)
            steps = await self._steps(statements)
            mine = [step for step in steps if self._has(step)]
            part = self._part(alive)
            # What stands in this worker's name and was forgotten here must be taken: nobody else may.
            free = [step for step in steps if step not in mine and self._is_free(step, alive)]
            forgotten = [step for step in free if step.owner == self._worker]
            others = [step for step in free if step.owner != self._worker]
            taken = [*forgotten, *others[: max(0, part - len(mine) - len(forgotten))]]
            self._forget_cares(steps)  # before the commit: it may succeed unheard
            cares = self._cares_of(taken)
            await self.insert(statements, [replace(step, step=step.step + 1, owner=self._worker) for step in taken])
            # A careful lane is not handed on: its next owner would not know of its last owner's death.
            surplus = [step for step in mine[part:] if not self.careful(step.lane)]
            await self.insert(statements, [self._released(step) for step in surplus])
            return taken, cares, {step.lane for step in mine if step not in surplus}, types

        taken, cares, kept, self._types = await self._store.run(unit)
        self._owned = {lane: known for lane, known in self._owned.items() if lane in kept}
        self._owned |= {step.lane: Lane(step.step + 1, step.position, step.position) for step in taken}
        self._cares |= cares
        if taken:
            reach("lane.taken")
        return bool(taken)

    async def _steps(self, statements: Statements) -> list[LaneStep]:
        """Return the newest steps, to begin with; what was known of them before the log went back is forgotten."""
        steps = await statements.steps(self._subscription)
        if self._history != self._store.history:
            self.lose_all()
            self._history = self._store.history
        return steps

    def _check_history(self) -> None:
        if self._history != self._store.history:
            raise LeaseLostError(
                f"The database was restarted, or is another: {self._subscription} goes on from what is written there."
            )

    async def _stored_types(self, statements: Statements) -> Sequence[str] | None:
        """Return what the subscription takes, as every release has it together; None for every type.

        Read in the transaction that takes lanes, and fenced by each change: so no lane passes what is wanted from it.
        """
        if self._types is None:
            return None
        rows = await statements.subscriptions(steady=True)
        return next((row.types for row in rows if row.name == self._subscription), self._types)

    def _is_free(self, step: LaneStep, alive: Collection[str]) -> bool:
        return step.owner is None or step.owner not in alive or step.owner == self._worker

    def _cares_of(self, taken: Iterable[LaneStep]) -> dict[int, Care]:
        """Return how careful to be with lanes that are taken.

        One of the events that a dead owner had under way may have killed it: a batch's, over all its lanes.
        """
        of_owner: dict[str | None, Care] = {None: Care(0)}
        return {
            step.lane: self._cares.get(step.lane) or of_owner.setdefault(step.owner, Care(self._store.batch))
            for step in taken
        }

    async def release(self) -> None:
        """Release every lane in this worker's name, also one that it has lost from sight; nothing may run any more."""

        async def unit(statements: Statements) -> None:
            steps = await self._steps(statements)
            await self.insert(statements, [self._released(step) for step in steps if step.owner == self._worker])

        await self._store.run(unit)
        self._owned.clear()

    def _released(self, step: LaneStep) -> LaneStep:
        seen = self._owned[step.lane].seen if self._has(step) else step.position
        # At the end a careful lane keeps this worker's name: whoever takes it shall be careful too.
        care = self._cares.get(step.lane)
        return LaneStep(step.lane, step.step + 1, seen, self._worker if care is not None and care.left else None)

    async def read(self, limit: int) -> tuple[list[Record], int, bool]:
        """Read on: records by position, the position up to which all was looked at, and whether there is more."""
        if not self._owned:
            return [], 0, False
        after = min(lane.seen for lane in self._owned.values())
        page = await self._page(after, limit)
        self._check_history()
        records = [record for record in page.records if self._owned[record.lane].seen < record.position]
        return records, page.scanned, page.scanned > after

    def read_ahead(self, seen: int, limit: int) -> None:
        """Begin the next `read`, behind what a commit will have seen: while that waits for the disk."""
        self.forget_ahead()
        asked = seen, self._types, self.owned, limit
        page = asyncio.get_running_loop().create_task(self._store.reading.read(*asked))
        page.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may ask for it
        self._ahead = asked, page

    def forget_ahead(self) -> None:
        """Give up what is being read ahead."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    async def _page(self, after: int, limit: int) -> Page:
        asked = after, self._types, self.owned, limit
        if self._ahead is not None and self._ahead[0] == asked:
            (_, page), self._ahead = self._ahead, None
            return await page
        self.forget_ahead()  # the commit has failed, or lanes have come or gone
        return await self._store.reading.read(*asked)

    async def replay(self, limit: int, beyond: int = 0) -> BarePage:
        """Read on as `read` does, but only what a replay needs of each event; maybe beyond what is settled next."""
        after = max(beyond, min((lane.seen for lane in self._owned.values()), default=0))
        page = await self._store.reading.replay(after, self._types, self.owned, limit)
        self._check_history()
        ahead = {number: lane.seen for number, lane in self._owned.items() if lane.seen > after}
        rows = [row for row in page.rows if ahead.get(row[1], after) < row[0]] if ahead else page.rows
        return BarePage(rows, page.scanned)

    def moves(self, touched: Collection[int], seen: int) -> list[LaneStep]:
        """Return the steps that a commit inserts: of the lanes it touched, and of those whose progress lags."""
        return [
            LaneStep(number, lane.step + 1, max(lane.seen, seen), self._worker)
            for number, lane in self._owned.items()
            if number in touched or seen - lane.position > LAG_KEPT
        ]

    def fences(self, touched: Collection[int]) -> list[LaneStep]:
        """Return steps that move nothing, for a commit that settles what these lanes hold."""
        return [
            LaneStep(number, lane.step + 1, lane.position, self._worker)
            for number, lane in self._owned.items()
            if number in touched
        ]

    async def insert(self, statements: Statements, steps: Sequence[LaneStep]) -> None:
        """Insert steps; raises LeaseLostError if another owner has a lane: the transaction must not commit.

        So it does if the log has gone back since these lanes were taken.
        """
        self._check_history()
        if not await statements.advance(self._subscription, steps):
            raise LeaseLostError(
                f"A lane of {self._subscription} has another owner now; nothing of this turn was written."
            )

    def confirm(self, steps: Sequence[LaneStep], seen: int = 0) -> None:
        """Take in that a commit inserted steps, and that everything up to `seen` was looked at."""
        for step in steps:
            lane = self._owned[step.lane]
            lane.step, lane.position = step.step, step.position
        for lane in self._owned.values():
            lane.seen = max(lane.seen, seen, lane.position)

    def calm(self, lane: int, by: int) -> None:
        """Count down the careful events of a lane, and of those taken with it."""
        if self.careful(lane):
            care = self._cares[lane]
            care.left = max(0, care.left - by)

    def lags(self, seen: int) -> bool:
        """Say whether some lane's written progress lags far behind what was looked at."""
        return any(max(seen, lane.seen) - lane.position > LAG_KEPT for lane in self._owned.values())
