"""A service whose broker gives up what fails where there is no store, for the tests of draining."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable
from pathlib import Path

from tidings import Event, Service, Transaction, Undelivered, operations
from tidings.backends.memory import MemoryReceiver, open_transport
from tidings.events import Envelope, envelope_from_json
from tidings.operations import DeadLetter, Filter
from tidings.points import watch
from tidings.rows import DEAD
from tidings.testing.conformance.transports.opening import real_world


class Asked(Event, name="draining.asked", key="customer"):
    customer: str
    number: int
    text: str = ""


class Place:
    """A service whose broker gives up what was received once and not settled, and a function that may fail."""

    patience = 20.0

    def __init__(self, folder: Path) -> None:
        self.queue = f"draining-{folder}"
        url = f"memory://{self.queue}?in={self.queue}-in&dead={self.queue}-dead&receives=1&lease=1"
        self.service = Service("asking", store=f"sqlite:///{folder}/asking.db", transport=url)
        self.service.register(Asked)
        self.function = open_transport(f"memory://{self.queue}-out?in={self.queue}", real_world())
        self.dead = MemoryReceiver(f"{self.queue}-dead", 1.0)
        self.known = 0
        self.told: list[tuple[str, Event, str]] = []
        self.service.subscribe(Undelivered)(self.hear)

    async def hear(self, event: Undelivered, tx: Transaction) -> None:
        assert tx.envelope is not None
        self.told.append((str(tx.envelope.key), self.service.original(event), event.reason))

    async def fail(self) -> Envelope:
        """Let the function receive one event and fail; its queue gives it up as soon as somebody looks."""
        async with asyncio.timeout(Place.patience):
            (delivery,) = await self.function.receive(1)
        await self.function.give_back([delivery])
        looking = asyncio.create_task(self.function.receive(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        return envelope_from_json(delivery.body)

    async def succeed(self) -> Envelope:
        async with asyncio.timeout(Place.patience):
            (delivery,) = await self.function.receive(1)
        await self.function.settle([delivery])
        return envelope_from_json(delivery.body)

    async def letters(self) -> list[DeadLetter]:
        return await operations.letters(self.service.store, Filter(states=(DEAD,)))

    async def has(self, letters: int) -> list[DeadLetter]:
        """Wait until there are so many dead letters, all of the broker's are drained, and all facts are heard."""

        async def all_drained() -> bool:
            heard = len(await self.facts()) == self.known + len(self.told)
            return heard and len(await self.letters()) == letters and not self.dead._in.messages

        await until(all_drained)
        return await self.letters()

    async def facts(self) -> list[Envelope]:
        return [one for one in await self.log() if one.type == "tidings.undelivered"]

    async def log(self) -> list[Envelope]:
        return [record.envelope for record in await self.service.store.reading.recent(0, 1000)]

    async def redrive(self) -> None:
        await operations.redrive(self.service.store, Filter(), actor="anna", now=self.service.world.now())


@asynccontextmanager
async def at_work(folder: Path, **roles: bool) -> AsyncIterator[Place]:
    place = Place(folder)
    async with place.service.running(consumers=False, relay=False):
        place.known = len(await place.facts())
    async with place.service.running(**roles):
        yield place


@asynccontextmanager
async def failing_once(point: str) -> AsyncIterator[list[str]]:
    """Fail at the first visit of a point, as where the store or the broker breaks off; yields the visits."""
    visits: list[str] = []

    def visit(reached: str) -> None:
        if reached == point:
            visits.append(reached)
            if len(visits) == 1:
                raise ConnectionResetError(f"cut off at {point}")

    watch(visit)
    try:
        yield visits
    finally:
        watch(None)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(Place.patience):
        while True:
            found = holds()
            if await found if isawaitable(found) else found:
                return
            await asyncio.sleep(0.01)
