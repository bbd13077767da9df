"""Reading a subscription's lanes, turn by turn, for one of four uses: effects, work, relay, projection."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from tidings.consuming.lanes import Lanes
from tidings.consuming.outage import PROBE, Outage
from tidings.errors import LeaseLostError, TidingsError
from tidings.rows import Held, Record
from tidings.store import HELD_CHANGED, KEY_RELEASED, LOG_CHANGED, SUBSCRIPTION_CHANGED, Store
from tidings.world import World

log = logging.getLogger("tidings")

FIRST_BACKOFF, LONGEST_BACKOFF = 0.05, 5.0
"""Seconds between turns while the store itself fails: doubled up to the longest."""

LOOK_SECONDS = 3.0
"""Seconds after which a runner looks whether its lanes are still its own, and whether one is free: a worker whose
clock is wrong, or which was frozen, changes owners without anybody's hearing of it."""


class Taken(Struct):
    """What one turn brought: the position settled, which events failed, and whether any succeeded."""

    seen: int
    failed: list[int]
    succeeded: bool


class Use(Protocol):
    """What is done with records. Each method settles in one transaction, or raises and settles nothing."""

    batch: int

    async def take(
        self, records: Sequence[Record], lanes: Lanes, *, holding: Callable[[], bool], outage: Outage
    ) -> Taken:
        """Settle new records, in order; maybe only the first of them."""

    async def take_carefully(self, record: Record, lanes: Lanes) -> Taken:
        """Settle one record that may kill the process: count its attempt first."""

    async def retake(self, rows: Sequence[Held], lanes: Lanes, *, outage: Outage) -> Taken:
        """Settle held rows: retries that are due, and followers whose key nothing holds any more."""


class LaneRunner:
    """Turns over the lanes of one subscription until it is told to stop."""

    def __init__(
        self,
        name: str,
        types: Sequence[str] | None,
        store: Store,
        world: World,
        worker: str,
        use: Use,
        outage: Outage,
        alive: Callable[[], Collection[str]],
        on_pause: Callable[[bool], None] = lambda paused: None,
        version: int | None = None,
    ) -> None:
        self.name = name
        self.lanes = Lanes(name, types, store, worker)
        self.outage = outage
        self._store = store
        self._world = world
        self._use = use
        self._alive = alive
        self._on_pause = on_pause
        self._version = version
        self._wake = asyncio.Event()
        self._stopping = False
        self._rebalance = True
        self._holding = True  # until looked, there may be exceptions
        self._released = True
        self._paused = self._forgotten = False
        self._look_at_row = True
        self._next_due: int | None = None
        self._look_at = 0.0
        self._topics = [LOG_CHANGED] if types is None else types

    def wake(self) -> None:
        """Let the next turn begin: there may be something to do."""
        self._wake.set()

    def rebalance(self) -> None:
        """Let the next turn take or release lanes: the number of workers has changed."""
        self._rebalance = True
        self._wake.set()

    def stop(self) -> None:
        """End after the turn under way."""
        self._stopping = True
        self._wake.set()

    def _held_changed(self) -> None:
        self._holding = True
        self._wake.set()

    def _key_released(self) -> None:
        self._released = True
        self._wake.set()

    def _row_changed(self) -> None:
        self._look_at_row = True
        self._look_at = 0.0  # its lanes may be fenced, because another release takes more types
        self._wake.set()

    async def run(self) -> None:
        """Turn until stopped; then release the lanes."""
        stops = [
            self._store.listen(self._topics, self.wake),
            self._store.listen([HELD_CHANGED], self._held_changed),
            self._store.listen([KEY_RELEASED], self._key_released),
            self._store.listen([SUBSCRIPTION_CHANGED], self._row_changed),
        ]
        try:
            await self._turns()
        finally:
            for stop in stops:
                stop()
            self.lanes.forget_ahead()

    async def _turns(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopping:
            self._wake.clear()
            try:
                busy = await self._turn()
                backoff = FIRST_BACKOFF
            except LeaseLostError as error:
                log.warning("%s", error)
                self.lanes.lose_all()
                self._rebalance = True
                continue
            except Exception as error:
                level = logging.WARNING if isinstance(error, TidingsError) and error.retryable else logging.ERROR
                log.log(level, "%s: a turn failed and is tried again: %s", self.name, error, exc_info=level > 30)
                await self._sleep(backoff * self._world.random.uniform(0.5, 1.5))
                backoff = min(backoff * 2, LONGEST_BACKOFF)
                continue
            if not busy:
                idle = self._idle_seconds()
                await self._sleep(LOOK_SECONDS if idle is None else min(idle, LOOK_SECONDS))
        try:
            await self.lanes.release()
        except TidingsError as error:
            log.warning("%s: its lanes could not be released yet: %s", self.name, error)

    async def _sleep(self, seconds: float | None) -> None:
        if seconds is None:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _idle_seconds(self) -> float | None:
        """Return how long nothing happens by itself: until the outage's probe, or the next retry; None: for ever."""
        wait = self.outage.wait(asyncio.get_running_loop().time())
        if wait or self._next_due is None or self._paused:
            return wait or None
        return max(0.001, (self._next_due - self._world.now()) / 1e6)

    async def _turn(self) -> bool:
        """Do one thing; say whether there may be more to do at once."""
        if self._look_at_row:
            self._look_at_row = False
            await self._read_row()
        if self._forgotten:
            return False
        await self._look_at_lanes()
        if self._rebalance:
            self._rebalance = False
            if await self.lanes.rebalance(self._alive()):
                self._holding = self._released = True
        if self._paused or self.outage.wait(asyncio.get_running_loop().time()):
            return False
        if self._holding or self._released:
            rows = await self._due()
            if rows:
                self._take_in(await self._use.retake(rows, self.lanes, outage=self.outage))
                return True
        return await self._read_on()

    async def _look_at_lanes(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._rebalance = await self.lanes.is_short(self._alive()) or self._rebalance

    async def _read_row(self) -> None:
        rows = {row.name: row for row in await self._store.reading.subscriptions()}
        # What an operator made the store forget is paused too, also if another process has declared it again since:
        # this one would publish under the ids of what is forgotten. It must be started again.
        self._forgotten = self.name not in rows or self._version not in (None, rows[self.name].version)
        self._paused = self._forgotten or rows[self.name].paused_by is not None
        self._on_pause(self._paused)

    async def _due(self) -> list[Held]:
        reading, owned = self._store.reading, self.lanes.owned
        limit = PROBE if self.outage.on else self._use.batch
        if self._released:
            self._released = False
            heads = await reading.heads_to_be(self.name, owned, limit)
            if heads:
                self._released = True
                return heads
        now = self._world.now()
        self._next_due = await reading.next_due(self.name, owned)
        if self._next_due is not None and self._next_due <= now:
            return await reading.due(self.name, owned, now, limit)
        if self._next_due is None:
            self._holding = await reading.holds_any(self.name)
        return []

    async def _read_on(self) -> bool:
        limit = PROBE if self.outage.on else self._use.batch
        records, seen, more = await self.lanes.read(limit)
        if not records:
            return await self._nothing_here(seen, more)
        first = records[0]
        if self.lanes.careful(first.lane):
            taken = await self._use.take_carefully(first, self.lanes)
            self.lanes.calm(first.lane, 1)
        else:
            calm = self.lanes.calm_part(records)
            taken = await self._use.take(calm, self.lanes, holding=lambda: self._holding, outage=self.outage)
        self._take_in(taken)
        return True

    async def _nothing_here(self, seen: int, more: bool) -> bool:
        self.lanes.confirm([], seen)
        if not more:
            for lane in self.lanes.owned:
                self.lanes.calm(lane, self._use.batch)
        if self.lanes.lags(seen):
            steps = self.lanes.moves((), seen)
            await self._store.run(lambda statements: self.lanes.insert(statements, steps))
            self.lanes.confirm(steps, seen)
        return more

    def _take_in(self, taken: Taken) -> None:
        changed = self.outage.outcome(taken.failed, taken.succeeded, asyncio.get_running_loop().time())
        if changed and self.outage.on:
            log.warning("%s: an outage: nothing succeeds any more; it is probed until something does.", self.name)
        elif changed:
            log.warning("%s: the outage is over.", self.name)
