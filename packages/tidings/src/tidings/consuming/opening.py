"""Places outside that a service talks to: opened at its start or, where one is away then, once it answers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from tidings.blobs import Blobs
from tidings.consuming.following import FollowedLog
from tidings.errors import BlobsError, TidingsError, TransportError
from tidings.transport import Transport
from tidings.world import World

log = logging.getLogger("tidings")

Place = Transport | Blobs | FollowedLog

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between tries to open a place that is away: doubled up to the longest."""


@asynccontextmanager
async def opened(places: Iterable[Place], world: World) -> AsyncIterator["Openings"]:
    """Open places, and close them at the end. Raises what opening them raises, unless they are only away."""
    async with AsyncExitStack() as stack:
        openings = Openings(world, stack)
        try:
            for place in dict.fromkeys(places):
                await openings.begin(place)
            yield openings
        finally:
            await openings.stop()


class Openings:
    """Which places are open. What is published waits in the log until its broker is: nobody else need wait for it."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self._world = world
        self._stack = stack
        self.waiting: set[str] = set()  # parts of the worker that begin later, by their names
        self._open: dict[Place, asyncio.Event] = {}
        self._trying: list[asyncio.Task[None]] = []

    async def begin(self, place: Place) -> None:
        """Open a place, or begin to try until it answers. Raises what no further try mends."""
        self._open[place] = asyncio.Event()
        try:
            await self._try(place)
        except (TransportError, BlobsError) as error:
            if not error.retryable:
                raise
            log.warning("The service starts all the same; what it says waits in its log. %s", error)
            self._trying.append(asyncio.create_task(self._try_again(place)))

    def are_open(self, places: Iterable[Place]) -> bool:
        """Say whether all of these are open."""
        return all(self._open[place].is_set() for place in places)

    async def wait(self, places: Iterable[Place]) -> None:
        """Wait until all of these are open."""
        for place in places:
            await self._open[place].wait()

    async def stop(self) -> None:
        """Try no longer. What is open is closed after this."""
        for task in self._trying:
            task.cancel()
        await asyncio.gather(*self._trying, return_exceptions=True)

    async def _try(self, place: Place) -> None:
        await place.open()
        self._stack.push_async_callback(place.close)
        self._open[place].set()

    async def _try_again(self, place: Place) -> None:
        pause = FIRST_PAUSE
        while not self._open[place].is_set():
            await asyncio.sleep(pause * self._world.random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await self._try(place)
            except Exception as error:
                away = isinstance(error, TidingsError) and error.retryable
                log.log(logging.WARNING if away else logging.ERROR, "Not open yet: %s", error)
        log.warning("What was away at the start has answered: %s is open.", type(place).__name__)
