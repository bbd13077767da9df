"""PORT: what a store must do. Statements are apart from who runs them, so they can join a transaction of the user's."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from tidings.events import Envelope

T = TypeVar("T")
Value = str | int | float | bytes | bool | None
"""What a placeholder of the user's SQL takes on every store. Postgres takes its own types besides."""
Upkept = tuple[dict[str, int], list[str]]
"""How many events of each retention class were let go, and why each change that is left to the next time failed."""

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


class UserStatements(Protocol):
    """The user's own SQL. Placeholders are $1, $2, … and are bound by number."""

    async def execute(self, sql: str, args: Sequence[Value]) -> int:
        """Execute the user's statement; return how many rows it changed."""

    async def query(self, sql: str, args: Sequence[Value]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Execute the user's query; return column names and rows."""

    async def savepoint(self) -> None:
        """Mark a place to return to; places nest."""

    async def release(self) -> None:
        """Keep what was done since the last savepoint."""

    async def roll_back_to_savepoint(self) -> None:
        """Undo what was done since the last savepoint."""


class LogStatements(Protocol):
    """What is said of the log. `admit` returns what had not come before; `read` never skips what is committed."""

    async def append(self, envelopes: Sequence[Envelope]) -> None:
        """Write events to the end of the log, in this order."""

    async def admit(self, envelopes: Sequence[Envelope], *, undated_at: int | None = None) -> list[Envelope]:
        """Note that these have come; return those that had not come before."""

    async def read(self, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int) -> Page:
        """Read the events of some types and lanes after a position, in order of position."""

    async def records(self, positions: Sequence[int]) -> dict[int, Record]:
        """Return the events at some positions."""

    async def find(self, event_id: str) -> list[Record]:
        """Return the events with an id: at most one for each source."""

    async def caused_by(self, correlation: str) -> list[Record]:
        """Return every event that followed from a first one, which is not among them."""

    async def recent(self, after: int, limit: int) -> list[Record]:
        """Return events after a position, whatever their type."""

    async def head(self) -> int:
        """Return the position of the newest event, 0 if there is none."""

    async def position_at(self, time: int) -> int:
        """Return the position after which events are not older than a time (microseconds)."""

    async def keeps(self) -> list[str]:
        """Return the retention classes that the log holds."""

    async def drop(self, keep: str, after: int, through: int, older_than: int) -> int:
        """Drop a class's settled events (no dead letter's) between two positions, before a time; return how many."""

    async def forget_admitted(self, before: int, limit: int) -> int:
        """Forget what was admitted with a time before one (microseconds), or without and before it; return how many."""

    async def horizon(self) -> int:
        """Return the longest horizon that a service has said (microseconds), 0 if none has."""


class ProgressStatements(Protocol):
    """What is said of subscriptions, workers and lanes. `advance` is the fence: False means another owner."""

    async def registering(self) -> None:
        """Keep every other transaction that registers, lands or takes lanes waiting until this one has ended."""

    async def register(self, row: SubscriptionRow) -> None:
        """Write a subscription: first with lanes at `start` in its name's next version, later what it declares."""

    async def subscriptions(self, *, steady: bool = False) -> list[SubscriptionRow]:
        """Return every subscription on this log. `steady`: nobody registers until this transaction has ended."""

    async def fence(self, subscription: str) -> None:
        """Insert a step that moves nothing in every lane: whoever owns one must take it anew before it commits."""

    async def rename(self, old: str, new: str) -> None:
        """Give a subscription another name; its progress and exceptions go with it."""

    async def forget(self, name: str) -> None:
        """Remove a subscription with its progress and exceptions."""

    async def pause(self, name: str, actor: str | None, reason: str | None) -> bool:
        """Pause a subscription in somebody's name, or resume it (no actor); say whether there is such a one."""

    async def beat(self, row: WorkerRow, now: int) -> None:
        """Write a worker's heartbeat."""

    async def workers(self) -> list[WorkerRow]:
        """Return every worker that has not retired, the dead included."""

    async def retire(self, worker: str) -> None:
        """Remove a worker."""

    async def steps(self, subscription: str) -> list[LaneStep]:
        """Return the newest step of each lane."""

    async def advance(self, subscription: str, steps: Sequence[LaneStep]) -> bool:
        """Insert a lane's next step; False if another owner has inserted it: then nothing of this may commit."""

    async def floors(self) -> dict[str, int]:
        """Return for each subscription the position up to which it needs no event any more."""

    async def pending(self, subscription: str, types: Sequence[str] | None) -> tuple[int, int | None]:
        """Return how many events a subscription has not reached yet, and the time of the oldest (microseconds)."""


class HeldStatements(Protocol):
    """What is said of the exceptions."""

    async def hold(self, rows: Sequence[Held]) -> None:
        """Write exceptions, each in place of the one at its position."""

    async def unhold(self, subscription: str, position: int) -> bool:
        """Remove an exception; say whether it was there."""

    async def held(self, subscription: str | None, positions: Sequence[int]) -> list[Held]:
        """Return the exceptions at some positions, of one subscription or of all."""

    async def holds_any(self, subscription: str) -> bool:
        """Say whether a subscription has exceptions that are not settled for good."""

    async def closed_keys(self, subscription: str, keys: Sequence[str], *, by_work: bool = False) -> set[str]:
        """Return which of the keys an unsettled event holds; `by_work`: one that is ready or runs."""

    async def due(self, subscription: str, lanes: Sequence[int], now: int, limit: int) -> list[Held]:
        """Return the retries of some lanes whose time has come, the oldest position of them first."""

    async def next_due(self, subscription: str, lanes: Sequence[int]) -> int | None:
        """Return when the next retry of some lanes is due (microseconds)."""

    async def holder(self, subscription: str, key: str) -> int | None:
        """Return the position of the event that holds a key: the first of it that is not settled."""

    async def next_behind(self, subscription: str, key: str) -> Held | None:
        """Return the first follower of a key that nothing holds any more, None if something does."""

    async def heads_to_be(self, subscription: str, lanes: Sequence[int], limit: int) -> list[Held]:
        """Return the first follower of each key that nothing holds any more."""

    async def letters(self, states: Sequence[str], subscription: str | None, after: int, limit: int) -> list[Held]:
        """Return exceptions in some states after a position, of one subscription or of all."""

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return how many exceptions each subscription has, by state; work waiting and running as "ready"."""


class ReadyStatements(Protocol):
    """What is said of work. `unready` and `give_back` are fenced by owner and attempt."""

    async def fill(self, rows: Sequence[Ready]) -> None:
        """Add work that waits, or that an owner has."""

    async def claim(self, subscription: str, owner: str, after: str, limit: int, now: int) -> list[Ready]:
        """Take work that waits, the shares in turn from the one after `after`; each start counts as an attempt."""

    async def unready(self, row: Ready) -> bool:
        """Remove work that this attempt has settled; False if the attempt is not the current one any more."""

    async def give_back(self, row: Ready, *, counted: bool) -> bool:
        """Let work wait again; `counted` says whether the attempt stays counted."""

    async def running(self, subscription: str) -> list[Ready]:
        """Return the work that an owner has."""

    async def ready(self, positions: Sequence[int]) -> list[Ready]:
        """Return the work at some positions, of all subscriptions."""


class ScheduledStatements(Protocol):
    """What is said of publishes that are not events yet."""

    async def schedule(self, rows: Sequence[Scheduled]) -> None:
        """Keep publishes until they are due. What is already kept under its source and id stays as it is."""

    async def cancel(self, source: str, event_id: str) -> bool:
        """Forget a scheduled publish; False if it has become an event, or never was scheduled."""

    async def fire(self, now: int, limit: int) -> list[Scheduled]:
        """Take away and return what is due, the earliest first."""

    async def next_scheduled(self) -> int | None:
        """Return when the next one is due (microseconds)."""

    async def scheduled(self, event_id: str) -> list[Scheduled]:
        """Return the scheduled publishes with an id: at most one for each source."""

    async def all_scheduled(self, limit: int) -> list[Scheduled]:
        """Return what is scheduled, the earliest first."""


class Statements(
    UserStatements, LogStatements, ProgressStatements, HeldStatements, ReadyStatements, ScheduledStatements, Protocol
):
    """Everything that is said to the store within one transaction. None of it commits."""


class Store(Protocol):
    """One database: a log, and everything that hangs on it."""

    lanes: int
    """Into how many lanes the keys of this log hash; fixed when the log was made."""

    batch: int
    """Events that one settling transaction takes at most."""

    cheap_savepoints: bool
    """If every handler shall have one; else a batch has none, and is run again with them where a handler fails."""

    several_processes: bool
    """True if several processes may write."""

    append_sql: str
    """One event's insert for any driver: $1 the hash of its lane, then the values of columns.envelope_row, in order."""

    host: str
    """The space in which a worker's process id means one process."""

    @property
    def history(self) -> int:
        """Counts up when the newest events may be gone (failover, restore): how far one had read is void then."""

    async def open(self, *, migrate: bool, read_only: bool = False) -> None:
        """Open the database; raises StoreVersionError when migrations are missing and may not be applied."""

    async def close(self) -> None:
        """Wait for commits under way, and close."""

    async def script(self, sql: str) -> None:
        """Run a script of the service's own tables."""

    async def migrations(self) -> list[tuple[str, str, bool]]:
        """Return every migration: its name, its SQL, and whether it was applied."""

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Append in a transaction shared with everyone who publishes now (group commit). Returns once durable."""

    async def run(self, unit: Callable[[Statements], Awaitable[T]]) -> T:
        """Run a closed unit (no user code, no waiting) in a transaction; it may share one with others."""

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        """Open a transaction of one's own: commits at the end, rolls back when the block raises."""

    @property
    def reading(self) -> Statements:
        """Statements over committed state, outside any transaction."""

    def snapshot(self) -> AbstractAsyncContextManager[Statements]:
        """Statements over one committed state that does not change meanwhile. The block awaits nothing else."""

    def listen(self, topics: Iterable[str], wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each commit that touches a topic (an event type, or one of TOPICS). Returns how to stop."""

    def is_alive(self, worker: WorkerRow, now: int) -> bool:
        """Say whether a worker can still hold leases."""

    async def look_elsewhere(self) -> bool | None:
        """Wake every listener if another process has committed since the last look, and say so; None: none can."""

    async def take_turn(self, service: str, horizon: int, now: int, every: int) -> bool:
        """Note a service's horizon; say whether this process has the turn at upkeep, which comes every so often."""

    async def upkeep(self, keeps: Sequence[str], now: int, progress: Callable[[int], None]) -> Upkept:
        """Prepare for retention classes; let go of what is settled and past its retention."""

    async def status(self) -> Mapping[str, object]:
        """Return facts about the file."""


# Topics besides event types: what a commit may have changed.
READY_CHANGED, HELD_CHANGED, KEY_RELEASED = "#ready", "#held", "#key"
SCHEDULED_CHANGED, SUBSCRIPTION_CHANGED, LOG_CHANGED = "#scheduled", "#subscription", "#log"
PROGRESS_CHANGED = "#progress"
