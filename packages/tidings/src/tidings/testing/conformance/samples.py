"""What the suites write: envelopes, subscriptions and a world that stands still."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from tidings.events import Envelope, envelope_to_json
from tidings.rows import Held, Ready, SubscriptionRow
from tidings.world import World, microseconds

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""The present of every suite."""


def still_world() -> World:
    """Return a world whose clock stands and whose randomness is seeded."""
    return World(lambda: NOW, Random(1), lambda moment, random: f"{random.getrandbits(64):016x}")


def at(seconds: float) -> int:
    """Return a moment so many seconds after NOW, in microseconds."""
    return microseconds(NOW + timedelta(seconds=seconds))


def envelope(event_id: str, **attributes: Any) -> Envelope:
    """Return an envelope; what is not said is the same for all."""
    said: dict[str, Any] = {
        "source": "suite",
        "type": "suite.happened",
        "time": NOW,
        "correlation": event_id,
        "data": b'{"n":1}',
    }
    return Envelope(id=event_id, **{**said, **attributes})


def sized(event_id: str, size: int, **attributes: Any) -> Envelope:
    """Return an envelope that is exactly so many bytes long as it travels."""
    bare = len(envelope_to_json(envelope(event_id, data=b'{"text":""}', **attributes)))
    return envelope(event_id, data=b'{"text":"' + b"x" * (size - bare) + b'"}', **attributes)


def subscription(name: str = "sub", **attributes: Any) -> SubscriptionRow:
    """Return the row of a subscription that wants `suite.happened` from the beginning."""
    said: dict[str, Any] = {"kind": "transaction", "ordered": True, "types": ("suite.happened",), "start": 0}
    return SubscriptionRow(name, "suite", **{**said, **attributes})


def held(position: int, state: str, **attributes: Any) -> Held:
    """Return an exception of `sub` with key "k" that blocks it."""
    said: dict[str, Any] = {"lane": 0, "key": "k", "blocks": True}
    return Held("sub", position, state=state, **{**said, **attributes})


def ready(position: int, share: str = "", key: str | None = None) -> Ready:
    """Return work of `sub` that waits."""
    return Ready("sub", share, position, 0, key)
