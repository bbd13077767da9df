"""What a service does with streams: reads them, loads states, decides, archives."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from typing import TypeVar

from tidings.errors import ServiceError, StoreError, StreamConflictError, StreamError
from tidings.events import Event, Registry, decode_event
from tidings.publishing.publisher import Publisher
from tidings.publishing.transaction import Told, Transaction
from tidings.rows import StreamHead
from tidings.sourcing.aggregate import Aggregate
from tidings.sourcing.decider import Decider, Decision, Loaded, load
from tidings.sourcing.stream import NO_END, Reader, Recorded, pages_of_all, pages_of_all_back, pages_of_stream
from tidings.statements import StreamStatements
from tidings.world import microseconds

log = logging.getLogger("tidings")
A = TypeVar("A", bound=Aggregate)
C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E", bound=Event)

RETRIES = 10
"""So often a decision is taken again after a conflict, unless said otherwise."""

PAUSE_SECONDS = 0.002
"""About so long the first of them waits, each later one twice as long up to 16 times: losers shall not meet again."""


class Remembering(Publisher):
    """The event store's face. `Service` is one."""

    registry: Registry

    # Reading.

    async def read_stream(
        self,
        stream: str,
        *,
        after: int = 0,
        before: int | None = None,
        since: datetime | None = None,
        backward: bool = False,
        archived: bool = False,
        tx: Transaction | None = None,
    ) -> AsyncIterator[Recorded]:
        """Yield a stream's events: from the one after version `after`, or from a time on, or `backward` from the last.

        A stream that is not there has no events. With `tx` it is read in that transaction, without what it has
        appended itself. Raises StreamArchivedError unless `archived` is said.
        """
        pages = pages_of_stream(
            await self._statements(tx), stream, after=after, before=NO_END if before is None else before,
            since=_micro(since), backward=backward, archived=archived,
        )  # fmt: skip
        with Told(self.store):
            reader = Reader(self.registry)
            async for rows in pages:
                for recorded in reader.recorded(rows):
                    yield recorded

    async def read_all(
        self,
        *,
        after: int = 0,
        since: datetime | None = None,
        prefix: str = "",
        backward: bool = False,
        archived: bool = False,
    ) -> AsyncIterator[Recorded]:
        """Yield the events of all streams in global order, from a position or a time on, up to the newest.

        `prefix`: only of streams whose names begin so, such as "account-". None that is committed is skipped: where
        an older position is still open, the reading ends before it. Backward it begins at the newest.
        """
        reading = self.store.reading
        with Told(self.store):
            if since is not None:
                after = max(after, await reading.position_at(_micro(since)))
            if backward:
                pages = pages_of_all_back(reading, before=None, down_to=after, prefix=prefix, archived=archived)
            else:
                pages = pages_of_all(reading, after=after, prefix=prefix, archived=archived)
            reader = Reader(self.registry)
            async for rows in pages:
                for recorded in reader.recorded(rows):
                    yield recorded

    async def stream_version(self, stream: str) -> int:
        """Return the version of a stream's last event, 0 if there is no such stream."""
        with Told(self.store):
            head = await self.store.reading.stream_head(stream)
        return head.version if head is not None else 0

    async def streams(self, prefix: str = "", *, archived: bool = False) -> AsyncIterator[StreamHead]:
        """Yield the streams whose names begin with `prefix`, in order of name, each with its version."""
        after, limit = "", 1000
        while True:
            with Told(self.store):
                heads = await self.store.reading.stream_heads(prefix, after, limit, archived=archived)
            for head in heads:
                yield head
            if len(heads) < limit:
                return
            after = heads[-1].stream

    async def archive_stream(self, stream: str) -> None:
        """Archive a stream: it takes no events any more, and is left out of reads. Raises StreamError if not there."""
        await self._archive(stream, self.world.now())

    async def restore_stream(self, stream: str) -> None:
        """Bring an archived stream back. Raises StreamError if there is no such stream."""
        await self._archive(stream, None)

    async def _archive(self, stream: str, at: int | None) -> None:
        with Told(self.store):
            found = await self.store.run(lambda statements: statements.archive_stream(stream, at))
        if not found:
            raise StreamError(f"There is no stream {stream!r}: look at streams() for those that there are.")

    # Deciding.

    async def load(self, decider: Decider[C, S, E], stream: str, *, tx: Transaction | None = None) -> Loaded[S]:
        """Return the state of a stream and its version, by a decider; with `tx`, as that transaction sees it."""
        for cls in decider.events:
            self.registry.register(cls)
        with Told(self.store):
            statements = await self._statements(tx)
            own = tx.appended(stream) if tx is not None else ()
            before: list[E] = [decode_event(envelope, self.registry) for envelope in own]  # type: ignore[misc]
            return await load(statements, Reader(self.registry), decider, stream, before=before)

    async def decide(
        self,
        decider: Decider[C, S, E],
        command: C,
        *,
        stream: str | None = None,
        retries: int = RETRIES,
        tx: Transaction | None = None,
        correlation: str | None = None,
        causation: str | None = None,
    ) -> Decision[S, E]:
        """Load a stream's state, decide what a command makes of it, and append that.

        If somebody else has appended meanwhile, all of it is done again, up to `retries` times (0: never), then
        StreamConflictError is raised. What `decide` raises, is raised. With `tx` it happens in that transaction, and a
        snapshot is of what was read. Where `decide` returns no events, nothing is written.
        """
        name = stream if stream is not None else decider.stream_of(command)
        alone = partial(self.append, correlation=correlation, causation=causation)
        append = tx.append if tx is not None else alone
        for attempt in range(retries + 1):
            loaded = await self.load(decider, name, tx=tx)
            events = list(decider.decide(command, loaded.state))
            if not events:
                return Decision(name, loaded.state, loaded.version, (), ())
            try:
                envelopes = await append(name, events, expected=loaded.version)
            except StreamConflictError:
                if attempt == retries:
                    raise
                await self._pause(attempt)
                continue
            state, version = decider.after(loaded.state, events), loaded.version + len(events)
            decision = Decision(name, state, version, events, envelopes, loaded.kept)
            if tx is None:
                await self._keep(decider, decision)
            elif len(tx.appended(name)) == len(events):
                await self._keep_read(decider, name, loaded, tx)
            return decision
        raise ServiceError(f"decide(retries={retries}) would never decide: pass zero or more.")

    async def act(
        self,
        cls: type[A],
        stream: str,
        method: Callable[[A], object],
        *,
        retries: int = RETRIES,
        tx: Transaction | None = None,
    ) -> Decision[A, Event]:
        """Load an aggregate, call a method on it, and append what that records; see `decide`::

        await service.act(Account, "account-4711", lambda account: account.withdraw(50))
        """
        return await self.decide(cls.decider(), method, stream=stream, retries=retries, tx=tx)

    async def _pause(self, attempt: int) -> None:
        await asyncio.sleep(PAUSE_SECONDS * 2 ** min(attempt, 4) * self.world.random.uniform(0.5, 1.5))

    async def _keep_read(self, decider: Decider[C, S, E], stream: str, read: Loaded[S], tx: Transaction) -> None:
        """Keep what a decision in a transaction read if the policy says so: unlike what it appends, it is committed."""
        if decider.snapshots is not None and read.version - read.kept >= decider.snapshots.every:
            row = decider.snapshots.row(stream, decider.name, read.state, read.version, self.world.now())
            async with tx.speaking() as statements:
                await statements.keep_snapshot(row)

    async def _keep(self, decider: Decider[C, S, E], decided: Decision[S, E]) -> None:
        """Keep a snapshot if the policy says so. It may fail: the events are committed, and say the same."""
        if decider.snapshots is None or decided.version - decided.kept < decider.snapshots.every:
            return
        stream = decided.stream
        row = decider.snapshots.row(stream, decider.name, decided.state, decided.version, self.world.now())
        try:
            await self.store.run(lambda statements: statements.keep_snapshot(row))
        except StoreError as error:
            log.warning("A snapshot of stream %s was not kept, and is left to a later decision: %s", stream, error)

    async def _statements(self, tx: Transaction | None) -> StreamStatements:
        return self.store.reading if tx is None else await tx.statements()


def _micro(moment: datetime | None) -> int:
    if moment is None:
        return 0
    if moment.utcoffset() is None:
        raise ServiceError(f"since={moment!r} has no time zone: pass an aware datetime, such as datetime.now(UTC).")
    return microseconds(moment)
