"""What the store keeps: one row of each table, as the code above it sees them."""

from msgspec import Struct

from tidings.events import Envelope

# States of a held row. `retry` is due at a time, `behind` waits for its key's head, `parked` for code that knows it.
RETRY, BEHIND, PARKED, DEAD, DISCARDED = "retry", "behind", "parked", "dead", "discarded"
LANDING = "*"
"""The name under which a service holds what landed and no subscription knows."""


class Record(Struct, frozen=True):
    """An event in the log, at its global position."""

    position: int
    lane: int
    envelope: Envelope


class Page(Struct, frozen=True):
    """One read of the log: what matched, and the position up to which everything was looked at."""

    records: list[Record]
    scanned: int


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


class Scheduled(Struct, frozen=True):
    """A publish that is not an event yet, and when it becomes one (microseconds)."""

    due: int
    envelope: Envelope
