"""Step 0 of consuming: a broker's message lands in our log, is committed, and only then acknowledged."""

import asyncio
import base64
import logging
from collections.abc import Sequence

import msgspec

from tidings.errors import EnvelopeError, StrictJSONError
from tidings.events import UNDATED, Envelope, check, derive_id, envelope_from_json
from tidings.points import reach
from tidings.store import DEAD, LANDING, PARKED, Held, Statements, Store
from tidings.transport import Delivery, Transport
from tidings.world import World, microseconds

log = logging.getLogger("tidings")

REFUSED = "tidings.refused"
"""Type of the event that records a message which cannot be an event here; its data holds the bytes and the reason."""

BATCH = 100
"""Messages that one transaction lands at most."""


class Landing:
    """Receives from a transport into the log. Duplicates are recognised by (source, id), whatever brings them."""

    def __init__(
        self,
        transport: Transport,
        store: Store,
        world: World,
        source: str,
        horizon_seconds: float,
    ) -> None:
        self._transport = transport
        self._store = store
        self._world = world
        self._source = source
        self._horizon = int(horizon_seconds * 1e6)
        self._stopping = False

    def stop(self) -> None:
        """Receive nothing more."""
        self._stopping = True

    async def run(self) -> None:
        """Land until stopped (or cancelled while waiting for messages)."""
        while not self._stopping:
            try:
                await self.land(await self._transport.receive(BATCH))
            except Exception as error:
                log.warning("Landing failed; nothing was acknowledged and it is tried again: %s", error)
                await asyncio.sleep(1.0 * self._world.random.uniform(0.5, 1.5))

    async def land(self, deliveries: Sequence[Delivery]) -> None:
        """Land some messages in one transaction, then acknowledge them."""
        arrived = [self._read(delivery) for delivery in deliveries]
        await self._store.run(lambda statements: self._unit(statements, arrived))
        reach("landing.before_acknowledge")
        await self._transport.settle(deliveries)

    def _read(self, delivery: Delivery) -> tuple[Envelope, str | None]:
        """Return the envelope of a message, or the record of a refused one and the reason."""
        try:
            envelope = envelope_from_json(delivery.body)
            check(envelope)
        except (EnvelopeError, StrictJSONError) as error:
            return self._refused(delivery, f"unreadable: {error}"), f"unreadable: {error}"
        if envelope.time != UNDATED and microseconds(envelope.time) < self._world.now() - self._horizon:
            reason = (
                f"too_old: {envelope.time.isoformat()} is before the horizon, so a duplicate could not be recognised"
            )
            return self._refused(delivery, reason), reason
        return envelope, None

    def _refused(self, delivery: Delivery, reason: str) -> Envelope:
        """Return the event that keeps the bytes of a refused message; the same bytes give the same id."""
        body = base64.b64encode(delivery.body).decode()
        data = msgspec.json.encode({"body_base64": body, "headers": delivery.headers, "reason": reason})
        event_id = derive_id(self._source, body, LANDING, 0)
        return Envelope(
            id=event_id, source=self._source, type=REFUSED, time=self._world.clock(), correlation=event_id, data=data
        )

    async def _unit(self, statements: Statements, arrived: Sequence[tuple[Envelope, str | None]]) -> None:
        # By what is stored, not by what this release declares: the lanes of a newer one may read it.
        known = {name for row in await statements.subscriptions(steady=True) for name in row.types}
        # What this service itself has sent is in the log already.
        good = [envelope for envelope, reason in arrived if reason is None and envelope.source != self._source]
        refused = {envelope.id: reason for envelope, reason in arrived if reason is not None}
        fresh = await statements.admit([envelope for envelope in good if envelope.time != UNDATED])
        undated = [envelope for envelope in good if envelope.time == UNDATED]
        undated += [envelope for envelope, reason in arrived if reason is not None]
        fresh += await statements.admit(undated, undated_at=self._world.now())
        await statements.append(fresh)
        held = [
            await self._held(statements, envelope, refused.get(envelope.id))
            for envelope in fresh
            if envelope.id in refused or envelope.type not in known
        ]
        if held:
            await statements.hold(held)
        reach("landing.before_commit")

    async def _held(self, statements: Statements, envelope: Envelope, refused: str | None) -> Held:
        """Return the exception under which an event is held that no subscription may have, or none knows yet."""
        found = next(one for one in await statements.find(envelope.id) if one.envelope.source == envelope.source)
        return Held(
            subscription=LANDING,
            position=found.position,
            lane=found.lane,
            key=envelope.key,
            blocks=False,
            state=PARKED if refused is None else DEAD,
            reason=refused or f"No subscription on this log knows {envelope.type}.",
            updated=self._world.now(),
        )
