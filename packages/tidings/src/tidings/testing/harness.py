"""A service in memory for tests: publish, wait until what that caused is finished, move the clock, look."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from tidings.backends.memory import put
from tidings.errors import HarnessTimeoutError, TidingsError
from tidings.events import Envelope, Event, decode_event, encode_event, envelope_to_json, event_type, key_of, share_of
from tidings.operations import DeadLetter, Filter, Whereabouts, letters, where
from tidings.publishing.transaction import Transaction
from tidings.rows import Record
from tidings.service import Service, uuid7_ids
from tidings.store import HELD_CHANGED, PROGRESS_CHANGED, READY_CHANGED, SCHEDULED_CHANGED, SUBSCRIPTION_CHANGED
from tidings.testing.unfinished import (
    Unfinished,
    describe,
    earliest,
    every_record,
    unfinished,
)
from tidings.world import World, moment

E = TypeVar("E", bound=Event)
T = TypeVar("T")

PATIENCE = timedelta(seconds=10)
"""Real time that `settled` and `advance` wait at most."""

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""Where a fake clock begins, so that nothing a test writes down depends on the day it runs."""

_numbers = iter(range(1, 1_000_000_000))


class FakeClock:
    """Tells the time that a test gave it; it stands still between moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the present."""
        return self.now

    def move(self, to: datetime) -> None:
        """Move on to a moment; never back."""
        self.now = max(self.now, to)


class Harness:
    """A running service and its fake clock. Made by `harness`."""

    def __init__(self, service: Service, clock: FakeClock, inward: str, patience: timedelta) -> None:
        self.service = service
        self.clock = clock
        self._inward = inward
        self._patience = patience.total_seconds()
        self._changed = asyncio.Event()
        self._arriving: set[tuple[str, str]] = set()

    # Given.

    async def publish(self, event: Event, **options: Any) -> Envelope:
        """Publish as `Service.publish` does, with its options."""
        return await self.service.publish(event, **options)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction as `Service.transaction` does."""
        async with self.service.transaction() as tx:
            yield tx

    def arrive(self, event: Event, *, source: str, id: str | None = None, copies: int = 1) -> Envelope:
        """Let a message of another service arrive by the transport, maybe more than once.

        Raises TidingsError when the service has no transport.
        """
        if self.service.transport is None:
            raise TidingsError("Nothing can arrive: this service has no transport. Declare it with transport=….")
        declared = event_type(type(event))
        event_id = id or self.service.world.fresh_id()
        envelope = Envelope(
            id=event_id,
            source=source,
            type=declared.name,
            version=declared.version,
            time=self.clock(),
            correlation=event_id,
            key=key_of(event) if declared.key else None,
            share=share_of(event) if declared.fair_by else None,
            data=encode_event(event),
        )
        for _ in range(copies):
            put(self._inward, envelope_to_json(envelope))
        self._arriving.add((source, event_id))
        return envelope

    # When.

    async def settled(self, *caused_by: Envelope, retries: bool = True) -> None:
        """Wait until the work that these envelopes caused is finished; without any, all work there is.

        Finished: for every subscription handled, dead, parked or discarded. The store is asked; silence proves
        nothing. Waits between retries are skipped by moving the clock to when they are due (`retries=False`: they are
        left for `advance`). Delayed publishes are not waited for: `advance` makes them due. Raises HarnessTimeoutError
        with what is unfinished, where, and what its handler raised.
        """
        left: list[Unfinished] = []
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    self._changed.clear()
                    left = await self._left(caused_by)
                    due = earliest(left, self.service.world.now())
                    if due is not None and retries:
                        self._move(moment(due))
                    elif not left or due is not None:
                        return
                    else:
                        await self._changed.wait()
        except TimeoutError:
            raise HarnessTimeoutError(await self._told(left)) from None

    async def advance(self, by: timedelta) -> None:
        """Move the clock on, stopping wherever something is due, and settle what that makes due."""
        until = self.clock() + by
        while True:
            await self._all_due()
            due = await self._next_due()
            if due is None or due > until:
                break
            self._move(due)
        self._move(until)

    async def _all_due(self) -> None:
        """Wait until nothing that is due by now is scheduled any more, and the rest is settled."""
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    self._changed.clear()
                    due = await self.service.store.reading.next_scheduled()
                    if due is None or due > self.service.world.now():
                        break
                    await self._changed.wait()
        except TimeoutError:
            raise HarnessTimeoutError("A delayed publish is due, and did not become an event.") from None
        await self.settled(retries=False)

    async def _next_due(self) -> datetime | None:
        reading = self.service.store.reading
        scheduled = await reading.next_scheduled()
        dues = [one.due for one in await unfinished(reading) if one.due is not None]
        dues += [scheduled] if scheduled is not None else []
        return moment(min(dues)) if dues else None

    def _move(self, to: datetime) -> None:
        self.clock.move(to)
        assert self.service.worker is not None  # it runs as long as the harness does
        self.service.worker.wake()

    async def _left(self, caused_by: Sequence[Envelope]) -> list[Unfinished]:
        reading = self.service.store.reading
        for source, event_id in tuple(self._arriving):
            if source in {record.envelope.source for record in await reading.find(event_id)}:
                self._arriving.discard((source, event_id))
        if not caused_by:
            landing = [Unfinished("*", 0, f"arriving: {event_id} of {source}") for source, event_id in self._arriving]
            return landing + await unfinished(reading)
        among: set[int] = set()
        for envelope in caused_by:
            records = [*await reading.find(envelope.id), *await reading.caused_by(envelope.correlation)]
            among.update(record.position for record in records)
        return await unfinished(reading, among)

    async def _told(self, left: Sequence[Unfinished]) -> str:
        records = await self.service.store.reading.records([one.position for one in left])
        lines = [describe(one, records.get(one.position)) for one in left]
        return f"After {self._patience:g} s of real time this is unfinished:\n  " + "\n  ".join(lines)

    # Then.

    def published(self, cls: type[E]) -> list[E]:
        """Return the events of a class that are in the log, in its order, whoever published them."""
        name = event_type(cls).name
        return [self._decoded(record.envelope, cls) for record in self._log() if record.envelope.type == name]

    def envelopes(self, cls: type[Event] | None = None) -> list[Envelope]:
        """Return the envelopes in the log, in its order: of one class, or all."""
        every = [record.envelope for record in self._log()]
        return every if cls is None else [one for one in every if one.type == event_type(cls).name]

    def scheduled(self, cls: type[E]) -> list[tuple[datetime, E]]:
        """Return the delayed publishes of a class that are not events yet, each with when it is due."""
        rows = _at_once(self.service.store.reading.all_scheduled(1_000_000))
        name = event_type(cls).name
        return [(moment(row.due), self._decoded(row.envelope, cls)) for row in rows if row.envelope.type == name]

    def dead_letters(self, subscription: str | None = None) -> list[DeadLetter]:
        """Return what was given up after its attempts, in the order of the log: of one subscription, or of all."""
        return _at_once(letters(self.service.store, Filter(subscription=subscription)))

    async def where(self, event_id: str) -> list[Whereabouts]:
        """Say where an event is for every subscription, and why, as `tidings where` does."""
        return await where(self.service.store, event_id, now=self.service.world.now())

    def report(self) -> str:
        """Return what a failed test wants to read: the log, what is unfinished, and the dead letters' tracebacks."""
        reading = self.service.store.reading
        lines = ["The log:"]
        lines += [f"  {record.position} {record.envelope.type} {record.envelope.id}" for record in self._log()]
        left = _at_once(unfinished(reading))
        records = _at_once(reading.records([one.position for one in left]))
        lines += ["Unfinished:"] if left else []
        lines += [f"  {describe(one, records.get(one.position))}" for one in left]
        for letter in self.dead_letters():
            event = f"{letter.event.type} {letter.event.id}" if letter.event is not None else "an event"
            lines.append(f"Dead letter of {letter.subscription}: {event}")
            lines += [failure.traceback or failure.message for failure in letter.failures[-1:]]
        return "\n".join(lines)

    def _log(self) -> list[Record]:
        return _at_once(every_record(self.service.store.reading))

    def _decoded(self, envelope: Envelope, cls: type[E]) -> E:
        event = decode_event(envelope, self.service.registry, cls)
        assert isinstance(event, cls)
        return event


@asynccontextmanager
async def harness(
    service: Service, *, start: datetime | None = None, seed: int = 0, patience: timedelta = PATIENCE
) -> AsyncIterator[Harness]:
    """Run a declared service on a store in memory, with a clock that stands at `start` until the test moves it.

    Ids and jitter come from `seed`, so two runs are alike. A transport is replaced by queues in memory. `patience` is
    the real time that waiting may take. Outages are not recognised here: their probes wait for real time.
    """
    clock = FakeClock(start or START)
    inward = f"harness-{next(_numbers)}"
    transport = f"memory://{inward}-out?in={inward}" if service.transport_url or service.landing_url else None
    with _rewired(service, World(clock, Random(seed), uuid7_ids), transport):
        async with service:
            running = Harness(service, clock, inward, patience)
            with _listening(running, service):
                yield running


@contextmanager
def _rewired(service: Service, world: World, transport: str | None) -> Iterator[None]:
    before = service.world, service.store_url, service.transport_url, service.landing_url, service.blobs_url
    declared = dict(service._subscriptions)
    service.wire(world, "sqlite:///:memory:", transport)
    for name, subscription in declared.items():
        service._subscriptions[name] = replace(subscription, pause_after=None)
    try:
        yield
    finally:
        service._subscriptions.update(declared)
        service.wire(*before)


@contextmanager
def _listening(running: Harness, service: Service) -> Iterator[None]:
    own = (READY_CHANGED, HELD_CHANGED, SCHEDULED_CHANGED, SUBSCRIPTION_CHANGED, PROGRESS_CHANGED)
    wake: Callable[[], None] = running._changed.set
    stop = service.store.listen([*own, *service.registry.names()], wake)
    try:
        yield
    finally:
        stop()


def _at_once(call: Coroutine[Any, Any, T]) -> T:
    """Return the result of a call that never waits: the store in memory answers on the spot."""
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    call.close()
    raise TidingsError("The store of the harness did not answer at once: it must be the one in memory.")
