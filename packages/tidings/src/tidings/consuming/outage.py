"""An outage is not ten thousand dead letters: many different failures without a success pause a subscription."""

from collections.abc import Sequence

PROBE = 5
"""Events that one probe tries."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds to the first probe, doubled up to the longest."""

COUNTED_EVERY = 4
"""One probe in so many counts its attempts: what only fails still ends as dead letters, a few in a minute."""


class Outage:
    """Watches the outcomes of one subscription. `pause_after`: different events that fail in a row; None: never."""

    def __init__(self, pause_after: int | None) -> None:
        self._pause_after = pause_after
        self._failing: set[int] = set()
        self._probes = 0
        self._pause = 0.0
        self._until = 0.0

    @property
    def on(self) -> bool:
        """True while the subscription is paused but for probes."""
        return self._pause > 0

    @property
    def counts(self) -> bool:
        """True if a failure now counts as an attempt."""
        return not self.on or self._probes % COUNTED_EVERY == COUNTED_EVERY - 1

    def wait(self, now: float) -> float:
        """Return the seconds until something may be tried; 0 for now."""
        return max(0.0, self._until - now) if self.on else 0.0

    def outcome(self, failed: Sequence[int], succeeded: bool, now: float) -> bool:
        """Take in what one turn brought; say whether an outage began or ended."""
        if succeeded:
            ended = self.on
            self._failing.clear()
            self._pause = 0.0
            return ended
        if not failed or self._pause_after is None:
            return False
        self._failing.update(failed)
        began = not self.on and len(self._failing) >= self._pause_after
        if began:
            self._pause, self._probes = FIRST_PAUSE, 0
        elif self.on and now >= self._until:
            self._pause, self._probes = min(self._pause * 2, LONGEST_PAUSE), self._probes + 1
        else:
            return False
        self._until = now + self._pause
        return began
