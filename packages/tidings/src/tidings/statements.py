"""PORT: what is said to a store within one transaction. None of it commits, so it can join one of the user's."""

from collections.abc import Sequence
from typing import Any, Protocol

from tidings.events import Envelope
from tidings.rows import (
    BarePage,
    Followed,
    Held,
    LaneStep,
    Page,
    ProjectionRow,
    Ready,
    Record,
    SagaRow,
    Scheduled,
    SnapshotRow,
    StreamHead,
    SubscriptionRow,
    WorkerRow,
)

Value = str | int | float | bytes | bool | None
"""What a placeholder of the user's SQL takes on every store. Postgres takes its own types besides."""


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

    async def followed(self, log: str) -> Followed | None:
        """Return how far the log of another service was read, None if it never was."""

    async def followed_logs(self) -> dict[str, Followed]:
        """Return every log that was followed from here, by its place, and how far it was read."""

    async def follow(self, log: str, before: Followed | None, after: Followed) -> bool:
        """Write how far a log was read, if it was at `before`; False if it was not: then nothing of this may commit."""

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


RecordedRow = Sequence[Any]
"""The values of columns.RECORDED_COLUMNS of one event."""


class StreamStatements(Protocol):
    """What is said of streams. `move_head` is the check of the expected version; the events themselves go by `append`.

    Archived streams are left out of what is read, unless `archived` is said.
    """

    async def move_head(self, stream: str, expected: int | None, count: int) -> int | None:
        """Move a stream's head on, if it is at `expected` (0: there is none; None: any) and not archived.

        Returns its version then; None if it is another: nothing is written, and the transaction goes on.
        """

    async def stream_head(self, stream: str) -> StreamHead | None:
        """Return how far a stream goes, None if there is none."""

    async def stream_heads(self, prefix: str, after: str, limit: int, *, archived: bool) -> list[StreamHead]:
        """Return the streams whose names begin with `prefix` and come after a name, in order of name."""

    async def archive_stream(self, stream: str, at: int | None) -> bool:
        """Archive a stream (`at` is the time), or bring it back (None); False if there is no such stream."""

    async def stream_events(
        self, stream: str, after: int, before: int, since: int, limit: int, *, backward: bool, archived: bool
    ) -> Sequence[RecordedRow]:
        """Read the events of a stream between two versions (both left out), not older than a time (microseconds)."""

    async def events_of_streams(
        self, after: int, prefix: str, limit: int, *, archived: bool
    ) -> tuple[Sequence[RecordedRow], int]:
        """Read the events of streams after a position, and say up to which all of them were looked at.

        That is `after` itself once there is nothing more. None of what is committed is ever skipped.
        """

    async def events_of_streams_back(
        self, before: int | None, prefix: str, limit: int, *, archived: bool
    ) -> tuple[Sequence[RecordedRow], int]:
        """Read the events of streams before a position (None: the newest on), the last one first.

        Says down to which position all were looked at; 1 is the end.
        """

    async def snapshot_of(self, stream: str, decider: str) -> SnapshotRow | None:
        """Return the state that a decider kept of a stream."""

    async def keep_snapshot(self, row: SnapshotRow) -> None:
        """Keep a state in place of an older one, or of one that another version of its class wrote."""


class SagaStatements(Protocol):
    """What is said of sagas. `save_saga` compares and sets: False means that another transaction was faster."""

    async def load_saga(self, saga_name: str, saga_id: str) -> SagaRow | None:
        """Return a saga as it is now, None if none has begun."""

    async def save_saga(self, row: SagaRow) -> bool:
        """Write a saga in the version after the one that the store has; False if the store has another."""

    async def sagas(
        self, saga_name: str | None, statuses: Sequence[str], after: tuple[str, str], limit: int
    ) -> list[SagaRow]:
        """Return sagas in some states, in order of name and id, after one of them; of one name or of all."""

    async def saga_counts(self) -> dict[tuple[str, str], int]:
        """Return how many sagas of each name are in each state."""

    async def saga_needs(self, saga_name: str) -> list[tuple[tuple[str, ...], int]]:
        """Return what the unfinished sagas of a name need of the code, each once, and how many need it."""

    async def forget_sagas(self, now: int, limit: int) -> int:
        """Forget finished sagas that have expired; return how many."""


class ProjectionStatements(Protocol):
    """What is said of projections: their versions, how far each is, and what they have handled inline."""

    async def projections(self) -> list[ProjectionRow]:
        """Return every version of every projection on this log, by name and version."""

    async def live_version(self, name: str) -> int | None:
        """Return the version of a projection that queries read; None if there is none."""

    async def register_projection(self, row: ProjectionRow) -> None:
        """Write a version; of one that is known, only its tables and `inline` change."""

    async def go_live(self, name: str, version: int) -> None:
        """Let queries read this version of a projection, and no other."""

    async def forget_projection(self, row: ProjectionRow) -> None:
        """Remove a version with its subscription and its tables."""

    async def rewind(self, row: ProjectionRow) -> None:
        """Empty a version's tables, forget its exceptions, and set its lanes back to where it started."""

    async def replay(self, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int) -> BarePage:
        """Read as `read` does, but only what a replay needs of each event."""

    async def behind(self, subscription: str, other: str) -> int:
        """Return how many of its events a subscription has not reached that another one has passed."""

    async def reached(self, subscription: str, position: int) -> bool:
        """Say whether a subscription has passed every event of its own up to a position."""

    async def count(self, types: Sequence[str], after: int) -> int:
        """Return how many events of some types lie after a position."""

    async def wait_for_inline_turn(self, subscription: str, envelopes: Sequence[Envelope]) -> None:
        """Wait until no other transaction handles inline what these events might meet, and let none before the end."""

    async def lanes_without_backlog(self, subscription: str, lanes: Sequence[int]) -> set[int]:
        """Return in which lanes a subscription that is not paused has handled everything, inline or in turn."""

    async def mark_inline(self, subscription: str, envelopes: Sequence[Envelope]) -> None:
        """Note events that were handled within the transaction that publishes them."""

    async def any_inline(self, subscription: str) -> bool:
        """Say whether events are noted that the subscription's lanes have not passed."""

    async def take_inline(self, subscription: str, envelopes: Sequence[Envelope]) -> set[tuple[str, str]]:
        """Forget the notes of some events, which a lane passes; return (source, id) of those that had one."""


class Statements(
    UserStatements,
    LogStatements,
    ProgressStatements,
    HeldStatements,
    ReadyStatements,
    ScheduledStatements,
    StreamStatements,
    SagaStatements,
    ProjectionStatements,
    Protocol,
):
    """Everything that is said to the store within one transaction. None of it commits."""
