"""The promises, checked over everything a simulation left behind. Each check returns what it found broken."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from tidings.events import derive_id, event_type
from tidings.operations import where
from tidings.rows import BEHIND, DEAD, LANDING, PARKED, RETRY
from tidings.statements import Statements
from tidings.store import Store
from tidings.testing.simulation.clients import History
from tidings.testing.simulation.network import Network
from tidings.testing.simulation.workload import SOURCE, Child, Foreign, Novel, Placed, Timer, Waning, outgoing

CLASSES = {event_type(cls).name: cls for cls in (Placed, Child, Timer, Foreign, Novel, Waning)}
RELAY = f"{SOURCE}:relay"


class Seen(Struct, frozen=True):
    """One event as the trigger on the log saw it."""

    position: int
    lane: int
    type: str
    id: str
    source: str
    key: str | None
    causation: str | None
    data: bytes


class Facts(Struct):
    """Everything the store holds at the end. States and effects are by (subscription, position)."""

    subscriptions: dict[str, tuple[bool, tuple[str, ...]]]
    log: list[Seen]
    kept: set[int]
    landed_unknown: set[int]
    effects: list[tuple[int, str, int]]
    states: dict[tuple[str, int], list[str]]
    skipped: set[tuple[str, int]]
    orders: set[str]
    scheduled: set[str]


async def collect(statements: Statements, subscriptions: dict[str, tuple[bool, tuple[str, ...]]]) -> Facts:
    """Read everything from the store. `subscriptions`: name -> whether order is kept, and the event types."""
    log = [Seen(*row) for row in await _rows(statements, "SELECT * FROM seen_log ORDER BY position")]
    at = {(seen.id, seen.source): seen.position for seen in log}
    effects = await _rows(statements, "SELECT seq, subscription, id, source FROM effects ORDER BY seq")
    states: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name, position, state in await _rows(statements, "SELECT subscription, position, state FROM tidings_held"):
        states[name, position].append(state)
    for name, position in await _rows(statements, "SELECT subscription, position FROM tidings_ready"):
        states[name, position].append("ready")
    for row in await statements.subscriptions():
        progress = {step.lane: step.position for step in await statements.steps(row.name)}
        for seen in log:
            if (row.name == RELAY or seen.type in row.types) and seen.position > progress[seen.lane]:
                states[row.name, seen.position].append("pending")
    gave_order_up = await _rows(statements, "SELECT subscription, position FROM tidings_held WHERE blocks = 0")
    return Facts(
        subscriptions=subscriptions,
        log=log,
        kept={row[0] for row in await _rows(statements, "SELECT position FROM tidings_log")},
        landed_unknown={row[0] for row in await _rows(statements, "SELECT position FROM seen_landing")},
        effects=[(seq, name, at.get((event_id, source), -1)) for seq, name, event_id, source in effects],
        states=states,
        skipped={(name, position) for name, position in gave_order_up},
        orders={row[0] for row in await _rows(statements, "SELECT id FROM orders")},
        scheduled={row[0] for row in await _rows(statements, "SELECT id FROM tidings_scheduled")},
    )


async def _rows(statements: Statements, sql: str) -> list[tuple[Any, ...]]:
    return (await statements.query(sql, ()))[1]


def all_or_nothing(facts: Facts, history: History) -> Iterator[str]:
    """Promise 1: an event is published if and only if the caller's transaction commits."""
    ids = {seen.id for seen in facts.log}
    landed = {(seen.source, seen.id) for seen in facts.log}
    yield from (f"event {one} was acknowledged and is not in the log" for one in sorted(history.acknowledged - ids))
    yield from (f"event {one} was cancelled and published" for one in sorted(history.cancelled & ids))
    yield from (f"event {one} was not cancelled, and is not in the log" for one in sorted(history.not_cancelled - ids))
    yield from (f"event {one} arrived and is not in the log" for one in sorted(history.arrived - landed))
    for order, published in history.orders.items():
        yield from _order(order, [one for one in published if one in ids], facts, history)


def _order(order: str, there: list[str], facts: Facts, history: History) -> Iterator[str]:
    """Check one order of a client: its row and its two events are in the store together, or neither is."""
    is_stored = order in facts.orders
    if is_stored and len(there) < 2:
        yield f"order {order} is in the store, and {2 - len(there)} of its events are not"
    if there and not is_stored:
        yield f"events {there} are published, and their order {order} was rolled back"
    if order in history.committed and not is_stored:
        yield f"order {order} was acknowledged and is gone"
    if order in history.rolled_back and is_stored:
        yield f"order {order} raised and is in the store"


def effects_once(facts: Facts) -> Iterator[str]:
    """Promise 2, and 4: handled means one effect; any other state means none; every event has one state."""
    counts = Counter((name, position) for _, name, position in facts.effects)
    for (name, position), count in sorted(counts.items()):
        if position < 0:
            yield f"{name} has the effect of an event that is not in the log"
        if count > 1:
            yield f"{name} handled position {position} {count} times"
    for name, (_, types) in facts.subscriptions.items():
        for seen in [one for one in facts.log if one.type in types]:
            yield from _state(name, seen, facts.states.get((name, seen.position), []), counts[name, seen.position])


def _state(name: str, seen: Seen, states: list[str], effects: int) -> Iterator[str]:
    if len(states) > 1:
        yield f"position {seen.position} is at once {' and '.join(states)} for {name}"
    if states and effects:
        yield f"{name} handled position {seen.position}, which is {states[0]}"
    if not states and not effects:
        yield f"{name} has lost position {seen.position} ({seen.type})"


def ordered(facts: Facts, after_dead: str) -> Iterator[str]:
    """Promise 3: an ordered subscription handles the events of a key in the order of the log.

    What landed before any release took its type comes back after what followed it.
    """
    by_position = {seen.position: seen for seen in facts.log}
    for name in [name for name, (is_ordered, _) in facts.subscriptions.items() if is_ordered]:
        newest: dict[str | None, int] = {}
        for _, subscription, position in facts.effects:
            if subscription != name or position < 0 or position in facts.landed_unknown:
                continue
            key = by_position[position].key
            if position < newest.get(key, 0) and after_dead == "block":
                yield f"{name} handled position {position} after {newest[key]}, both of key {key}"
            newest[key] = max(position, newest.get(key, 0))
        yield from _overtaken(facts, name, newest)


def _overtaken(facts: Facts, name: str, newest: dict[str | None, int]) -> Iterator[str]:
    for seen in facts.log:
        waiting = set(facts.states.get((name, seen.position), [])) & {DEAD, RETRY, BEHIND, "ready", "pending"}
        open_key = (name, seen.position) in facts.skipped or seen.position in facts.landed_unknown
        if waiting and not open_key and seen.position < newest.get(seen.key, 0):
            yield f"{name} has position {seen.position} {waiting.pop()}, and handled {newest[seen.key]} of its key"


def stable_ids(facts: Facts, calls: dict[tuple[str, str, str], set[str]]) -> Iterator[str]:
    """Promise 5: what a handled event published is there exactly once, under the ids derived from it."""
    by_position = {seen.position: seen for seen in facts.log}
    expected: dict[str, str] = {}
    for _, name, position in facts.effects:
        seen = by_position.get(position)
        if seen is None:
            continue
        event: Any = msgspec.json.decode(seen.data, type=CLASSES[seen.type])
        for ordinal, cls in enumerate(outgoing(name, event)):
            expected[derive_id(seen.source, seen.id, name, ordinal)] = event_type(cls).name
    caused = {seen.id: seen.type for seen in facts.log if seen.causation is not None}
    for event_id in sorted(expected.keys() - caused.keys() - facts.scheduled):
        yield f"{expected[event_id]} {event_id} should have been published, and is not in the log"
    for event_id in sorted(caused.keys() - expected.keys()):
        yield f"{caused[event_id]} {event_id} was published, and nothing that was handled published it"
    for (name, _, event_id), keys in calls.items():
        if len(keys) > 1:
            yield f"{name} called the outside for {event_id} under {len(keys)} idempotency keys"


async def explained(store: Store, facts: Facts, seen: Seen) -> list[str]:
    """Promise 7: what an operator is told of an event is what the store holds."""
    found = [one for one in await where(store, seen.id, now=0) if one.envelope.source == seen.source]
    if not found:
        return [] if seen.position not in facts.kept else [f"nobody can say where position {seen.position} is"]
    told = {place.subscription: place.state for place in found[0].places}
    broken = []
    for name, (_, types) in facts.subscriptions.items():
        states = ["running" if state == "ready" else state for state in facts.states.get((name, seen.position), [])]
        held = (states or ["handled"])[0] if seen.type in types else "not its own"
        if {told[name], held} not in ({held}, {"ready", "running"}):
            broken.append(f"position {seen.position} is told to be {told[name]} for {name}, and is {held}")
    return broken


def kept(facts: Facts) -> Iterator[str]:
    """Rule 5: the log keeps what a subscription has not settled."""
    for (name, position), states in sorted(facts.states.items()):
        if position not in facts.kept and name != LANDING and set(states) & {"pending", "ready", RETRY, BEHIND}:
            yield f"position {position} was dropped, and is {states[0]} for {name}"


def relayed(facts: Facts, network: Network) -> Iterator[str]:
    """The relay sends every own event at least once, and those of one key in the order of the log at first."""
    position = {(seen.id, seen.source): seen.position for seen in facts.log}
    first: dict[str, int] = {}
    newest: dict[str | None, int] = {}
    for envelope in network.sent:
        place = position.get((envelope.id, envelope.source), -1)
        if place < 0:
            yield f"{envelope.type} {envelope.id} was sent, and is not in the log"
        if envelope.source != SOURCE:
            yield f"event {envelope.id} of {envelope.source} was sent on"
        if envelope.id in first:
            continue
        first[envelope.id] = place
        if place < newest.get(envelope.key, 0):
            yield f"position {place} was sent after {newest[envelope.key]}, both of key {envelope.key}"
        newest[envelope.key] = max(place, newest.get(envelope.key, 0))
    for seen in facts.log:
        if seen.source == SOURCE and seen.id not in first and not facts.states.get((RELAY, seen.position)):
            yield f"position {seen.position} was never sent"


def drained(facts: Facts, types: Collection[str], with_relay: bool) -> Iterator[str]:
    """Nothing is left that could go on: only dead, discarded, and what waits behind the dead."""
    by_position = {seen.position: seen for seen in facts.log}
    ends = {DEAD, PARKED}
    closed = {
        (name, by_position[p].key)
        for (name, p), states in facts.states.items()
        if ends & set(states) and p in by_position
    }
    for (name, position), states in sorted(facts.states.items()):
        if name == RELAY and not with_relay:
            continue
        seen = by_position.get(position)
        known = seen is not None and seen.type in types
        if BEHIND in states and seen is not None and (name, seen.key) not in closed:
            yield f"position {position} waits for {name} behind nothing"
        if set(states) & {"pending", "ready", RETRY} or (PARKED in states and known):
            yield f"position {position} is still {states[0]} for {name}"
    for event_id in sorted(facts.scheduled):
        yield f"{event_id} is still scheduled"
