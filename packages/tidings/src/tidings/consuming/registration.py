"""The first thing a worker does: write its subscriptions to the store, miss none, and bring parked events back."""

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from tidings.consuming.pipeline import Pipeline
from tidings.consuming.subscription import RELAY, Subscription
from tidings.consuming.versions import register_versions
from tidings.errors import ParkedEventError, ServiceError, SubscriptionVanishedError, TidingsError
from tidings.rows import BEHIND, DISCARDED, LANDING, PARKED, RETRY, Held, Record, SubscriptionRow
from tidings.statements import Statements
from tidings.world import World, microseconds

log = logging.getLogger("tidings")

PAGE = 200
"""Parked events that one sweep reads at a time."""


async def register(
    statements: Statements, service: str, subscriptions: Sequence[Subscription]
) -> Sequence[Subscription]:
    """Write the subscriptions of a service; return them in the versions that the store has.

    Raises SubscriptionVanishedError when the store knows one that the code no longer declares, ServiceError when
    another service has the name.
    """
    await statements.registering()
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
        if row is not None and (row.kind, row.ordered) != (subscription.kind, subscription.ordered):
            await _check_settled(statements, row, subscription)
        await _write(statements, await _row(statements, service, subscription, row), row, subscription)
    retired = await register_versions(statements, service, subscriptions)
    declared = {subscription.name for subscription in subscriptions}
    _check_vanished(service, known.values(), declared | retired)
    versions = {row.name: row.version for row in await statements.subscriptions()}
    return [dataclasses.replace(one, version=versions[one.name]) for one in subscriptions]


async def register_relay(statements: Statements, name: str, service: str, carried: Sequence[str]) -> tuple[str, ...]:
    """Write a relay, which begins with what is published from now on; return the types that it carries, none: all.

    Of releases side by side that carry some types each, both carry all of them (decision 12).
    """
    known = next((row for row in await statements.subscriptions() if row.name == name), None)
    types = tuple(sorted({*(known.types if known else ()), *carried})) if carried else ()
    await statements.register(SubscriptionRow(name, service, RELAY, True, types, await statements.head()))
    if known is not None and known.types != types:
        await statements.fence(name)
    return types


async def _write(
    statements: Statements, row: SubscriptionRow, known: SubscriptionRow | None, subscription: Subscription
) -> None:
    await statements.register(row)
    if known is not None and known.types != row.types:
        # Releases run side by side: an owner that knows less must not move its lanes past what is wanted from now on.
        await statements.fence(row.name)
    if left := sorted(set(row.types) - set(subscription.types)):
        log.warning(
            "Subscription %s does not take %s here, which another release of it takes: such events are parked. If "
            "none shall take them any more, say `tidings subscription narrow %s TYPE`.",
            row.name,
            ", ".join(left),
            row.name,
        )


async def _check_settled(statements: Statements, row: SubscriptionRow, subscription: Subscription) -> None:
    """Refuse another kind or order while exceptions or work of the old one are unsettled."""
    counts = await statements.counts()
    left = {state: n for (name, state), n in counts.items() if name == row.name and state != DISCARDED}
    if left:
        raise ServiceError(
            f"Subscription {row.name} was {row.kind}{', ordered' * row.ordered} and is now {subscription.kind}"
            f"{', ordered' * subscription.ordered}, but has unsettled events ({left}): let the old release finish, "
            "or declare the new one under another name."
        )


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
        # Types are only added here: an older release that starts later must not take away what a newer one added.
        types = tuple(sorted({*known.types, *subscription.types}))
        return replace(known, service=service, kind=subscription.kind, ordered=subscription.ordered, types=types)
    if isinstance(subscription.start, datetime):
        start = await statements.position_at(microseconds(subscription.start))
    else:
        start = await statements.head() if subscription.start == "now" else 0
    return SubscriptionRow(
        subscription.name, service, subscription.kind, subscription.ordered, subscription.types, start
    )


async def unpark(
    statements: Statements, subscriptions: Sequence[Subscription], pipelines: Mapping[str, Pipeline], world: World
) -> int:
    """Bring back what was parked until a release knows it; return how many deliveries.

    Events parked at landing go to every subscription that knows them and whose lanes will not read them anyway.
    """
    back = 0
    for subscription in subscriptions:
        for row, record in await _parked(statements, subscription.name):
            if _takes(subscription, pipelines, record) and await _still_parked(statements, row):
                await statements.hold([_row_of(row, subscription, record, world, RETRY)])
                back += 1
    for row, record in await _parked(statements, LANDING):
        takers = [subscription for subscription in subscriptions if _takes(subscription, pipelines, record)]
        if takers and await statements.unhold(LANDING, row.position):
            for subscription in takers:
                back += await _bring_back(statements, row, subscription, record, world)
    return back


async def _still_parked(statements: Statements, row: Held) -> bool:
    """Say whether another worker's sweep was not faster, after which the event may be handled by now."""
    current = await statements.held(row.subscription, [row.position])
    return bool(current) and current[0].state == PARKED


async def _bring_back(
    statements: Statements, row: Held, subscription: Subscription, record: Record, world: World
) -> bool:
    progress = {step.lane: step.position for step in await statements.steps(subscription.name)}
    if record.position > progress[record.lane]:
        return False  # its lane comes to it
    key = record.envelope.key
    closed = bool(key and subscription.ordered and await statements.closed_keys(subscription.name, [key]))
    await statements.hold([_row_of(row, subscription, record, world, BEHIND if closed else RETRY)])
    return True


def _takes(subscription: Subscription, pipelines: Mapping[str, Pipeline], record: Record) -> bool:
    return record.envelope.type in subscription.types and _readable(pipelines[subscription.name], record)


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


def _row_of(row: Held, subscription: Subscription, record: Record, world: World, state: str) -> Held:
    return replace(
        row,
        subscription=subscription.name,
        state=state,
        due=world.now() if state == RETRY else None,
        attempts=0,
        key=record.envelope.key,
        blocks=subscription.ordered and record.envelope.key is not None,
        updated=world.now(),
    )
