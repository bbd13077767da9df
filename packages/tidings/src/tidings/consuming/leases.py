"""Which processes are alive: a heartbeat each, on which every lease hangs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from tidings.rows import WorkerRow
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World

log = logging.getLogger("tidings")

BEAT_SECONDS = 3.0
"""Seconds between heartbeats."""

LEASE_SECONDS = 10.0
"""Seconds that a worker without a heartbeat keeps its leases: more than three times the longest transaction."""


class Heartbeat:
    """Keeps one worker's row, and knows which workers of its service are alive; `changed` is called when others are."""

    def __init__(self, row: WorkerRow, store: Store, world: World, changed: Callable[[], Awaitable[None]]) -> None:
        self._row = row
        self._store = store
        self._world = world
        self._changed = changed
        self._stopping = asyncio.Event()
        self._workers: dict[str, WorkerRow] = {row.id: row}

    @property
    def alive(self) -> frozenset[str]:
        """Ids of the workers that are alive."""
        return frozenset(self._workers)

    def alive_as(self, role: str) -> frozenset[str]:
        """Ids of the workers that are alive and have a role."""
        return frozenset(worker.id for worker in self._workers.values() if role in worker.roles)

    async def alive_in(self, statements: Statements) -> frozenset[str]:
        """Ids of the workers that are alive as a transaction sees them: one that has just started is among them."""
        now = self._world.now()
        rows = await statements.workers()
        return frozenset(row.id for row in rows if self._store.is_alive(row, now)) | {self._row.id}

    async def beat(self) -> None:
        """Write the heartbeat, and look who else is alive."""
        now = self._world.now()
        row = replace(self._row, expires=now + int(LEASE_SECONDS * 1e6))
        await self._store.run(lambda statements: statements.beat(row, now))
        await self.look()

    async def look(self) -> None:
        """Look who is alive; remove the rows of the dead."""
        now = self._world.now()
        workers = [row for row in await self._store.reading.workers() if row.service == self._row.service]
        dead = [row for row in workers if row.id != self._row.id and not self._store.is_alive(row, now)]
        before = self.alive
        self._workers = {row.id: row for row in workers if row not in dead} | {self._row.id: self._row}
        if before != self.alive or dead:
            await self._changed()
        for row in dead:
            await self._store.run(partial(_retire, row.id))

    async def run(self) -> None:
        """Beat until stopped."""
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                pass
            else:
                return
            try:
                await self.beat()
            except Exception as error:
                log.warning("The heartbeat could not be written and is tried again: %s", error)

    def stop(self) -> None:
        """End the heartbeat."""
        self._stopping.set()

    async def retire(self) -> None:
        """Remove this worker: everything was released."""
        await self._store.run(lambda statements: statements.retire(self._row.id))


async def _retire(worker: str, statements: Statements) -> None:
    await statements.retire(worker)
