"""PORT: what a broker must do, and one message of it."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from tidings.events import Envelope


class Capabilities(Struct, frozen=True):
    """What a transport can do; the conformance suite proves each claim. `max_bytes` is of one encoded envelope."""

    ordered_by_key: bool
    max_bytes: int
    max_batch: int


class Delivery(Struct, frozen=True):
    """One message as it came: its bytes, its headers, and the broker's receipt to settle it by."""

    receipt: str
    body: bytes
    headers: dict[str, str] = {}


class Refusal(Struct, frozen=True):
    """Why a broker did not take one envelope. `retryable` tells whether the same may be taken later."""

    event_id: str
    reason: str
    retryable: bool


class Transport(Protocol):
    """Carries envelopes between services. Both ways are at least once; the log makes that effects once."""

    capabilities: Capabilities

    async def open(self) -> None:
        """Connect; raises TransportError."""

    async def close(self) -> None:
        """Disconnect. What was received and not settled comes again."""

    async def send(self, envelopes: Sequence[Envelope]) -> list[Refusal]:
        """Send in this order; return what was refused. Raises TransportError when the broker cannot be reached."""

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages and return some; raises TransportError."""

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge: these need not come again."""
