"""PORT: what a store must do. Statements are apart from who runs them, so the same ones join a transaction of the user's."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from tidings.events import Envelope

T = TypeVar("T")
Value = str | int | float | bytes | bool | None
"""What a placeholder of the user's SQL takes."""

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
    """A process at work: its heartbeat keeps every lease that hangs on it. Times in microseconds."""

    id: str
    service: str
    host: str
    pid: int
    started: int
    expires: int


class LaneStep(Struct, frozen=True):
    """The newest step of one lane's progress chain; `owner` is None once the lane was released."""

    lane: int
    step: int
    position: int
    owner: str | None


class Held(Struct, frozen=True):
    """An exception to progress: an event that one subscription could not handle yet, or will not.

    `blocks`: it holds its key, so later events of that key wait `behind` it. `due` and `updated` are microseconds;
    `envelope` is a copy, made before the log lets go of the event.
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
    envelope: Envelope | None = None


class Ready(Struct, frozen=True):
    """Work waiting or running. `attempt` counts starts; with `owner` it is the fence of the settlement."""

    subscription: str
    share: str
    position: int
    lane: int
    key: str | None
    attempt: int = 0
    owner: str | None = None
    failures: tuple[Failure, ...] = ()


class Scheduled(Struct, frozen=True):
    """A publish that is not an event yet, and when it becomes one (microseconds)."""

    due: int
    envelope: Envelope


class UserStatements(Protocol):
    """The user's own SQL. Placeholders are $1, $2, … and are bound by number."""

    async def execute(self, sql: str, args: Sequence[Value]) -> int: ...
    async def query(self, sql: str, args: Sequence[Value]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]: ...
    async def savepoint(self) -> None: ...
    async def release(self) -> None: ...
    async def roll_back_to_savepoint(self) -> None: ...


class LogStatements(Protocol):
    """What is said of the log. `admit` returns what had not come before; `read` never skips what is committed."""

    async def append(self, envelopes: Sequence[Envelope]) -> None: ...
    async def admit(self, envelopes: Sequence[Envelope], *, dated: bool = True) -> list[Envelope]: ...
    async def read(self, after: int, types: Sequence[str], lanes: Sequence[int], limit: int) -> Page: ...
    async def records(self, positions: Sequence[int]) -> dict[int, Record]: ...
    async def find(self, event_id: str) -> list[Record]: ...
    async def caused_by(self, correlation: str) -> list[Record]: ...
    async def recent(self, after: int, limit: int) -> list[Record]: ...
    async def head(self) -> int: ...
    async def position_at(self, time: int) -> int: ...
    async def keeps(self) -> list[str]: ...
    async def drop(self, keep: str, through: int, older_than: int, limit: int) -> int: ...


class ProgressStatements(Protocol):
    """What is said of subscriptions, workers and lanes. `advance` is the fence: False means another owner."""

    async def register(self, row: SubscriptionRow) -> None: ...
    async def subscriptions(self) -> list[SubscriptionRow]: ...
    async def rename(self, old: str, new: str) -> None: ...
    async def forget(self, name: str) -> None: ...
    async def pause(self, name: str, actor: str | None, reason: str | None) -> bool: ...
    async def beat(self, row: WorkerRow) -> None: ...
    async def workers(self) -> list[WorkerRow]: ...
    async def retire(self, worker: str) -> None: ...
    async def steps(self, subscription: str) -> list[LaneStep]: ...
    async def advance(self, subscription: str, step: LaneStep) -> bool: ...
    async def floors(self) -> dict[str, int]: ...


class HeldStatements(Protocol):
    """What is said of the exceptions."""

    async def hold(self, rows: Sequence[Held]) -> None: ...
    async def unhold(self, subscription: str, position: int) -> bool: ...
    async def held(self, subscription: str | None, positions: Sequence[int]) -> list[Held]: ...
    async def holds_any(self, subscription: str) -> bool: ...
    async def closed_keys(self, subscription: str, keys: Sequence[str]) -> set[str]: ...
    async def due(self, subscription: str, lanes: Sequence[int], now: int, limit: int) -> list[Held]: ...
    async def next_due(self, subscription: str, lanes: Sequence[int]) -> int | None: ...
    async def next_behind(self, subscription: str, key: str) -> Held | None: ...
    async def heads_to_be(self, subscription: str, lanes: Sequence[int], limit: int) -> list[Held]: ...
    async def letters(self, states: Sequence[str], subscription: str | None, after: int, limit: int) -> list[Held]: ...
    async def counts(self) -> dict[tuple[str, str], int]: ...


class ReadyStatements(Protocol):
    """What is said of work. `unready` and `give_back` are fenced by owner and attempt."""

    async def fill(self, rows: Sequence[Ready]) -> None: ...
    async def claim(self, subscription: str, owner: str, after: str, limit: int) -> list[Ready]: ...
    async def unready(self, row: Ready) -> bool: ...
    async def give_back(self, row: Ready, *, counted: bool) -> bool: ...
    async def running(self, subscription: str) -> list[Ready]: ...
    async def ready(self, positions: Sequence[int]) -> list[Ready]: ...


class ScheduledStatements(Protocol):
    """What is said of publishes that are not events yet."""

    async def schedule(self, rows: Sequence[Scheduled]) -> None: ...
    async def cancel(self, event_id: str) -> bool: ...
    async def fire(self, now: int, limit: int) -> list[Scheduled]: ...
    async def next_scheduled(self) -> int | None: ...
    async def scheduled(self, event_id: str) -> Scheduled | None: ...
    async def all_scheduled(self, limit: int) -> list[Scheduled]: ...


class Statements(
    UserStatements, LogStatements, ProgressStatements, HeldStatements, ReadyStatements, ScheduledStatements, Protocol
):
    """Everything that is said to the store within one transaction. None of it commits."""


class Store(Protocol):
    """One database: a log, and everything that hangs on it."""

    lanes: int
    """Into how many lanes the keys of this log hash; fixed when the log was made."""

    host: str
    """The space in which a worker's process id means one process."""

    async def open(self, *, migrate: bool, read_only: bool = False) -> None:
        """Open the database; raises StoreVersionError when migrations are missing and may not be applied."""

    async def close(self) -> None: ...
    async def script(self, sql: str) -> None:
        """Run a script of the service's own tables."""

    def migrations(self) -> list[tuple[str, str, bool]]:
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

    def listen(self, topics: Iterable[str], wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each commit that touches a topic (an event type, or one of TOPICS). Returns how to stop."""

    def is_alive(self, worker: WorkerRow, now: int) -> bool:
        """Say whether a worker can still hold leases."""

    def look_elsewhere(self) -> bool | None:
        """Wake every listener if another process has committed since the last look, and say so.

        None: no other process can write here, so nobody needs to look.
        """

    def status(self) -> Mapping[str, object]: ...


# Topics besides event types: what a commit may have changed.
READY_CHANGED, HELD_CHANGED, KEY_RELEASED = "#ready", "#held", "#key"
SCHEDULED_CHANGED, SUBSCRIPTION_CHANGED = "#scheduled", "#subscription"
