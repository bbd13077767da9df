"""What becomes of an event that could not be handled now: retry, parked or dead. Nothing is skipped in place."""

import logging
import traceback

from msgspec.structs import replace

from tidings.consuming.subscription import Subscription
from tidings.errors import EventDecodeError, ParkedEventError, TransactionEndedError
from tidings.events import Envelope
from tidings.rows import BEHIND, DEAD, LANDING, PARKED, RETRY, Failure, Held, Record
from tidings.world import World, microseconds

log = logging.getLogger("tidings")

_AT_ONCE = (EventDecodeError, TransactionEndedError)
"""What makes a dead letter at the first attempt: bytes stay as they are, and what is committed would be done twice."""

STARTED = "started"
"""Reason of a retry whose attempt was counted before it ran. Still there later: its process died."""

DIED_IN_IT = "ProcessDied"
"""Error of an attempt whose process died."""

LONGEST_TRACEBACK = 16_000
"""Characters of a traceback that are kept: its end, where the cause stands."""

FAILURES_KEPT = 20
"""Failures kept for one event: the first, and the newest."""

LONGEST_NOTE = 300
"""Characters of an error in the log at most; `tidings dlq show` has all of it."""


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
        failures = _with(failures, failure(attempt, self._world.now(), error))
        held = self._verdict(record, attempt, error, failures)
        note(held, record.envelope, f"{failures[-1].error}: {failures[-1].message}")
        return held

    def _verdict(
        self, record: Record, attempt: int, error: BaseException | None, failures: tuple[Failure, ...]
    ) -> Held:
        now, reason = failures[-1].time, failures[-1].message
        if isinstance(error, ParkedEventError):
            return replace(self._row(record, PARKED), attempts=attempt, reason=reason, failures=failures)
        published = microseconds(record.envelope.time)
        due = self._subscription.retry.due(error, attempt, published, now, self._world.random)
        if due is None or isinstance(error, _AT_ONCE):
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


def note(held: Held, envelope: Envelope, error: str) -> None:
    """Log what an event became, in one line: a dead letter is an error, one to be tried again or parked only news.

    It is said before it is committed: if the store fails in between, it is said again when it is done again.
    """
    name = "landing" if held.subscription == LANDING else held.subscription
    about, error = f"event {_one_line(envelope.id)} ({envelope.type})", _one_line(error)
    if held.state == DEAD:
        tries = f" after {held.attempts} attempt{'s' * (held.attempts != 1)}" if held.attempts else ""
        text = "%s: %s is a dead letter%s: %s (see `tidings dlq show %s`)"
        log.error(text, name, about, tries, error, _one_line(envelope.id))
    elif held.state == RETRY and held.due is not None:
        tried = f"attempt {held.attempts}" if held.attempts else "a probe"  # in an outage, what is tried does not count
        wait = (held.due - held.updated) / 1e6
        log.info("%s: %s at %s failed; the next is in %.1f s: %s", name, tried, about, wait, error)
    else:
        log.info("%s: %s is %s: %s", name, about, held.state, error)


def _one_line(text: str) -> str:
    """Return text that neither breaks a line of the log nor steers a terminal, cut where it is long."""
    line = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text.strip())
    return line if len(line) <= LONGEST_NOTE else line[: LONGEST_NOTE - 1] + "…"


def failure(attempt: int, now: int, error: BaseException | None) -> Failure:
    """Return the record of one failed attempt."""
    if error is None:
        return Failure(attempt, now, DIED_IN_IT, f"The process died during attempt {attempt}.", "")
    text = "".join(traceback.format_exception(error))
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return Failure(attempt, now, name, _encodable(_message(error)), _encodable(text[-LONGEST_TRACEBACK:]))


def _encodable(text: str) -> str:
    """Return text that JSON and every store can carry: file names may hold bytes that are no text, and Postgres takes
    no NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _message(error: BaseException) -> str:
    try:
        return str(error)[:2000] or type(error).__name__
    except Exception:  # a user's __str__ may raise, and must not take the delivery with it
        return type(error).__name__


def _with(failures: tuple[Failure, ...], newest: Failure) -> tuple[Failure, ...]:
    every = (*failures, newest)
    return every if len(every) <= FAILURES_KEPT else (every[0], *every[-FAILURES_KEPT + 1 :])
