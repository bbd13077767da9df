"""Inline projections: what is published here is handled in the transaction that publishes it."""

import logging
from collections.abc import Iterable, Sequence

from tidings.columns import lane_of
from tidings.consuming.pipeline import Pipeline
from tidings.consuming.subscription import Subscription
from tidings.errors import StoreError
from tidings.events import Envelope, Registry
from tidings.publishing.outbox import Outbox
from tidings.publishing.producer import NO_CAUSE, Producer
from tidings.publishing.transaction import Transaction
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World, microseconds

log = logging.getLogger("tidings")


class InlineProjections:
    """Implements publishing.outbox.Inline for the inline projections of a service.

    What its lane has still before it, or its key holds, is left to the lane: order first. So is what a handler fails
    at, which is retried there and parked: a fact stays a fact, though a view of it cannot be drawn.
    """

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        registry: Registry,
        producer: Producer,
        store: Store,
        world: World,
    ) -> None:
        # In one order everywhere: whoever waits for a projection's turn holds only those of earlier ones.
        by_name = sorted(subscriptions, key=lambda one: one.name)
        self._of_types = [(one, frozenset(one.types), Pipeline(one, registry)) for one in by_name]
        self._producer = producer
        self._store = store
        self._world = world

    def takes(self, envelopes: Iterable[Envelope]) -> bool:
        """Say whether any of these events is one that a projection handles inline."""
        return any(envelope.type in types for _, types, _ in self._of_types for envelope in envelopes)

    async def handle(self, statements: Statements, envelopes: Sequence[Envelope]) -> None:
        """Handle its own among events that are written next, and note for their lanes that it was done."""
        for subscription, types, pipeline in self._of_types:
            own = [envelope for envelope in envelopes if envelope.type in types]
            if own and (now := await self._in_turn(statements, subscription.name, own)):
                await self._apply(statements, subscription, pipeline, now)

    async def _in_turn(self, statements: Statements, name: str, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Return the events before which their lanes have nothing else to handle."""
        await statements.wait_for_inline_turn(name, envelopes)  # first: then what others left to a lane is seen
        lanes = {envelope.id: lane_of(envelope, self._store.lanes) for envelope in envelopes}
        free = await statements.lanes_without_backlog(name, sorted(set(lanes.values())))
        keys = sorted({envelope.key for envelope in envelopes if envelope.key is not None})
        closed = await statements.closed_keys(name, keys) if keys and free else set()
        return [one for one in envelopes if lanes[one.id] in free and one.key not in closed]

    async def _apply(
        self, statements: Statements, subscription: Subscription, pipeline: Pipeline, envelopes: Sequence[Envelope]
    ) -> None:
        projected = subscription.projection
        assert projected is not None  # the service hands over no others
        transaction = Transaction(statements, Outbox(), self._producer, self._world, NO_CAUSE, store=self._store)
        await statements.savepoint()
        try:
            events = [pipeline.decode(envelope) for envelope in envelopes]
            await projected.apply(events, transaction, [microseconds(envelope.time) for envelope in envelopes])
            await transaction.keep()
            await statements.mark_inline(subscription.name, envelopes)
            await statements.release()
        except Exception as error:
            if isinstance(error, StoreError) and error.retryable:
                raise
            await statements.roll_back_to_savepoint()
            log.warning(
                "%s: an event is left to its lane, because handling it inline failed: %s", projected.name, error
            )
        finally:
            transaction.close()
