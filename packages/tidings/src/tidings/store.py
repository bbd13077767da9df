"""PORT: who runs statements: one database, its transactions and its upkeep. What they say is in `statements.py`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from tidings.events import Envelope
from tidings.rows import Append, Holder, WorkerRow
from tidings.statements import Statements

T = TypeVar("T")
Upkept = tuple[dict[str, int], list[str]]
"""How many events of each retention class were let go, and why each change that is left to the next time failed."""

# Topics besides event types: what a commit may have changed.
READY_CHANGED, HELD_CHANGED, KEY_RELEASED = "#ready", "#held", "#key"
SCHEDULED_CHANGED, SUBSCRIPTION_CHANGED, LOG_CHANGED = "#scheduled", "#subscription", "#log"
PROGRESS_CHANGED, SAGA_CHANGED = "#progress", "#saga"


async def append_to_stream(statements: Statements, append: Append) -> int | None:
    """Move the head of a stream, then write the events: the unit of an append that stands alone."""
    head = await statements.move_head(append.stream, append.expected, len(append.envelopes))
    if head is not None:
        await statements.append(append.placed(head))
    return head


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

    def publish(self, envelopes: Sequence[Envelope]) -> Awaitable[None]:
        """Append in a transaction shared with everyone who publishes now (group commit). Returns once durable."""

    async def append(self, append: Append) -> int | None:
        """Append to a stream in a transaction shared with everyone who does so now; returns its version once durable.

        None if the stream's head is not the expected one, or it is archived: nothing is written then.
        """

    async def run(self, unit: Callable[[Statements], Awaitable[T]]) -> T:
        """Run a closed unit (no user code, no waiting) in a transaction; it may share one with others."""

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        """Open a transaction of one's own: commits at the end, rolls back when the block raises."""

    @property
    def reading(self) -> Statements:
        """Statements over committed state, outside any transaction."""

    def snapshot(self) -> AbstractAsyncContextManager[Statements]:
        """Statements over one committed state that does not change meanwhile. The block awaits nothing else."""

    def querying(self) -> AbstractAsyncContextManager[Statements]:
        """Statements over one committed state for the user's questions, which may wait meanwhile, but not for long.

        What would write is refused with StatementError. Raises TransactionHeldTooLongError.
        """

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

    async def holder(self) -> Holder | None:
        """Return whom readers of the log wait for at this moment; None if they never wait on this store."""

    async def status(self) -> Mapping[str, object]:
        """Return facts about the file."""
