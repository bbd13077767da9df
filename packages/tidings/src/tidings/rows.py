"""What the store keeps: one row of each table, as the code above it sees them."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from tidings.events import Envelope

# States of a held row. `retry` is due at a time, `behind` waits for its key's head, `parked` for code that knows it.
RETRY, BEHIND, PARKED, DEAD, DISCARDED = "retry", "behind", "parked", "dead", "discarded"
LANDING = "*"
"""The name under which a service holds what landed and no subscription knows."""

REFUSED = "tidings.refused"
"""Type of the event that records a message which cannot be an event here; its data holds the bytes and the reason. It
stays on its log."""


class Record(Struct, frozen=True, gc=False):
    """An event in the log, at its global position."""

    position: int
    lane: int
    envelope: Envelope


class Page(Struct, frozen=True):
    """One read of the log: what matched, and the position up to which everything was looked at."""

    records: list[Record]
    scanned: int


class Followed(Struct, frozen=True):
    """How far another service's log was read, for each type; and which event was the last that landed from it."""

    positions: dict[str, int]
    position: int = 0
    event_id: str = ""


class Failure(Struct, frozen=True):
    """One failed attempt: its number, when (microseconds since 1970 UTC), and what was raised."""

    attempt: int
    time: int
    error: str
    message: str
    traceback: str


class SubscriptionRow(Struct, frozen=True):
    """What the store knows of a subscription. Events after position `start` are its own."""

    name: str
    service: str
    kind: str
    ordered: bool
    types: tuple[str, ...]
    start: int
    version: int = 1
    paused_by: str | None = None
    paused_because: str | None = None


class ProjectionRow(Struct, frozen=True):
    """One version of a projection: its subscription, its tables, and whether it is the one that queries read."""

    name: str
    version: int
    service: str
    subscription: str
    tables: tuple[str, ...]
    inline: bool = False
    live: bool = False


class BarePage(Struct, frozen=True):
    """One read of the log for a replay: of each event (position, lane, time, type, version, data), and how far."""

    rows: Sequence[tuple[int, int, int, str, str, bytes]]
    scanned: int


class WorkerRow(Struct, frozen=True):
    """A process at work: its heartbeat keeps every lease that hangs on it. Times in microseconds.

    `roles`: "consumers" (and "consumers:NAME" for each subscription), "relay"; none for one that only publishes.
    """

    id: str
    service: str
    host: str
    pid: int
    started: int
    expires: int
    roles: tuple[str, ...] = ()


class LaneStep(Struct, frozen=True):
    """The newest step of one lane's progress chain; `owner` is None once the lane was released."""

    lane: int
    step: int
    position: int
    owner: str | None


class Held(Struct, frozen=True):
    """An exception to progress: an event that one subscription could not handle yet, or will not.

    `blocks`: it holds its key, so later events of that key wait `behind` it. `due` and `updated` are microseconds.
    """

    subscription: str
    position: int
    lane: int
    key: str | None
    blocks: bool
    state: str
    attempts: int = 0
    due: int | None = None
    reason: str | None = None
    failures: tuple[Failure, ...] = ()
    actor: str | None = None
    updated: int = 0


class Ready(Struct, frozen=True):
    """Work waiting, or running `since` a time. `attempt` counts starts; with `owner` it is the settlement's fence."""

    subscription: str
    share: str
    position: int
    lane: int
    key: str | None
    attempt: int = 0
    owner: str | None = None
    failures: tuple[Failure, ...] = ()
    since: int | None = None


# States of a saga. The last two end it.
RUNNING, COMPENSATING, STUCK, COMPLETED, COMPENSATED = "running", "compensating", "stuck", "completed", "compensated"
FINISHED = (COMPLETED, COMPENSATED)


class SagaNote(Struct, frozen=True):
    """One line of a saga's journal: an event, what the saga's status was after it, and what it did."""

    time: int
    type: str
    event_id: str
    status: str
    text: str


class SagaRow(Struct, frozen=True):
    """The state of one saga. `version` counts its changes, and is what a change compares; 0: it is not saved yet.

    `needs`: steps that the code must have for it to go on. `timers`: name -> id of the signal that is scheduled.
    `expires`: when a finished one may be forgotten. Times are microseconds.
    """

    saga: str
    id: str
    status: str
    version: int
    state_version: int
    state: bytes
    needs: tuple[str, ...] = ()
    timers: dict[str, str] = {}
    journal: tuple[SagaNote, ...] = ()
    reason: str | None = None
    started: int = 0
    updated: int = 0
    expires: int | None = None


class Scheduled(Struct, frozen=True):
    """A publish that is not an event yet, and when it becomes one (microseconds)."""

    due: int
    envelope: Envelope


class Append(Struct, frozen=True):
    """Events for the end of a stream that is at version `expected`: 0 for one that is not there yet, None for any.

    Where that is a number, the envelopes may have their versions already.
    """

    stream: str
    expected: int | None
    envelopes: tuple[Envelope, ...]

    def placed(self, head: int) -> list[Envelope]:
        """Return the envelopes with their versions in the stream, the last of which is its head."""
        first = head - len(self.envelopes) + 1
        if self.envelopes[0].stream_version == first:
            return list(self.envelopes)
        return [replace(envelope, stream_version=version) for version, envelope in enumerate(self.envelopes, first)]


class StreamHead(Struct, frozen=True):
    """How far a stream goes: the version of its last event; `archived` says since when (microseconds), if it is."""

    stream: str
    version: int
    archived: int | None = None


class SnapshotRow(Struct, frozen=True):
    """The state that a decider's stream has at a version, in the form that a version of the state's class wrote."""

    stream: str
    decider: str
    state_version: int
    stream_version: int
    time: int
    state: bytes


class Holder(Struct, frozen=True):
    """Who keeps readers of a database's log waiting: an open transaction that may have published.

    `name` is for people, None while nobody does; then `seconds`, the age of the transaction, is 0. A prepared
    transaction has no `pid`. `statement` is its last.
    """

    database: str
    name: str | None = None
    pid: int | None = None
    application: str | None = None
    seconds: float = 0.0
    statement: str | None = None
