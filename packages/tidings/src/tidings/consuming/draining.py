"""What a broker has given up becomes our dead letter: it waits where an operator looks, and can be redriven."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from tidings.consuming.held import note
from tidings.consuming.landing import Arrived, Landing
from tidings.events import Envelope, derive_id
from tidings.points import reach
from tidings.publishing.undelivered import undelivered
from tidings.rows import BEHIND, DEAD, RETRY, Held, Record
from tidings.statements import Statements
from tidings.store import Store
from tidings.transport import Delivery, Receiver
from tidings.world import World

log = logging.getLogger("tidings")

BATCH = 10
"""Messages that are drained at a time: each looks at the log."""

PAUSE_SECONDS = 5.0
"""Seconds until a message is looked at again whose event is on its way to the broker, and between failed tries."""


class Draining:
    """Drains what a broker has given up. Our own events become dead letters of the relay; others land as any do.

    `relay` is the name of this service's relay.
    """

    def __init__(self, dead: Receiver, landing: Landing, store: Store, world: World, source: str, relay: str) -> None:
        self._dead = dead
        self._landing = landing
        self._store = store
        self._world = world
        self._source = source
        self._relay = relay

    async def run(self) -> None:
        """Drain until cancelled."""
        while True:
            try:
                await self.drain(await self._dead.receive(BATCH))
            except Exception as error:
                log.warning("What the broker has given up could not be drained; it is tried again: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def drain(self, deliveries: Sequence[Delivery]) -> None:
        """Write messages down in one transaction, then acknowledge them; those whose event is under way wait."""
        try:
            read, later = await self._landing.read_all(deliveries)
            waiting = await self._store.run(lambda statements: self._unit(statements, read))
            reach("drain.before_acknowledge")
            waiting |= {each.receipt for each in later}
            await self._dead.settle([each for each in deliveries if each.receipt not in waiting])
        except Exception:
            await self._dead.give_back(deliveries, PAUSE_SECONDS)
            raise
        await self._dead.give_back([each for each in deliveries if each.receipt in waiting], PAUSE_SECONDS)

    async def _unit(self, statements: Statements, read: Sequence[tuple[Delivery, Arrived]]) -> set[str]:
        """Return the receipts of those that wait."""
        waiting: set[str] = set()
        others: list[Arrived] = []
        steps = {step.lane: step.position for step in await statements.steps(self._relay)}
        for delivery, (envelope, refused) in read:
            own = await self._own(statements, envelope)
            if refused is not None or envelope.source != self._source:
                others.append((envelope, refused))
            elif own is None:
                others.append(self._landing.refuse(delivery, f"given_up: {_why(delivery)} It is not in this log."))
            elif not await self._give_up(statements, own, delivery, steps):
                waiting.add(delivery.receipt)
        if others:
            await self._landing.write(statements, others)
        reach("drain.before_commit")
        return waiting

    async def _own(self, statements: Statements, envelope: Envelope) -> Record | None:
        """Return the record of an event that was published here."""
        found = await statements.find(envelope.id) if envelope.source == self._source else []
        return next((record for record in found if record.envelope.source == self._source), None)

    async def _give_up(self, statements: Statements, own: Record, delivery: Delivery, steps: Mapping[int, int]) -> bool:
        """Hold an own event as dead; False while the relay has yet to write down that it was sent."""
        held = await statements.held(self._relay, [own.position])
        if own.position > steps.get(own.lane, 0) or (held and held[0].state in (RETRY, BEHIND)):
            return False
        fresh = await statements.admit([self._sending(own.envelope, delivery)], undated_at=self._world.now())
        # Else it was written down before (and redriven since, perhaps), or is dead or discarded already.
        if fresh and not held:
            reason = f"The broker gave it up after it was sent: {_why(delivery)}"
            # Its key flows: the broker has gone on to what follows, so there is no order to keep.
            row = Held(
                self._relay, own.position, own.lane, own.envelope.key, False, DEAD, attempts=1, reason=reason,
                updated=self._world.now(),
            )  # fmt: skip
            await statements.hold([row])
            await statements.append([undelivered(own.envelope, reason, self._world)])
            note(row, own.envelope, reason)
        return True

    def _sending(self, envelope: Envelope, delivery: Delivery) -> Envelope:
        """Return what stands for one sending of an event among what was admitted: the next one may fail as well."""
        sending = delivery.headers.get("message", delivery.receipt)
        return replace(envelope, id=derive_id(self._source, f"{envelope.id}/{sending}", self._relay, 0))


def _why(delivery: Delivery) -> str:
    return delivery.headers.get("reason", "It did not say why.")
