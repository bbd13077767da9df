"""The use of Work handlers where there is no store: what an event leads to is decided once, then published."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from msgspec import Struct

from tidings.blobs import Blobs
from tidings.claims import fitted
from tidings.consuming.executor import Opened
from tidings.consuming.outcomes import Outcomes
from tidings.consuming.pipeline import Pipeline
from tidings.consuming.subscription import TRANSACTION, Subscription
from tidings.consuming.work import Work
from tidings.errors import DeliveryTimeoutError, HandlerError, LeaseLostError, ServiceError, TransportError
from tidings.events import Envelope, envelope_to_ascii, envelope_to_json
from tidings.points import reach
from tidings.publishing.outbox import Outbox
from tidings.publishing.producer import Cause, Producer, StableIds
from tidings.publishing.transaction import Transaction
from tidings.rows import Ready
from tidings.statements import Statements
from tidings.store import Store
from tidings.transport import Transport
from tidings.world import World

log = logging.getLogger("tidings")

FRESH = 0.1
"""Share of a turn's time in which a handler is started whatever it takes: later, only if it usually ends in time."""

NEWEST = 0.3
"""Weight of the newest run in how long a handler usually takes."""


Decide = Callable[[Envelope, int, Sequence[Envelope]], Awaitable[Sequence[Envelope]]]
Make = Callable[[Statements, Outbox, Envelope, StableIds, int], Transaction]


class Turn(Struct, frozen=True):
    """From when to when this process may work, as its event loop tells the time (seconds)."""

    begins: float
    ends: float


def check_storeless(subscriptions: Iterable[Subscription]) -> None:
    """Raise ServiceError for subscriptions that need a store: HandlerError names each of them and the way out."""
    found = list(subscriptions)
    if not found:
        raise ServiceError("The service has no subscription: there is nothing that its function could handle.")
    for one in found:
        if one.kind == TRANSACTION or one.executor is not None:
            raise HandlerError(
                f"Subscription {one.name} writes within a transaction, and here is no store. Let it take `work: Work`, "
                "publish what came of it (`async with work.finish() as tx: tx.publish(…)`), and let a subscription of "
                "a service with a store write that down."
            )


class StorelessRunner:
    """Handles one subscription's events: the outcome of each is written once, and published until that succeeded.

    `store` is the one that refuses everything. What a handler does elsewhere is at least once, as with a store.
    """

    def __init__(
        self,
        subscription: Subscription,
        pipeline: Pipeline,
        producer: Producer,
        outcomes: Outcomes,
        transport: Transport | None,
        blobs: Blobs | None,
        store: Store,
        world: World,
    ) -> None:
        self.subscription = subscription
        self._pipeline = pipeline
        self._producer = producer
        self._outcomes = outcomes
        self._transport = transport
        self._blobs = blobs
        self._store = store
        self._world = world
        self._places = asyncio.Semaphore(subscription.concurrency)
        self._usually = 0.0

    async def deliver(self, envelope: Envelope, attempt: int, turn: Turn) -> None:
        """Return once all that an event leads to is published; raises what the handler or the way there raised."""
        decided = await self._outcomes.find(envelope, self.subscription.name)
        if decided is not None:
            await self._send(decided)
        else:
            async with self._places:
                events = await self._handled(envelope, attempt, turn)
            await self._send(events)
        reach("outcome.published")

    async def _handled(self, envelope: Envelope, attempt: int, turn: Turn) -> Sequence[Envelope]:
        """Run the handler; return the events that stand."""
        began = self._begin(turn)
        run = _Run(envelope, self._decide, self._make)
        row = Ready(self.subscription.name, envelope.share or "", 0, 0, None, attempt)
        work = Work(row, envelope, self._store, self._world, run.settle, run.begin, self.subscription.author)
        try:
            await self._pipeline.run(envelope, work)
            if not work.finished:
                await work.settle_without_effects()
        except Exception as error:
            if not work.finished:
                raise
            log.error("%s: raised after it had settled; nothing is retried.", self.subscription.name, exc_info=error)
        finally:
            # A thread that goes on after its time must not decide about what was given back.
            run.over = work.stopping = True
        took = asyncio.get_running_loop().time() - began
        self._usually = took if not self._usually else (1 - NEWEST) * self._usually + NEWEST * took
        return run.events

    def _begin(self, turn: Turn) -> float:
        now = asyncio.get_running_loop().time()
        if now > turn.begins + FRESH * (turn.ends - turn.begins) and now + self._usually > turn.ends:
            raise DeliveryTimeoutError(
                f"{self.subscription.name} was not started: it usually takes {self._usually:.1f} s, and "
                f"{max(turn.ends - now, 0):.1f} s are left. Let fewer messages come at a time, or give the function "
                "more time."
            )
        return now

    def _make(
        self, statements: Statements, outbox: Outbox, envelope: Envelope, ids: StableIds, attempt: int
    ) -> Transaction:
        return Transaction(
            statements, outbox, self._producer, self._world, Cause.of(envelope),
            envelope=envelope, ids=ids, attempt=attempt, store=self._store,
        )  # fmt: skip

    async def _decide(self, envelope: Envelope, attempt: int, events: Sequence[Envelope]) -> Sequence[Envelope]:
        for event in events:
            self._check(event)  # what could never be published is not decided
        reach("outcome.decided")
        written = await self._outcomes.decide(envelope, self.subscription.name, attempt, events)
        reach("outcome.written")
        return written

    def _check(self, event: Envelope) -> None:
        if self._transport is None:
            raise ServiceError(
                f"{self.subscription.name} publishes {event.type}, and the service has no transport: pass transport= "
                "to Service."
            )
        can = self._transport.capabilities
        size, most = len(envelope_to_ascii(event) if can.ascii else envelope_to_json(event)), can.max_bytes
        if size > most and self._blobs is None:
            raise TransportError(
                f"{event.type} would be {size} bytes, more than the {most} that the transport carries: give the "
                "service blobs=…, where large data waits, or let the event carry an address."
            )

    async def _send(self, events: Sequence[Envelope]) -> None:
        if not events or self._transport is None:
            return
        can = self._transport.capabilities
        for start in range(0, len(events), can.max_batch):
            some = [await fitted(one, self._blobs, can.max_bytes) for one in events[start : start + can.max_batch]]
            refused = await self._transport.send(some)
            if refused:
                raise TransportError(
                    f"{self.subscription.name}: {len(refused)} events were not taken, the first "
                    f"({refused[0].event_id}) because: {refused[0].reason}"
                )


class _Run:
    """One run of a handler. To settle its work is to write the outcome."""

    def __init__(self, envelope: Envelope, decide: Decide, make: Make) -> None:
        self.over = False
        self.events: Sequence[Envelope] = ()
        self._envelope = envelope
        self._decide = decide
        self._make = make
        self._outbox = _Outbox()

    def begin(
        self, statements: Statements, envelope: Envelope, ids: StableIds, attempt: int, opened: Opened | None
    ) -> tuple[Transaction, Callable[[], Awaitable[None]]]:
        """Make the transaction of a `finish()`. A block that was left by an error has published nothing."""
        self._outbox = _Outbox()
        return self._make(statements, self._outbox, envelope, ids, attempt), _nothing_more

    async def settle(self, _: Statements, row: Ready) -> None:
        """Write the outcome, or take over the one that is there; raises LeaseLostError once the run is over."""
        if self.over:
            raise LeaseLostError(
                f"Attempt {row.attempt} of {row.subscription} went over its time, and the event was given back; "
                "nothing of it was decided."
            )
        self.events = await self._decide(self._envelope, row.attempt, [*self._outbox.envelopes, *self._outbox.chosen])


class _Outbox(Outbox):
    """What a handler publishes where nothing can be kept until it is due."""

    def add(self, envelope: Envelope, due: int | None, *, chosen_id: bool = False) -> None:
        if due is not None:
            raise ServiceError(
                f"{envelope.type} cannot be published later from here: there is no store to keep it until then. "
                "Publish it at once, and let a service with a store delay what follows."
            )
        super().add(envelope, due, chosen_id=chosen_id)


async def _nothing_more() -> None:
    """What was published is in the outcome."""
