"""Step 1 of publishing: wrap an event into its envelope."""

from contextvars import ContextVar
from datetime import datetime

from msgspec import Struct

from tidings.errors import EventEncodeError
from tidings.events import MAX_BYTES, Envelope, Event, Registry, derive_id, encode_event, key_of, share_of
from tidings.events.envelope import MAX_LENGTHS
from tidings.events.trace import is_traceparent
from tidings.publishing.outbox import Inline
from tidings.world import World

HANDLING: ContextVar[Envelope | None] = ContextVar("tidings_handling", default=None)
"""The envelope being handled here, so that what is published meanwhile knows its cause."""


class Cause(Struct, frozen=True):
    """Where an event comes from: what its correlation, causation and trace context will say."""

    correlation: str | None = None
    causation: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    @classmethod
    def of(cls, envelope: Envelope) -> "Cause":
        """Return the cause that a handled envelope is."""
        return cls(envelope.correlation, envelope.id, envelope.traceparent, envelope.tracestate)


NO_CAUSE = Cause()


class Producer:
    """Wraps the events of one service. `source` is the service's name, on every envelope."""

    def __init__(self, source: str, registry: Registry, world: World) -> None:
        self.source = source
        self.inline: Inline | None = None
        self._registry = registry
        self._world = world

    def wrap(
        self,
        event: Event,
        cause: Cause = NO_CAUSE,
        event_id: str | None = None,
        stream: str | None = None,
        stream_version: int | None = None,
        time: datetime | None = None,
    ) -> Envelope:
        """Return the envelope of an event; its time is now and its id is fresh, unless they are given.

        Of a class without a key, its key is `stream`. Raises EventEncodeError if the event does not fit its own class,
        or its data is larger than 1 MiB.
        """
        declared = type(event).__event_type__
        data = _encoded(event)
        now = time or self._world.clock()
        event_id = self._world.ids(now, self._world.random) if event_id is None else check_id(event_id)
        # By position: by name an envelope takes four times as long to build.
        return Envelope(
            event_id,
            self.source,
            declared.name,
            now,
            cause.correlation or event_id,
            data,
            None,  # the subject
            key_of(event) if declared.key else stream,
            share_of(event) if declared.fair_by else None,
            cause.causation,
            cause.traceparent,
            cause.tracestate,
            declared.version,
            declared.keep,
            None,  # what it supersedes
            {},
            stream,
            stream_version,
        )

    def now(self) -> datetime:
        """Return the time of what is wrapped now."""
        return self._world.clock()


def _encoded(event: Event) -> bytes:
    data = encode_event(event)
    if len(data) > MAX_BYTES:
        raise EventEncodeError(
            f"{event.__event_type__.name} is {len(data)} bytes, more than {MAX_BYTES}: store the large part elsewhere "
            "and let the event carry its address."
        )
    return data


class StableIds:
    """The ids of what one subscription publishes while handling one event: the same on every attempt."""

    __slots__ = ("_incoming", "_ordinal", "_subscription")

    def __init__(self, incoming: Envelope, subscription: str) -> None:
        self._incoming = incoming
        self._subscription = subscription
        self._ordinal = 0

    def next(self) -> str:
        """Return the id of the next publish."""
        event_id = derive_id(self._incoming.source, self._incoming.id, self._subscription, self._ordinal)
        self._ordinal += 1
        return event_id

    def named(self, name: str) -> str:
        """Return an id for a name: whatever else is published, it stays the same."""
        return derive_id(self._incoming.source, self._incoming.id, f"{self._subscription}\n*{name}", 0)

    def idempotency_key(self) -> str:
        """Return the key for effects outside the transaction."""
        return derive_id(self._incoming.source, self._incoming.id, self._subscription, -1)


def check_id(event_id: str) -> str:
    """Return an id; raises EventEncodeError for one that an envelope may not carry."""
    if not 0 < len(event_id) <= MAX_LENGTHS["id"] or not event_id.isprintable():
        raise EventEncodeError(
            f"The id {event_id!r:.60} cannot be published: use 1 to {MAX_LENGTHS['id']} printable characters."
        )
    return event_id


def check_traceparent(traceparent: str) -> None:
    """Raise EventEncodeError for what is no traceparent of W3C trace context."""
    if not is_traceparent(traceparent):
        raise EventEncodeError(
            f"traceparent={traceparent!r:.80} cannot be published: W3C trace context wants lower-case hexadecimal such "
            "as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01; leave it out to begin a trace."
        )
