"""Promise 7: where an event is for every subscription, and why; what caused it, and what it caused."""

from collections.abc import Mapping

from msgspec import Struct

from tidings.consuming.subscription import RELAY
from tidings.events import Envelope
from tidings.rows import BEHIND, DEAD, DISCARDED, LANDING, PARKED, RETRY, Held, LaneStep, Ready, Record, SubscriptionRow
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import written

SCHEDULED, NOT_ITS_OWN, PENDING, READY, RUNNING, HANDLED = (
    "scheduled",
    "not its own",
    "pending",
    "ready",
    "running",
    "handled",
)
"""States besides those of a held row: retry, behind, parked, dead, discarded."""

MOST_SCHEDULED = 1000
"""Scheduled publishes that are looked through for what an event has caused."""


class Place(Struct, frozen=True):
    """Where one event is for one subscription: the state, and why in words.

    `due`, `owner` and `since` (when the attempt under way began) where they apply.
    """

    subscription: str
    state: str
    why: str
    attempts: int = 0
    due: int | None = None
    owner: str | None = None
    since: int | None = None


class Whereabouts(Struct, frozen=True):
    """One event, and its place for every subscription. One that is scheduled has no position, and nowhere to be.

    `cause` is the event that was handled when this one was published; `caused` are those published while handling it,
    `scheduled` ones apart. Landing's own exceptions stand under the name "*".
    """

    envelope: Envelope
    position: int | None
    due: int | None
    places: tuple[Place, ...]
    cause: Envelope | None
    caused: tuple[Envelope, ...]
    caused_later: tuple[Envelope, ...]


class _Store(Struct):
    """What is the same for every event: who subscribes, and who is alive."""

    subscriptions: list[SubscriptionRow]
    alive: Mapping[str, str]  # worker -> service
    counts: Mapping[tuple[str, str], int]


async def where(store: Store, event_id: str, *, now: int) -> list[Whereabouts]:
    """Return the whereabouts of every event with an id: one for each source that used it, none if it is unknown here.

    An event is unknown that was never published on this store, was cancelled while scheduled, or whose retention ended.
    """
    async with store.snapshot() as said:
        workers = [row for row in await said.workers() if store.is_alive(row, now)]
        known = _Store(
            await said.subscriptions(), {worker.id: worker.service for worker in workers}, await said.counts()
        )
        found = [await _published(said, record, known) for record in await said.find(event_id)]
        for scheduled in await said.scheduled(event_id):
            cause = await _cause(said, scheduled.envelope)
            found.append(Whereabouts(scheduled.envelope, None, scheduled.due, (), cause, (), ()))
        return found


async def _published(said: Statements, record: Record, known: _Store) -> Whereabouts:
    ready = {row.subscription: row for row in await said.ready([record.position])}
    held = {row.subscription: row for row in await said.held(None, [record.position])}
    places = []
    if LANDING in held:
        places.append(await _exception(said, held[LANDING]))
    for row in known.subscriptions:
        places.append(await _place(said, row, record, ready.get(row.name), held.get(row.name), known))
    envelope = record.envelope
    later = [row.envelope for row in await said.all_scheduled(MOST_SCHEDULED) if _is_cause(envelope, row.envelope)]
    following = [one.envelope for one in await said.caused_by(envelope.correlation)]
    return Whereabouts(
        envelope,
        record.position,
        None,
        tuple(places),
        await _cause(said, envelope),
        tuple(one for one in following if _is_cause(envelope, one)),
        tuple(later),
    )


async def _cause(said: Statements, envelope: Envelope) -> Envelope | None:
    if envelope.causation is None:
        return None
    found = await said.find(envelope.causation)
    return found[0].envelope if found else None


def _is_cause(first: Envelope, second: Envelope) -> bool:
    return second.causation == first.id and second.correlation == first.correlation


async def _place(
    said: Statements, row: SubscriptionRow, record: Record, ready: Ready | None, held: Held | None, known: _Store
) -> Place:
    """The list of the model, in its order: the first that fits."""
    reason = _not_its_own(row, record)
    if reason is not None and ready is None and held is None:  # what was parked at landing may come from before
        return Place(row.name, NOT_ITS_OWN, reason)
    step = next(step for step in await said.steps(row.name) if step.lane == record.lane)
    if record.position > step.position:
        return Place(row.name, PENDING, _why_pending(row, record, step, known), owner=step.owner)
    if ready is not None:
        return _in_ready(row, ready, known)
    if held is not None:
        return await _exception(said, held)
    return Place(row.name, HANDLED, f"settled in lane {record.lane}, which is at position {step.position}")


def _not_its_own(row: SubscriptionRow, record: Record) -> str | None:
    if row.kind == RELAY and record.envelope.source != row.service:
        return "it came from elsewhere, and a relay sends only what its service has published"
    if row.kind == RELAY and row.types and record.envelope.type not in row.types:
        return f"the relay carries only {', '.join(row.types)}"
    if row.kind != RELAY and record.envelope.type not in row.types:
        return f"it does not subscribe to {record.envelope.type}"
    if record.position <= row.start:
        return f"it was published at position {record.position}, and the subscription starts after {row.start}"
    return None


def _nobody(row: SubscriptionRow, known: _Store) -> str | None:
    """Say why nothing of a subscription moves, None if somebody is at work."""
    if row.paused_by is not None:
        return f"the subscription is paused by {row.paused_by}: {row.paused_because or 'no reason given'}"
    if row.service not in known.alive.values():
        return f"no worker of {row.service} is alive"
    return None


def _why_pending(row: SubscriptionRow, record: Record, step: LaneStep, known: _Store) -> str:
    ahead = record.position - step.position - 1
    lag = f"lane {record.lane} is at position {step.position}, {ahead} position{'s' * (ahead != 1)} before it"
    failing = known.counts.get((row.name, RETRY), 0)
    if (nobody := _nobody(row, known)) is not None:
        return f"{nobody}; {lag}"
    if failing:
        return f"{lag}; {failing} of its events wait to be retried: in an outage it is only probed"
    if step.owner is None or step.owner not in known.alive:
        return f"{lag}; the lane waits for a worker to take it"
    return f"{lag}; its worker is alive"


def _in_ready(row: SubscriptionRow, ready: Ready, known: _Store) -> Place:
    if ready.owner is None:
        why = _nobody(row, known) or "it waits for its turn among the work of this subscription"
        return Place(row.name, READY, why, attempts=ready.attempt)
    if ready.owner not in known.alive:
        why = f"attempt {ready.attempt} was cut short, because its worker died"
        return Place(row.name, READY, f"{why}; {_nobody(row, known) or 'another takes it over'}", ready.attempt)
    since = "" if ready.since is None else f" since {written(ready.since)}"
    why = f"attempt {ready.attempt} is under way{since}"
    return Place(row.name, RUNNING, why, ready.attempt, owner=ready.owner, since=ready.since)


async def _exception(said: Statements, held: Held) -> Place:
    return Place(held.subscription, held.state, await _why_held(said, held), attempts=held.attempts, due=held.due)


async def _why_held(said: Statements, held: Held) -> str:
    reason = held.reason or "no reason given"
    if held.state == RETRY:
        again = "now" if held.due is None else written(held.due)
        return f"attempt {held.attempts} of it: {reason}; due again at {again}"
    if held.state == BEHIND:
        return await _why_behind(said, held)
    if held.state == PARKED:
        return f"{reason} It comes back by itself once a worker knows it."
    if held.state == DISCARDED:
        return f"discarded by {held.actor} at {written(held.updated)}: {reason}"
    return f"after {held.attempts} attempt{'s' * (held.attempts != 1)}: {reason}"


async def _why_behind(said: Statements, held: Held) -> str:
    holder = await said.holder(held.subscription, held.key) if held.key is not None else None
    if holder is None or holder >= held.position:
        return f"its key {held.key} is free again; it is next"
    first = (await said.records([holder])).get(holder)
    name = f"event {first.envelope.id}" if first is not None else "an event"
    head = next(iter(await said.held(held.subscription, [holder])), None)
    state = head.state if head is not None else READY
    hint = "; redrive or discard that one first" if state == DEAD else ""
    return f"its key {held.key} is held by {name} at position {holder}, which is {state}{hint}"
