"""Named points on the path of an event, where tests stop the world. Silent in production."""

from collections.abc import Callable

POINTS = (
    "publish.before_commit",
    "publish.after_commit",
    "lane.taken",
    "lane.before_handlers",
    "lane.after_handlers",
    "lane.before_commit",
    "lane.after_commit",
    "held.attempt_counted",
    "held.before_commit",
    "ready.filled",
    "ready.claimed",
    "work.before_commit",
    "work.after_commit",
    "work.failed",
    "scheduled.before_commit",
    "scheduled.after_commit",
    "landing.before_commit",
    "landing.before_acknowledge",
    "relay.sent",
    "redrive.before_commit",
)
"""Every point of an event's life, in its order. The kill tests must reach each."""

SWAP = "swap.before_commit"
"""Where a version of a projection goes live; no event's, so it has kill tests and a simulation of its own."""

COMMAND_POINTS = ("command.admitted", "command.before_commit")
"""The points of a command with an id; no event's, so it has kill tests of its own."""

DRAINING_POINTS = ("drain.before_commit", "drain.before_acknowledge")
"""The points at which a broker's dead letters become ours."""

STORELESS_POINTS = ("outcome.decided", "outcome.written", "outcome.published")
"""The points of an event that is handled without a store."""


class ProcessEnd(BaseException):
    """What a test raises at a point in place of a SIGKILL: nothing may catch it and go on."""


_visit: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Say that the program is at a point. Does nothing unless a test watches."""
    if _visit is not None:
        _visit(point)


def watch(visit: Callable[[str], None] | None) -> None:
    """Let a test see every point that is reached from now on; None ends it."""
    global _visit
    _visit = visit
