"""Step 2 of publishing: buffer what a transaction publishes, and write it by its last statement."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from tidings.errors import ServiceError
from tidings.events import Envelope
from tidings.rows import Scheduled
from tidings.statements import Statements
from tidings.world import World, microseconds


def due_at(world: World, delay: timedelta | None, at: datetime | None) -> int | None:
    """Return when a publish is due (microseconds), None for now.

    Raises ServiceError if both are given, if `delay` is negative, or if `at` has no time zone.
    """
    if delay is not None and at is not None:
        raise ServiceError("publish() got both delay and at: give one of them.")
    due = _due(world, delay, at)
    if due is not None and due > LATEST:
        raise ServiceError("publish() is due after the year 9999: pass an earlier time.")
    return due


LATEST = 253_402_300_799_000_000
"""The end of the year 9999 in microseconds since 1970 UTC."""


def _due(world: World, delay: timedelta | None, at: datetime | None) -> int | None:
    if at is not None:
        if at.utcoffset() is None:
            raise ServiceError(
                f"publish(at={at!r}) has no time zone: pass an aware datetime, such as datetime.now(UTC)."
            )
        return microseconds(at)
    if delay is None:
        return None
    if delay < timedelta(0):
        raise ServiceError(f"publish(delay={delay!r}) is negative: pass a delay of zero or more.")
    return world.now() + delay // timedelta(microseconds=1)


_STYLES = {"numeric_dollar": r"\g<0>", "pyformat": "%s", "qmark": "?"}


def in_paramstyle(sql: str, paramstyle: str) -> str:
    """Write `$1`, `$2`, …, each used once and in order, as a driver's placeholders; raises ServiceError."""
    if paramstyle not in _STYLES:
        raise ServiceError(f"paramstyle={paramstyle!r} is not known: use one of {', '.join(_STYLES)}.")
    escaped = sql.replace("%", "%%") if paramstyle == "pyformat" else sql
    return re.sub(r"\$\d+", _STYLES[paramstyle], escaped)


Mark = tuple[int, int, int, int]
"""How much of each kind an outbox has."""

EMPTY: Mark = (0, 0, 0, 0)


class Inline(Protocol):
    """What handles events in the transaction that publishes them, before they are written to the log."""

    def takes(self, envelopes: Iterable[Envelope]) -> bool:
        """Say whether any of these events is its own."""

    async def handle(self, statements: Statements, envelopes: Sequence[Envelope]) -> None:
        """Handle its own among events that are written next."""


class Outbox:
    """What one transaction will publish. Writing it early would hold up every reader of the log."""

    __slots__ = ("cancelled", "chosen", "envelopes", "inline", "scheduled")

    def __init__(self, inline: Inline | None = None) -> None:
        self.inline = inline
        self.envelopes: list[Envelope] = []
        self.scheduled: list[Scheduled] = []
        self.chosen: list[Envelope] = []
        self.cancelled: list[int] = []

    def add(self, envelope: Envelope, due: int | None, *, chosen_id: bool = False) -> None:
        """Buffer an envelope; `chosen_id` says that the caller chose its id, and may repeat the call with it."""
        if due is not None:
            self.scheduled.append(Scheduled(due, envelope))
        elif chosen_id:
            self.chosen.append(envelope)
        else:
            self.envelopes.append(envelope)

    def cancel(self, event_id: str) -> bool:
        """Forget a publish that is to be scheduled by this transaction; say whether there is one."""
        for place, row in enumerate(self.scheduled):
            if row.envelope.id == event_id and place not in self.cancelled:
                self.cancelled.append(place)
                return True
        return False

    def mark(self) -> Mark:
        """Return a place to which `cut` can return."""
        return len(self.envelopes), len(self.scheduled), len(self.chosen), len(self.cancelled)

    def cut(self, mark: Mark) -> None:
        """Forget what was added after a mark."""
        del self.envelopes[mark[0] :], self.scheduled[mark[1] :], self.chosen[mark[2] :], self.cancelled[mark[3] :]

    async def flush(self, statements: Statements) -> None:
        """Write everything; what came under a chosen id only if it has not come before."""
        cancelled = set(self.cancelled)
        scheduled = [row for place, row in enumerate(self.scheduled) if place not in cancelled]
        if scheduled:
            await statements.schedule(scheduled)
        if self.chosen:
            now = microseconds(self.chosen[-1].time)  # of these it is when they were published
            self.envelopes.extend(await statements.admit(self.chosen, undated_at=now))
        if self.envelopes:
            if self.inline is not None:
                await self.inline.handle(statements, self.envelopes)
            await statements.append(self.envelopes)
