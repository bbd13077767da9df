"""Dead letters: list them with all that is known, let them be tried again, or give them up in somebody's name."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from tidings.errors import OperationError
from tidings.events import Envelope
from tidings.points import reach
from tidings.rows import DEAD, DISCARDED, LANDING, PARKED, RETRY, Failure, Held, Record
from tidings.statements import Statements
from tidings.store import Store

PAGE = 200
"""Exceptions that one read, or one transaction, takes at a time."""

SETTLEABLE = (DEAD, PARKED, RETRY)
"""States that may be discarded; all but `retry`, which is under way already, may be redriven."""

Address = tuple[int, str]
"""Position and subscription: what names one exception."""


class DeadLetter(Struct, frozen=True):
    """An exception with its event: every attempt's error and traceback, and the envelope with its bytes.

    `event` is None only for a discarded one whose retention has ended. `actor` redrove or discarded it.
    """

    subscription: str
    position: int
    state: str
    event: Envelope | None
    attempts: int
    reason: str | None
    failures: tuple[Failure, ...]
    updated: int
    due: int | None = None
    actor: str | None = None


class Filter(Struct, frozen=True):
    """Which exceptions: all conditions hold. `error` is part of any attempt's error or message, in any case.

    `since`: not touched before that time (microseconds). `addresses`: these, and no others.
    """

    states: tuple[str, ...] = (DEAD,)
    subscription: str | None = None
    type: str | None = None
    key: str | None = None
    error: str | None = None
    since: int | None = None
    event_id: str | None = None
    addresses: frozenset[Address] | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Say whether a letter fits."""
        event = letter.event
        if (self.type, self.key, self.event_id) != (None, None, None) and event is None:
            return False
        return (
            (self.addresses is None or _address(letter) in self.addresses)
            and (self.since is None or letter.updated >= self.since)
            and (self.type is None or (event is not None and event.type == self.type))
            and (self.key is None or (event is not None and event.key == self.key))
            and (self.event_id is None or (event is not None and event.id == self.event_id))
            and (self.error is None or self.error.lower() in _said(letter))
        )


class Outcome(Struct, frozen=True):
    """What became of a redrive or discard: how many letters, how many changed meanwhile, why some were refused."""

    done: int
    changed: int
    refused: tuple[str, ...] = ()


def _said(letter: DeadLetter) -> str:
    parts = [letter.reason or "", *(f"{one.error}: {one.message}" for one in letter.failures)]
    return "\n".join(parts).lower()


async def letters(store: Store, which: Filter, *, limit: int | None = None) -> list[DeadLetter]:
    """Return the exceptions that a filter takes, in order of position."""
    async with store.snapshot() as said:
        found = [letter async for letter in _each(said, which)]
    found.sort(key=_address)
    return found[:limit]


def _address(letter: DeadLetter) -> Address:
    return letter.position, letter.subscription


async def _each(said: Statements, which: Filter) -> AsyncIterator[DeadLetter]:
    names = sorted({name for name, state in await said.counts() if state in which.states})
    for name in names:
        if which.subscription in (None, name):
            async for letter in _of_subscription(said, name, which):
                yield letter


async def _of_subscription(said: Statements, name: str, which: Filter) -> AsyncIterator[DeadLetter]:
    after = 0
    while rows := await said.letters(which.states, name, after, PAGE):
        records = await said.records([row.position for row in rows])
        for row in rows:
            letter = _letter(row, records.get(row.position))
            if which.takes(letter):
                yield letter
        after = rows[-1].position


def _letter(row: Held, record: Record | None) -> DeadLetter:
    return DeadLetter(
        subscription=row.subscription,
        position=row.position,
        state=row.state,
        event=record.envelope if record is not None else None,
        attempts=row.attempts,
        reason=row.reason,
        failures=row.failures,
        updated=row.updated,
        due=row.due,
        actor=row.actor,
    )


def quiet(done: int) -> None:
    """Hear of progress, and say nothing."""


async def redrive(
    store: Store,
    which: Filter,
    *,
    actor: str,
    now: int,
    rate: float | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] = quiet,
) -> Outcome:
    """Let dead or parked events be tried again, with all their attempts, in the order of their positions.

    `rate`: at most so many in a second. Two people may redrive at once: each letter goes back once. What landing
    refused cannot be redriven, because it is not an event. Raises OperationError for states that are not to redrive.
    """
    if not set(which.states) <= {DEAD, PARKED}:
        raise OperationError(f"Only dead and parked events are redriven, not {', '.join(which.states)}: name those.")
    chosen = [_address(letter) for letter in await letters(store, which, limit=limit)]
    refused = tuple(_refusal(position) for position, name in chosen if name == LANDING)
    chosen = [(position, name) for position, name in chosen if name != LANDING]
    if dry_run:
        return Outcome(len(chosen), 0, refused)
    step = 0 if rate is None else 1_000_000 / rate
    due = {address: now + int(number * step) for number, address in enumerate(chosen)}

    def again(row: Held) -> Held:
        at = due[row.position, row.subscription]
        return replace(row, state=RETRY, attempts=0, due=at, reason=f"redriven by {actor}", actor=actor, updated=now)

    return replace(await _settle(store, chosen, which.states, again, progress), refused=refused)


def _refusal(position: int) -> str:
    return (
        f"The message at position {position} was not taken in at landing, so no subscription has it: "
        "send it again from its source, or discard it. One that is parked comes back by itself."
    )


async def discard(
    store: Store,
    which: Filter,
    *,
    actor: str,
    reason: str,
    now: int,
    limit: int | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] = quiet,
) -> Outcome:
    """Give events up for good, in somebody's name and for a reason that stay with them; their keys are free again.

    Raises OperationError if actor or reason is blank, or for states that are not to discard.
    """
    if not actor.strip() or not reason.strip():
        raise OperationError("An event is discarded in somebody's name and for a reason: give both, neither is blank.")
    if not set(which.states) <= set(SETTLEABLE):
        raise OperationError(f"Only {', '.join(SETTLEABLE)} events are discarded, not {', '.join(which.states)}.")
    chosen = [_address(letter) for letter in await letters(store, which, limit=limit)]
    if dry_run:
        return Outcome(len(chosen), 0)

    def given_up(row: Held) -> Held:
        return replace(row, state=DISCARDED, blocks=False, due=None, reason=reason, actor=actor, updated=now)

    return await _settle(store, chosen, which.states, given_up, progress)


async def _settle(
    store: Store,
    chosen: Sequence[Address],
    states: Sequence[str],
    change: Callable[[Held], Held],
    progress: Callable[[int], None],
) -> Outcome:
    done = 0
    for start in range(0, len(chosen), PAGE):
        page = chosen[start : start + PAGE]

        async def unit(statements: Statements, page: Sequence[Address] = page) -> int:
            # Looked at again inside the transaction: somebody else may have been faster.
            rows = [row for row in await _current(statements, page) if row.state in states]
            if rows:
                await statements.hold([change(row) for row in rows])
            reach("redrive.before_commit")
            return len(rows)

        done += await store.run(unit)
        progress(done)
    return Outcome(done, len(chosen) - done)


async def _current(statements: Statements, page: Iterable[Address]) -> list[Held]:
    by_name = sorted(page, key=lambda address: (address[1], address[0]))
    rows: list[Held] = []
    for name, addresses in groupby(by_name, key=lambda address: address[1]):
        rows.extend(await statements.held(name, [position for position, _ in addresses]))
    return rows
