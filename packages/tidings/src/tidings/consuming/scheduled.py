"""What is not an event yet becomes one when it is due: durable timers."""

import asyncio
import logging

from msgspec.structs import replace

from tidings.points import reach
from tidings.statements import Statements
from tidings.store import SCHEDULED_CHANGED, Store
from tidings.world import World, moment

log = logging.getLogger("tidings")

AT_ONCE = 500
"""Scheduled publishes that one transaction turns into events at most."""


class Timers:
    """Sleeps to the earliest due time, then publishes what is due, each once however many processes do so."""

    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world
        self._wake = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Look again: something may be due earlier."""
        self._wake.set()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Publish what is due until stopped."""
        stop_listening = self._store.listen([SCHEDULED_CHANGED], self.wake)
        try:
            while not self._stopping:
                self._wake.clear()
                try:
                    seconds = await self._fire()
                except Exception as error:
                    log.warning("Publishing what is due failed and is tried again: %s", error)
                    seconds = 1.0
                await self._sleep(seconds)
        finally:
            stop_listening()

    async def _sleep(self, seconds: float | None) -> None:
        try:
            # A wall clock may be set: look again at least every minute.
            async with asyncio.timeout(60.0 if seconds is None else min(seconds, 60.0)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _fire(self) -> float | None:
        """Publish what is due; return the seconds to the next one, None if there is none."""
        due = await self._store.reading.next_scheduled()
        if due is None:
            return None
        if due > self._world.now():
            return (due - self._world.now()) / 1e6
        await self._store.run(self._unit)
        reach("scheduled.after_commit")
        return 0.0

    async def _unit(self, statements: Statements) -> None:
        now = self._world.now()
        fired = await statements.fire(now, AT_ONCE)
        envelopes = [replace(row.envelope, time=moment(now)) for row in fired]
        await statements.append(await statements.admit(envelopes, undated_at=now))
        reach("scheduled.before_commit")
