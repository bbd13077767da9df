"""What a process gets from outside itself: time, randomness, fresh ids. Injected, so that a simulation can own them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Clock = Callable[[], datetime]
"""Tells the time: an aware UTC datetime."""

Ids = Callable[[datetime, Random], str]
"""Makes a fresh, unique event id for a moment."""


def microseconds(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 UTC, the unit of every time in the store."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(since_epoch: int) -> datetime:
    """Return microseconds since 1970 UTC as an aware datetime."""
    return _EPOCH + since_epoch * _MICROSECOND  # half the time of timedelta(microseconds=…)


def written(since_epoch: int) -> str:
    """Return microseconds since 1970 UTC as text: ISO 8601 in one form, that sorts as the times do."""
    return moment(since_epoch).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class World:
    """Time, randomness and ids for everything below the service. Nothing there asks the operating system itself."""

    clock: Clock
    random: Random
    ids: Ids

    def now(self) -> int:
        """Return the present in microseconds since 1970 UTC."""
        return microseconds(self.clock())

    def fresh_id(self) -> str:
        """Return a new event id."""
        return self.ids(self.clock(), self.random)
