"""The first thing a worker does: write its subscriptions to the store, miss none, and bring parked events back."""

from collections.abc import Collection, Sequence
from datetime import datetime

from msgspec.structs import replace

from tidings.consuming.pipeline import Pipeline
from tidings.consuming.subscription import RELAY, Subscription
from tidings.errors import ParkedEventError, ServiceError, SubscriptionVanishedError, TidingsError
from tidings.store import LANDING, PARKED, RETRY, Held, Record, Statements, SubscriptionRow
from tidings.world import World, microseconds

PAGE = 200
"""Parked events that one sweep reads at a time."""


async def register(statements: Statements, service: str, subscriptions: Sequence[Subscription]) -> None:
    """Write the subscriptions of a service.

    Raises SubscriptionVanishedError when the store knows one that the code no longer declares, ServiceError when
    another service has the name.
    """
    known = {row.name: row for row in await statements.subscriptions()}
    for subscription in subscriptions:
        old = subscription.renamed_from
        if old in known and subscription.name not in known:
            await statements.rename(old, subscription.name)
            known[subscription.name] = replace(known.pop(old), name=subscription.name)
    for subscription in subscriptions:
        row = known.get(subscription.name)
        if row is not None and row.service != service:
            raise ServiceError(
                f"Subscription {row.name} belongs to the service {row.service} on this store: give it another name."
            )
        await statements.register(await _row(statements, service, subscription, row))
    _check_vanished(service, known.values(), {subscription.name for subscription in subscriptions})


def _check_vanished(service: str, known: Collection[SubscriptionRow], declared: Collection[str]) -> None:
    for row in known:
        if row.service == service and row.kind != RELAY and row.name not in declared:
            raise SubscriptionVanishedError(
                f"The store knows the subscription {row.name!r} of {service}, and no handler declares it: its pending "
                f"events would wait for ever. Rename it with renamed_from={row.name!r}, or give it up with "
                f"`tidings subscription forget {row.name}`."
            )


async def _row(
    statements: Statements, service: str, subscription: Subscription, known: SubscriptionRow | None
) -> SubscriptionRow:
    if known is not None:
        return replace(
            known, service=service, kind=subscription.kind, ordered=subscription.ordered, types=subscription.types
        )
    if isinstance(subscription.start, datetime):
        start = await statements.position_at(microseconds(subscription.start))
    else:
        start = await statements.head() if subscription.start == "now" else 0
    return SubscriptionRow(
        subscription.name, service, subscription.kind, subscription.ordered, subscription.types, start
    )


async def unpark(statements: Statements, subscription: Subscription, pipeline: Pipeline, world: World) -> int:
    """Bring back what was parked until a release knows it; return how many events.

    Events parked at landing go to a subscription only if its lanes will not read them anyway.
    """
    progress = {step.lane: step.position for step in await statements.steps(subscription.name)}
    back = 0
    for name in (subscription.name, LANDING):
        for row, record in await _parked(statements, name):
            if record.envelope.type not in subscription.types or not _readable(pipeline, record):
                continue
            if name == LANDING:
                await statements.unhold(LANDING, row.position)
                if record.position > progress[record.lane]:
                    continue
            await statements.hold([_due_now(row, subscription, record, world)])
            back += 1
    return back


async def _parked(statements: Statements, name: str) -> list[tuple[Held, Record]]:
    found: list[tuple[Held, Record]] = []
    after = 0
    while rows := await statements.letters([PARKED], name, after, PAGE):
        records = await statements.records([row.position for row in rows])
        found.extend((row, records[row.position]) for row in rows if row.position in records)
        after = rows[-1].position
    return found


def _readable(pipeline: Pipeline, record: Record) -> bool:
    try:
        pipeline.decode(record.envelope)
    except ParkedEventError:
        return False
    except TidingsError:
        return True  # it can be tried, and will tell in its dead letter what is wrong
    return True


def _due_now(row: Held, subscription: Subscription, record: Record, world: World) -> Held:
    return replace(
        row,
        subscription=subscription.name,
        state=RETRY,
        due=world.now(),
        attempts=0,
        key=record.envelope.key,
        blocks=subscription.ordered and record.envelope.key is not None,
        updated=world.now(),
    )
