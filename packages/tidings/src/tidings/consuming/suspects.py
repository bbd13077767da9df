"""Work whose process died: set apart, and run so that a further death is counted for its cause alone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from msgspec.structs import replace

from tidings.consuming.held import STARTED, failure
from tidings.errors import StoreError
from tidings.points import reach
from tidings.rows import RETRY, Ready, Record
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World

log = logging.getLogger("tidings")

AliveIn = Callable[[Statements], Awaitable[Collection[str]]]
"""Tells which workers are alive, as a transaction sees them."""

DIED = "(died)"
"""Owner of work that is set apart. No worker has this name, so nobody claims it as work that waits."""

PAUSE_SECONDS = 0.05
"""Seconds until it is looked again whether one may run."""

RETRIES_LOOKED_AT = 1000
"""Retries among which one that may kill its process is looked for."""


class Suspects:
    """The suspects of one subscription. Twenty handlers die with their process, and one of them has killed it.

    `one` is held by whichever suspect runs in this process, of any subscription. `may_run` is False while lanes run
    their events one by one (neither shall be blamed for the other), and while nothing may be claimed. `start` starts
    a delivery.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        world: World,
        worker: str,
        one: asyncio.Lock,
        may_run: Callable[[], bool],
        start: Callable[[Ready, Record], asyncio.Task[None]],
    ) -> None:
        self._name = name
        self._store = store
        self._world = world
        self._worker = worker
        self._one = one
        self._may_run = may_run
        self._start = start
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.claiming: Ready | None = None
        """The claim under way, or whose commit was cut off and may have succeeded unheard."""

    def stop(self) -> None:
        """Run no more of them."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()

    async def reclaim(self, alive_in: AliveIn) -> None:
        """Set the work of dead workers apart; its attempt stays counted. Then run what is set apart."""

        async def unit(statements: Statements) -> bool:
            alive = await alive_in(statements)
            running = await statements.running(self._name)
            for row in running:
                if row.owner not in alive and row.owner != DIED and await statements.unready(row):
                    died = failure(row.attempt, self._world.now(), None)
                    await statements.fill([replace(row, owner=DIED, failures=(*row.failures, died))])
            return any(row.owner not in alive for row in running)

        found = await self._store.run(unit)
        if found and not self._stopping and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause: float | None = 0.0
        while pause is not None and not self._stopping:
            await asyncio.sleep(pause)  # the lock is fair: other subscriptions have their turn
            try:
                async with self._one:
                    pause = await self._run_first()
            except StoreError as error:
                log.warning("%s: taking work back failed and is tried again: %s", self._name, error)
                pause = PAUSE_SECONDS

    async def _run_first(self) -> float | None:
        """Run the first suspect, or leave it for later; return the seconds to the next look, None if there is none."""
        reading = self._store.reading
        running = [row for row in await reading.running(self._name) if row.owner == DIED or row == self.claiming]
        row = self.claiming if self.claiming in running else next(iter(running), None)
        if row is None:
            return None
        retries = await reading.letters([RETRY], None, 0, RETRIES_LOOKED_AT)
        if not self._may_run() or any(letter.reason == STARTED for letter in retries):
            return PAUSE_SECONDS
        records = await reading.records([row.position])
        claimed = row if row == self.claiming else await self._claim(row)
        self.claiming = None
        if claimed is not None:
            reach("ready.claimed")
            await asyncio.wait([self._start(claimed, records[row.position])])
        return 0.0

    async def _claim(self, row: Ready) -> Ready | None:
        """Claim a suspect; return it as claimed, None if another process was faster."""
        self.claiming = claimed = replace(row, owner=self._worker, attempt=row.attempt + 1, since=self._world.now())

        async def unit(statements: Statements) -> bool:
            taken = await statements.unready(row)
            if taken:
                await statements.fill([claimed])
            return taken

        return claimed if await self._store.run(unit) else None
