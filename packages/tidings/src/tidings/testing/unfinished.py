"""What the store still has to do, by asking it: pending, ready, due again, waiting behind another."""

from collections.abc import Collection, Sequence

from msgspec import Struct

from tidings.rows import BEHIND, DEAD, DISCARDED, PARKED, RETRY, Failure, Held, Record, SubscriptionRow
from tidings.statements import Statements
from tidings.world import moment

PAGE = 500
"""Rows read at a time."""

SETTLED_FOR_GOOD = (DEAD, PARKED, DISCARDED)
"""States that nothing but a person or a deploy changes."""


class Unfinished(Struct, frozen=True):
    """One event that one subscription has not finished, and why. `due` (microseconds): what waits for the clock."""

    subscription: str
    position: int
    state: str
    why: str = ""
    due: int | None = None


async def unfinished(statements: Statements, among: Collection[int] | None = None) -> list[Unfinished]:
    """Return what is not finished, of the events at some positions or of the whole log."""
    found: list[Unfinished] = []
    for row in await statements.subscriptions():
        found += await _pending(statements, row)
    found += await _ready(statements)
    for name in sorted({row.name for row in await statements.subscriptions()}):
        found += await _held(statements, name)
    return [one for one in found if among is None or one.position in among]


async def every_record(statements: Statements) -> list[Record]:
    """Return the whole log."""
    records: list[Record] = []
    while page := await statements.recent(records[-1].position if records else 0, PAGE):
        records += page
    return records


async def every_held(statements: Statements, subscription: str) -> list[Held]:
    """Return every exception of a subscription, in order of position."""
    rows: list[Held] = []
    states = (RETRY, BEHIND, *SETTLED_FOR_GOOD)
    while page := await statements.letters(states, subscription, rows[-1].position if rows else 0, PAGE):
        rows += page
    return rows


async def _pending(statements: Statements, row: SubscriptionRow) -> list[Unfinished]:
    why = f"paused by {row.paused_by}: {row.paused_because}" if row.paused_by is not None else ""
    found = []
    for step in await statements.steps(row.name):
        after = step.position
        # A relay has no types of its own: it carries every one.
        while (page := await statements.read(after, row.types or None, [step.lane], PAGE)).scanned > after:
            found += [Unfinished(row.name, record.position, "pending", why) for record in page.records]
            after = page.scanned
    return found


async def _ready(statements: Statements) -> list[Unfinished]:
    positions = [record.position for record in await every_record(statements)]
    found = []
    for start in range(0, len(positions), PAGE):
        for work in await statements.ready(positions[start : start + PAGE]):
            state = "ready" if work.owner is None else f"running (attempt {work.attempt})"
            found.append(Unfinished(work.subscription, work.position, state, _last_error(work.failures)))
    return found


async def _held(statements: Statements, subscription: str) -> list[Unfinished]:
    rows = await every_held(statements, subscription)
    heads: dict[str | None, Held] = {}
    for row in rows:
        if row.blocks:
            heads.setdefault(row.key, row)
    found = []
    for row in rows:
        if row.state == RETRY:
            found.append(Unfinished(subscription, row.position, RETRY, _last_error(row.failures), row.due))
        if row.state == BEHIND and heads[row.key].state not in SETTLED_FOR_GOOD:
            why = f"behind the event at position {heads[row.key].position}"
            found.append(Unfinished(subscription, row.position, BEHIND, why))
    return found


def _last_error(failures: Sequence[Failure]) -> str:
    return f"attempt {failures[-1].attempt} raised {failures[-1].error}: {failures[-1].message}" if failures else ""


def describe(one: Unfinished, record: Record | None) -> str:
    """Return one line: the event, the subscription, the state and why."""
    event = f"{record.envelope.type} {record.envelope.id}" if record is not None else f"position {one.position}"
    due = f", due {moment(one.due).isoformat()}" if one.due is not None else ""
    return f"{event} for {one.subscription}: {one.state}{due}{f' ({one.why})' if one.why else ''}"


def earliest(found: Collection[Unfinished], now: int) -> int | None:
    """Return when the first of these is due, if every one of them waits for the clock; else None."""
    dues = [one.due for one in found if one.due is not None and one.due > now]
    behind = [one for one in found if one.state == BEHIND]
    return min(dues) if dues and len(dues) + len(behind) == len(found) else None
