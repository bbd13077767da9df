"""What a service tells itself when an event of its own did not reach the others: a fact on its own log."""

from datetime import timedelta

import msgspec

from tidings.events import UNDATED, Envelope, Event, Registry, decode_event, encode_event
from tidings.world import World


class Undelivered(Event, name="tidings.undelivered", version=1, keep=timedelta(days=30)):
    """An event of this service has become a dead letter of its relay: the broker refused it for good, or gave it up.

    It waits there for whoever redrives or discards it; if it fails again, that is another fact. `reason` says why;
    `service.original(…)` reads the event itself. Its key is that of the event. It stays on its log.
    """

    event_id: str
    type: str
    version: str
    reason: str
    data: msgspec.Raw


def undelivered(envelope: Envelope, reason: str, world: World) -> Envelope:
    """Return the envelope that says of an event that it is a dead letter of the relay."""
    said = Undelivered.__event_type__
    fact = Undelivered(
        event_id=envelope.id, type=envelope.type, version=envelope.version, reason=reason,
        data=msgspec.Raw(envelope.data),
    )  # fmt: skip
    return Envelope(
        id=world.fresh_id(), source=envelope.source, type=said.name, time=world.clock(), keep=said.keep,
        correlation=envelope.correlation, causation=envelope.id, key=envelope.key, data=encode_event(fact),
        traceparent=envelope.traceparent, tracestate=envelope.tracestate,
    )  # fmt: skip


def original(told: Undelivered, registry: Registry) -> Event:
    """Return the event itself, as this release reads it; raises ParkedEventError and EventDecodeError, as handling."""
    envelope = Envelope(
        id=told.event_id, source="", type=told.type, version=told.version, time=UNDATED, correlation=told.event_id,
        data=bytes(told.data),
    )  # fmt: skip
    return decode_event(envelope, registry)
