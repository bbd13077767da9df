"""Who uses the simulated service: clients that retry and clients that never do, other services, operators."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

from msgspec import Struct, field

from tidings.errors import TidingsError
from tidings.events import Envelope, encode_event, envelope_to_json, event_type, uuid7
from tidings.operations import Filter, discard, maintain, pause, redrive, resume
from tidings.rows import DEAD, PARKED
from tidings.service import Service
from tidings.testing.simulation.loop import GROUP
from tidings.testing.simulation.network import Network
from tidings.testing.simulation.process import EPOCH, Process
from tidings.testing.simulation.workload import (
    Foreign,
    Novel,
    Placed,
    Simulated,
    Timer,
    Troubles,
    Waning,
)

KEYS = ("red", "green", "blue")


class History(Struct):
    """What the clients were told, kept outside every process. A call without an answer is in none of the sets."""

    acknowledged: set[str] = field(default_factory=set)
    abandoned: set[str] = field(default_factory=set)
    orders: dict[str, list[str]] = field(default_factory=dict)
    committed: set[str] = field(default_factory=set)
    rolled_back: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    not_cancelled: set[str] = field(default_factory=set)
    arrived: set[tuple[str, str]] = field(default_factory=set)
    discarded: int = 0


class Clients:
    """Draws and performs the operations of one seed."""

    def __init__(
        self, random: Random, network: Network, pick: Callable[[], Process | None], names: Sequence[str], poison: bool
    ) -> None:
        self.random = random
        self.history = History()
        self._network = network
        self._pick = pick
        self._names = names
        self._poison = poison
        self._count = 0

    def _id(self) -> str:
        return uuid7(self._count, self.random.getrandbits(74))

    async def work(self, count: int, seconds: float) -> None:
        """Perform so many operations, spread over a time, many of them at once."""
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._publish, 5),
            (self._publish_until_told, 3),
            (self._order, 4),
            (self._delay, 2),
            (self._foreign, 4),
            (self._publish_what_changes, 3),
            (self._burst, 1),
            (self._tend, 2),
        ]
        operations = self.random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds], k=count)
        await asyncio.gather(*[self._at(self.random.random() * seconds, operation) for operation in operations])

    async def _at(self, when: float, operation: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(when)
        await operation()

    def _troubles(self, share: float, most: int) -> Troubles:
        return {name: self.random.randint(1, most) for name in self._names if self.random.random() < share}

    def _placed(self) -> Placed:
        random = self.random
        self._count += 1
        is_slow = random.random() < 0.2
        kills: Troubles = {}
        if self._poison and random.random() < 0.1:
            kills = {random.choice(self._names): random.choice((1, 2, 9))}
        return Placed(
            key=random.choice(KEYS),
            tenant=random.choice("xyz"),
            fails=self._troubles(0.5 if is_slow else 0.1, 4),
            kills=kills,
            children=random.choice((0, 0, 1, 2)),
            later=random.random() * 4 if random.random() < 0.3 else None,
            slow=random.random() * (8 if is_slow else 0.05),
        )

    async def through(self, call: Callable[[Service], Awaitable[Any]]) -> tuple[bool, Any]:
        """Call a process as a client does; say whether there was an answer, and which. Errors are no answer."""
        process = self._pick()
        if process is None or process.service is None:
            return False, None
        service = process.service

        async def calling() -> Any:
            return await call(service)

        task = process.make(calling())
        ended = asyncio.Event()
        task.add_done_callback(lambda _: ended.set())
        dead = asyncio.ensure_future(process.death.wait())
        answered = asyncio.ensure_future(ended.wait())
        await asyncio.wait([dead, answered], timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        answered.cancel()
        if not task.done() or task.cancelled() or task.exception() is not None:
            return False, None
        return True, task.result()

    async def _publish(self) -> None:
        event = self._placed()
        told, envelope = await self.through(lambda service: service.publish(event))
        if told:
            self.history.acknowledged.add(envelope.id)

    async def _publish_what_changes(self) -> None:
        """Publish what only the release of the asked process knows."""
        key, fails = self.random.choice(KEYS), self._troubles(0.1, 2)

        async def publish(service: Service) -> Envelope:
            knows_novel = Novel in service.registry.classes()
            return await service.publish((Novel if knows_novel else Waning)(key=key, fails=fails))

        told, envelope = await self.through(publish)
        if told:
            self.history.acknowledged.add(envelope.id)

    async def _burst(self) -> None:
        await asyncio.gather(*[self._publish() for _ in range(4)])

    async def _publish_until_told(self) -> None:
        event, event_id = self._placed(), self._id()
        for _ in range(40):
            told, _envelope = await self.through(lambda service: service.publish(event, id=event_id))
            if told:
                self.history.acknowledged.add(event_id)
                if self.random.random() < 0.7:
                    return
            await asyncio.sleep(self.random.random())

    async def _order(self) -> None:
        order, events, fails = self._id(), [self._placed() for _ in range(2)], self.random.random() < 0.25
        published = self.history.orders.setdefault(order, [])

        async def place(service: Service) -> None:
            process = GROUP.get()
            if self.random.random() < 0.1 and isinstance(process, Process) and process.crash_after is None:
                process.crash_after = self.random.randint(0, 8)  # in the middle of it, or just after
            async with service.transaction() as tx:
                for event in events:
                    published.append(tx.publish(event).id)
                await tx.execute("INSERT INTO orders (id) VALUES ($1)", order)
                if self.random.random() < 0.3:
                    await asyncio.sleep(0.003)
                if fails:
                    raise TidingsError("the client changed its mind")

        told, _ = await self.through(place)
        if told:
            self.history.committed.add(order)
        elif fails:
            self.history.rolled_back.add(order)

    async def _delay(self) -> None:
        delay = self.random.random() * 5
        event = Timer(key=self.random.choice(KEYS))
        told, envelope = await self.through(lambda service: service.publish(event, delay=timedelta(seconds=delay)))
        if not told:
            return
        if self.random.random() < 0.5:
            self.history.acknowledged.add(envelope.id)
            return
        await asyncio.sleep(max(0.0, delay + (self.random.random() - 0.7) * 2))
        told, was_cancelled = await self.through(lambda service: service.cancel(envelope.id))
        if told:
            (self.history.cancelled if was_cancelled else self.history.not_cancelled).add(envelope.id)

    async def _foreign(self) -> None:
        random = self.random
        cls: type[Foreign | Novel | Waning] = random.choice((Foreign, Foreign, Novel, Waning))
        event = cls(key=random.choice(KEYS), fails=self._troubles(0.1, 2))
        event_id = self._id()
        for source in random.choice((("web",), ("web", "app"))):  # ids are the source's own: two may use the same
            envelope = _foreign_envelope(event, event_id, source, self._network.loop.time())
            self.history.arrived.add((source, event_id))
            body, late = envelope_to_json(envelope), random.random() * 4
            self._network.put(body, late=late, copies=random.choice((0, 1, 2)))
        if self._network.sent and random.random() < 0.3:
            # What this service sent comes back to it.
            self._network.put(envelope_to_json(random.choice(self._network.sent)), late=0.1, copies=0)

    # Operators.

    async def operate(self) -> None:
        """Pause and resume in the middle of it all."""
        name = self.random.choice(self._names)
        await self.through(lambda s: pause(s.store, name, actor="ann", reason="to look at it"))
        await asyncio.sleep(self.random.random() * 4)
        await self.resume_all()

    async def _tend(self) -> None:
        await self.through(lambda s: maintain(s.store, now=s.world.now()))

    async def resume_all(self) -> None:
        """Resume everything that somebody has paused."""
        for name in self._names:
            for _ in range(20):
                told, _ = await self.through(partial(_resume, name))
                if told:
                    break
                await asyncio.sleep(0.3)

    async def repair(self) -> None:
        """Two operators redrive everything at once, and one gives some of it up."""
        which = Filter(states=(DEAD, PARKED))
        name = self.random.choice(self._names)
        if self.random.random() < 0.3:
            some = Filter(states=(DEAD,), subscription=name)
            await self.through(
                lambda s: discard(s.store, some, actor="bob", reason="not wanted", now=s.world.now(), limit=2)
            )
        await asyncio.gather(self._redrive(which, "ann"), self._redrive(which, "bob"), self._hesitate())

    async def _hesitate(self) -> None:
        """Let one process stand still for a moment, maybe between what an operator saw and what he does."""
        await asyncio.sleep(self.random.random() * 0.01)
        if (process := self._pick()) is not None and self.random.random() < 0.7:
            process.frozen = True
            await asyncio.sleep(self.random.random() * 2)
            self._network.loop.thaw(process)

    async def _redrive(self, which: Filter, actor: str) -> None:
        await asyncio.sleep(self.random.random() * 0.005)
        await self.through(lambda s: redrive(s.store, which, actor=actor, now=s.world.now()))


async def _resume(name: str, service: Service) -> None:
    await resume(service.store, name)


def _foreign_envelope(event: Simulated, event_id: str, source: str, now: float) -> Envelope:
    declared = event_type(type(event))
    return Envelope(
        id=event_id,
        source=source,
        type=declared.name,
        version=declared.version,
        time=EPOCH + timedelta(seconds=int(now)),
        correlation=event_id,
        key=event.key,
        data=encode_event(event),
    )
