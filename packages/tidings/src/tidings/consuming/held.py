"""What becomes of an event that could not be handled now: retry, parked or dead. Nothing is skipped in place."""

import traceback

from msgspec.structs import replace

from tidings.consuming.subscription import Subscription
from tidings.errors import EventDecodeError, ParkedEventError
from tidings.store import BEHIND, DEAD, PARKED, RETRY, Failure, Held, Record
from tidings.world import World, microseconds

STARTED = "started"
"""Reason of a retry whose attempt was counted before it ran. Still there later: its process died."""

DIED_IN_IT = "ProcessDied"
"""Error of an attempt whose process died."""

LONGEST_TRACEBACK = 16_000
"""Characters of a traceback that are kept: its end, where the cause stands."""

FAILURES_KEPT = 20
"""Failures kept for one event: the first, and the newest."""


class Exceptions:
    """Decides for one subscription what a failed delivery becomes."""

    def __init__(self, subscription: Subscription, world: World) -> None:
        self._subscription = subscription
        self._world = world

    def behind(self, record: Record) -> Held:
        """Return the row of an event whose key is held by an earlier one."""
        return self._row(record, BEHIND)

    def started(self, record: Record, attempt: int, failures: tuple[Failure, ...]) -> Held:
        """Return the row of an attempt that is counted before it runs, because its process may not survive it."""
        policy = self._subscription.retry
        wait = policy.wait(attempt, self._world.random)
        return replace(
            self._row(record, RETRY), attempts=attempt, due=self._world.now() + wait, reason=STARTED, failures=failures
        )

    def failed(
        self, record: Record, attempt: int, error: BaseException | None, failures: tuple[Failure, ...] = ()
    ) -> Held:
        """Return the row of a failed attempt: retry with its due time, parked, or dead. `error` None: process died."""
        now = self._world.now()
        failures = _with(failures, failure(attempt, now, error))
        reason = failures[-1].message
        if isinstance(error, ParkedEventError):
            return replace(self._row(record, PARKED), attempts=attempt, reason=reason, failures=failures)
        published = microseconds(record.envelope.time)
        due = self._subscription.retry.due(error, attempt, published, now, self._world.random)
        if due is None or isinstance(error, EventDecodeError):
            return replace(self._row(record, DEAD), attempts=attempt, reason=reason, failures=failures)
        return replace(self._row(record, RETRY), attempts=attempt, due=due, reason=reason, failures=failures)

    def _row(self, record: Record, state: str) -> Held:
        ordered = self._subscription.ordered and record.envelope.key is not None
        return Held(
            subscription=self._subscription.name,
            position=record.position,
            lane=record.lane,
            key=record.envelope.key,
            blocks=ordered and not (state == DEAD and self._subscription.after_dead == "continue"),
            state=state,
            updated=self._world.now(),
        )


def failure(attempt: int, now: int, error: BaseException | None) -> Failure:
    """Return the record of one failed attempt."""
    if error is None:
        return Failure(attempt, now, DIED_IN_IT, f"The process died during attempt {attempt}.", "")
    text = "".join(traceback.format_exception(error))
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return Failure(attempt, now, name, _encodable(_message(error)), _encodable(text[-LONGEST_TRACEBACK:]))


def _encodable(text: str) -> str:
    """Return text that JSON can carry: file names may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _message(error: BaseException) -> str:
    try:
        return str(error)[:2000] or type(error).__name__
    except Exception:  # a user's __str__ may raise, and must not take the delivery with it
        return type(error).__name__


def _with(failures: tuple[Failure, ...], newest: Failure) -> tuple[Failure, ...]:
    every = (*failures, newest)
    return every if len(every) <= FAILURES_KEPT else (every[0], *every[-FAILURES_KEPT + 1 :])
