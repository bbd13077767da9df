"""The rules of an export's life, pure: what may happen next. No clock, no database, no event."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, StrEnum

import msgspec

from adexport.errors import AdExportError

# An export that needs longer than this many times its estimate is stuck, not slow.
PATIENCE = 20.0
SHORTEST_DEADLINE = timedelta(minutes=10)
LONGEST_DEADLINE = timedelta(hours=24)
FIRST_CHECK = timedelta(seconds=30)
# Up to an hour or so between checks: what asking again could bring is late by then anyway.
MOST_DOUBLINGS = 7
RENDER_ATTEMPTS = 3


class State(StrEnum):
    """The states of an export, in the words of the product."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"


class NotNowError(AdExportError):
    """The export is in a state in which this cannot be asked for."""

    retryable = False


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where an export stands; `done` and `failed` count files."""

    state: State
    round: int
    total: int
    done: int
    failed: int
    deadline: datetime

    @property
    def settled(self) -> int:
        """How many files are done or failed."""
        return self.done + self.failed

    @property
    def missing(self) -> int:
        """How many files are neither done nor failed."""
        return self.total - self.settled

    @property
    def every(self) -> int:
        """A number with a bit set for each file."""
        return (1 << self.total) - 1

    @property
    def active(self) -> bool:
        """True while results are awaited."""
        return self.state in (State.PENDING, State.RUNNING)


class Check(Enum):
    """What the timer of an export leads to."""

    IGNORE = "ignore"
    WAIT = "wait"
    ASK_AGAIN = "ask again"
    GIVE_UP = "give up"


def deadline(now: datetime, estimate_seconds: float) -> datetime:
    """When an export asked for at `now` ends at the latest."""
    wait = timedelta(seconds=min(estimate_seconds * PATIENCE, LONGEST_DEADLINE.total_seconds()))
    return now + max(SHORTEST_DEADLINE, wait)


def next_check(now: datetime, deadline: datetime, *, asked: int = 0) -> datetime:
    """When to look for missing files again: soon, and exactly at the deadline.

    After each time that they were `asked` for again and nothing came, twice as late: a queue that nobody reads must
    not be filled all the time.
    """
    wait = FIRST_CHECK * 2 ** min(asked, MOST_DOUBLINGS)
    return deadline if now >= deadline else min(now + wait, deadline)


def check(standing: Standing, *, round: int, settled_before: int, now: datetime) -> Check:
    """What to do when a timer of `round` goes off that saw `settled_before` files settled.

    Asking again only when nothing arrived since keeps a slow, busy queue from being filled twice.
    """
    if not standing.active or standing.round != round:
        return Check.IGNORE
    if now >= standing.deadline:
        return Check.GIVE_UP
    return Check.WAIT if standing.settled > settled_before else Check.ASK_AGAIN


def ending(standing: Standing) -> State | None:
    """How an active export ends now that no file is missing; None while some are, or when it is over already."""
    if not standing.active or standing.missing > 0:
        return None
    return State.DONE if standing.done > 0 else State.DEAD


def require_cancellable(standing: Standing) -> None:
    """Raise NotNowError unless there is something left to stop."""
    if not standing.active:
        raise NotNowError(f"The export is {standing.state.value} already: there is nothing left to cancel.")


def require_retryable(standing: Standing) -> None:
    """Raise NotNowError unless the export is over and has files that are not done."""
    if standing.active:
        raise NotNowError("The export is still running: wait until it ends, or cancel it, then retry.")
    if standing.done == standing.total:
        raise NotNowError("Every file of this export is done: there is nothing to retry.")
