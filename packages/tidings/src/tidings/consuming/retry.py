"""Whether and when a failed delivery is tried again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from tidings.errors import ServiceError

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a delivery is tried, and how long between.

    `attempts` counts all of them, the first included. The wait after attempt n is `backoff * factor**(n-1)`, at most
    `max_backoff`, spread by ± `jitter` (a fraction) so that failures do not return together. An event older than
    `max_age` is not tried again. Exceptions in `never` are not retried; `rules` gives exception types a policy of
    their own, the most specific first. Raises ServiceError for values that make no sense.
    """

    attempts: int = 3
    backoff: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    max_backoff: timedelta = timedelta(minutes=5)
    jitter: float = 0.2
    max_age: timedelta | None = None
    never: tuple[type[BaseException], ...] = ()
    rules: Mapping[type[BaseException], "RetryPolicy"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.attempts < 1:
            raise ServiceError(f"RetryPolicy(attempts={self.attempts}): there is at least one attempt.")
        if self.backoff < timedelta(0) or self.max_backoff < timedelta(0) or self.factor < 1:
            raise ServiceError("RetryPolicy: backoff and max_backoff are not negative, and factor is at least 1.")
        if not 0 <= self.jitter < 1:
            raise ServiceError(f"RetryPolicy(jitter={self.jitter}): jitter is a fraction, from 0 to less than 1.")

    def due(self, error: BaseException | None, attempt: int, published: int, now: int, random: Random) -> int | None:
        """Return when to try again (microseconds), None for never. `error` None: the process died in the attempt."""
        policy = self._rule(error)
        if attempt >= policy.attempts or (error is not None and isinstance(error, policy.never)):
            return None
        if policy.max_age is not None and now - published > policy.max_age // _MICROSECOND:
            return None
        return now + policy.wait(attempt, random)

    def wait(self, attempt: int, random: Random) -> int:
        """Return the wait after an attempt, in microseconds."""
        longest = self.max_backoff // _MICROSECOND
        first = self.backoff // _MICROSECOND
        exponent = min(attempt - 1, 60)  # beyond, every backoff has reached its maximum
        wait = min(first * self.factor**exponent, longest)
        return int(wait * random.uniform(1 - self.jitter, 1 + self.jitter))

    def _rule(self, error: BaseException | None) -> "RetryPolicy":
        for cls in type(error).__mro__ if error is not None else ():
            if cls in self.rules:
                return self.rules[cls]
        return self
