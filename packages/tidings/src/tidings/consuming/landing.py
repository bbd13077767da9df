"""Step 0 of consuming: a broker's message lands in our log, is committed, and only then acknowledged."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
from msgspec.structs import replace

from tidings.blobs import Blobs
from tidings.claims import redeem
from tidings.consuming.held import note
from tidings.consuming.subscription import PROJECTION, RELAY, Subscription
from tidings.errors import BlobsError, EnvelopeError, ServiceError, StrictJSONError, TransportError
from tidings.events import UNDATED, Envelope, check, derive_id, envelope_from_json
from tidings.events.trace import is_traceparent, is_tracestate
from tidings.points import reach
from tidings.rows import DEAD, LANDING, PARKED, REFUSED, Held, SubscriptionRow
from tidings.statements import Statements
from tidings.store import Store
from tidings.transport import Delivery, Transport
from tidings.world import World, microseconds

log = logging.getLogger("tidings")

BATCH = 100
"""Messages that one transaction lands at most."""

BACKLOG = 100_000
"""Events that a subscription may have waiting before nothing more is received: the broker keeps them as well."""

PAUSE_SECONDS = 1.0
"""Seconds between looks whether a backlog has become less, and until what could not land may come again."""

EXTENSIONS = 3
"""So many times within a lease it is extended, while landing is slow."""


Arrived = tuple[Envelope, str | None]
"""The envelope of a message and None, or the record of one that is no event here, and why."""


def check_order(subscriptions: Iterable[Subscription], transport: Transport | None) -> None:
    """Raise ServiceError for subscriptions that ask for an order which the transport does not keep."""
    if transport is None or not transport.capabilities.receives or transport.capabilities.ordered_by_key:
        return
    names = ", ".join(one.name for one in subscriptions if one.ordered and not one.as_logged)
    if names:
        raise ServiceError(
            f"ordered=True of {names} promises the order in which the events of a key were published, and this "
            "transport does not keep it among what it brings. Use a transport that does (a FIFO queue); or leave it "
            'out, with effects that commute; or say ordered="log": the order of this log, which is that of publishing '
            "for what is published here, and that of landing for what comes from elsewhere."
        )


class Landing:
    """Receives from a transport into the log. Duplicates are recognised by (source, id), whatever brings them.

    `backlog`: events that a subscription of this service may have waiting before nothing more is received.
    """

    def __init__(
        self,
        transport: Transport,
        store: Store,
        world: World,
        source: str,
        horizon_seconds: float,
        blobs: Blobs | None = None,
        backlog: int = BACKLOG,
    ) -> None:
        self._transport = transport
        self._store = store
        self._world = world
        self._source = source
        self._horizon = int(horizon_seconds * 1e6)
        self._blobs = blobs
        self._backlog = backlog
        self._unlooked = backlog
        self._full = False
        self._stopping = False

    def stop(self) -> None:
        """Receive nothing more."""
        self._stopping = True

    async def run(self) -> None:
        """Land until stopped (or cancelled while waiting for messages)."""
        while not self._stopping and self._transport.capabilities.receives:
            try:
                if await self._has_room():
                    await self._land_some()
                    continue
            except Exception as error:
                log.warning("Landing failed; nothing was acknowledged and it is tried again: %s", error)
                self._unlooked = self._backlog  # receive nothing before the store answers again
            await asyncio.sleep(PAUSE_SECONDS * self._world.random.uniform(0.5, 1.5))

    async def _has_room(self) -> bool:
        """Say whether more may land; the store is asked once for every tenth of the backlog."""
        if self._unlooked * 10 < self._backlog:
            return True
        waiting, name = await self._waiting()
        full = waiting >= self._backlog
        if full and not self._full:
            log.warning("Landing pauses: %d events wait for %s, and the broker keeps the others.", waiting, name)
        elif self._full and not full:
            log.warning("Landing goes on: %d events wait for %s.", waiting, name)
        self._full, self._unlooked = full, 0 if not full else self._unlooked
        return not full

    async def _waiting(self) -> tuple[int, str]:
        """Return how many events wait for the subscription of this service that has most, and its name."""
        said = self._store.reading
        head, counts = await said.head(), await said.counts()
        # A projection that is built from the beginning is far behind, and nobody waits for it.
        left_out = (RELAY, PROJECTION)
        rows = [row for row in await said.subscriptions() if row.service == self._source and row.kind not in left_out]
        waiting = [
            (await self._unreached(said, row, head) + counts.get((row.name, "ready"), 0), row.name)
            for row in rows
            if row.paused_by is None  # an operator's pause shall not stop everything else
        ]
        return max(waiting, default=(0, "nobody"))

    async def _unreached(self, said: Statements, row: SubscriptionRow, head: int) -> int:
        passed = head - min([step.position for step in await said.steps(row.name)], default=head)
        return passed if passed < self._backlog else (await said.pending(row.name, row.types))[0]

    async def _land_some(self) -> None:
        deliveries = await self._transport.receive(BATCH)
        try:
            async with self._kept(deliveries):
                await self.land(deliveries)
        except Exception:
            await self._give_back(deliveries)
            raise
        self._unlooked += len(deliveries)

    @asynccontextmanager
    async def _kept(self, deliveries: Sequence[Delivery]) -> AsyncIterator[None]:
        """Extend the leases of messages as long as the block goes on."""
        lease = self._transport.capabilities.lease_seconds
        if lease is None:
            yield
            return
        extending = asyncio.create_task(self._extend(deliveries, lease / EXTENSIONS))
        try:
            yield
        finally:
            extending.cancel()

    async def _extend(self, deliveries: Sequence[Delivery], every: float) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await self._transport.extend(deliveries)
            except TransportError as error:
                log.warning("Leases could not be extended; what lands may come again: %s", error)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self._transport.give_back(deliveries, PAUSE_SECONDS)
        except TransportError as error:
            log.warning("What did not land could not be given back; it comes again when its lease ends: %s", error)

    async def land(self, deliveries: Sequence[Delivery]) -> None:
        """Land some messages in one transaction, then acknowledge them; those whose data cannot be had now wait."""
        read, waiting = await self.read_all(deliveries)
        arrived = [await self._ours(delivery, each) for delivery, each in read]
        await self._store.run(lambda statements: self.write(statements, arrived))
        reach("landing.before_acknowledge")
        await self._transport.settle([delivery for delivery, _ in read])
        if waiting:
            await self._give_back(waiting)

    async def read_all(self, deliveries: Sequence[Delivery]) -> tuple[list[tuple[Delivery, Arrived]], list[Delivery]]:
        """Return what messages say, and those that must wait: their data is elsewhere and cannot be had now, or that
        of an earlier one of their key. Raises BlobsError where nothing but such has come."""
        if self._blobs is None:
            return [(delivery, await self.read(delivery)) for delivery in deliveries], []
        answers = await asyncio.gather(*map(self.read, deliveries), return_exceptions=True)
        read: list[tuple[Delivery, Arrived]] = []
        waiting: list[Delivery] = []
        closed: dict[str | None, BlobsError] = {}
        for delivery, answer in zip(deliveries, answers, strict=True):
            if isinstance(answer, BlobsError):
                waiting.append(delivery)
                closed[envelope_from_json(delivery.body).key] = answer
            elif isinstance(answer, BaseException):
                raise answer
            elif answer[0].key is not None and answer[0].key in closed:
                waiting.append(delivery)
            else:
                read.append((delivery, answer))
        for error in list(closed.values())[:1]:
            if not read:
                raise error
            log.warning("%d of %d messages wait for data that is elsewhere: %s", len(waiting), len(deliveries), error)
        return read, waiting

    async def read(self, delivery: Delivery) -> Arrived:
        """Return the envelope of a message, or the record of a refused one and the reason."""
        if delivery.broken is not None:
            return self.refuse(delivery, f"broken: it {delivery.broken}")
        try:
            envelope = await redeem(traced(envelope_from_json(delivery.body), delivery.headers), self._blobs)
            check(envelope)
        except (EnvelopeError, StrictJSONError) as error:
            return self.refuse(delivery, f"unreadable: {error}")
        if envelope.time != UNDATED and microseconds(envelope.time) < self._world.now() - self._horizon:
            reason = (
                f"too_old: {envelope.time.isoformat()} is before the horizon, so a duplicate could not be recognised"
            )
            return self.refuse(delivery, reason)
        return envelope, None

    def refuse(self, delivery: Delivery, reason: str) -> Arrived:
        """Return the event that keeps the bytes of a refused message, and why; the same bytes give the same id."""
        body = base64.b64encode(delivery.body).decode()
        data = msgspec.json.encode({"body_base64": body, "headers": delivery.headers, "reason": reason})
        event_id = derive_id(self._source, body, LANDING, 0)
        envelope = Envelope(
            id=event_id, source=self._source, type=REFUSED, time=self._world.clock(), correlation=event_id, data=data
        )
        return envelope, reason

    async def _ours(self, delivery: Delivery, arrived: Arrived) -> Arrived:
        """Return what arrived; the record of a refused message where it names this service, and is not in its log."""
        envelope, refused = arrived
        if refused is not None or envelope.source != self._source:
            return arrived
        if any(record.envelope.source == self._source for record in await self._store.reading.find(envelope.id)):
            return arrived
        reason = (
            f"not_ours: it says that it comes from {self._source!r}, which is this service, and is not in its log. Let "
            "whoever sends it have a name of its own; or this log was restored, and has forgotten it."
        )
        return self.refuse(delivery, reason)

    async def write(self, statements: Statements, arrived: Sequence[Arrived]) -> None:
        """Write what was read into the log, and what was refused among the exceptions."""
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
        held = Held(
            subscription=LANDING,
            position=found.position,
            lane=found.lane,
            key=envelope.key,
            blocks=False,
            state=PARKED if refused is None else DEAD,
            reason=refused or f"No subscription on this log knows {envelope.type}.",
            updated=self._world.now(),
        )
        if refused is not None:
            note(held, envelope, refused)
        return held


def traced(envelope: Envelope, headers: Mapping[str, str]) -> Envelope:
    """Return an envelope with the broker's own trace, if it has none itself."""
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    if envelope.traceparent is not None or not is_traceparent(parent):
        return envelope
    return replace(envelope, traceparent=parent, tracestate=state if is_tracestate(state) else None)
