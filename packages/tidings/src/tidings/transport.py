"""PORT: what a broker must do, and one message of it."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from tidings.events import Envelope


class Capabilities(Struct, frozen=True):
    """What a transport can do. The conformance suite proves each claim, and skips visibly what is not claimed.

    `ordered_by_key`: what is received and not settled keeps back what follows of its source and key, and comes again
    before it. `max_bytes` of one encoded envelope, `max_batch` envelopes of one send. `lease_seconds`: what was
    received, and not settled, given back or extended for so long, comes again to anybody; None: the transport keeps it
    as long as it is open, and nobody need extend it. `max_delay`: seconds that `give_back` can keep a message away at
    most; 0: it comes again at once. `dedup_seconds`: of one event (one source and id) sent twice within them one comes;
    0: both may. `ascii`: an envelope is encoded in ASCII, which is larger where it holds other characters. `fan_out`:
    what is sent once can come to several queues. `receives`: False if this one only sends.
    """

    ordered_by_key: bool
    max_bytes: int
    max_batch: int
    lease_seconds: float | None = None
    max_delay: float = 0.0
    dedup_seconds: float = 0.0
    ascii: bool = False
    fan_out: bool = False
    receives: bool = True


class Delivery(Struct, frozen=True):
    """One message as it came: its bytes, its headers, and the broker's receipt to settle it by.

    A receipt is of one receiving: of a message that was received again only the last receipt settles. The headers
    `traceparent` and `tracestate` are the broker's own trace, read where the envelope has none. `broken` says why the
    bytes are not those that were sent, if the transport knows that: they are a dead letter of landing then.
    """

    receipt: str
    body: bytes
    headers: dict[str, str] = {}
    broken: str | None = None


class Refusal(Struct, frozen=True):
    """Why a broker did not take one envelope. `retryable` tells whether the same may be taken later."""

    event_id: str
    reason: str
    retryable: bool


FOLLOWS = "It follows a refused event of its key."
"""Why an envelope is refused after another one of its key."""


class Receiver(Protocol):
    """Where messages come from. Every method raises TransportError when the broker cannot be reached."""

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages and return some. Cancelled, it has received nothing."""

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these, and only these: they need not come again. What has come to somebody else stays theirs."""

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Let these come again, not before `delay` seconds (or `max_delay`, if that is less) have passed.

        What was settled, or has come to somebody else, is left alone.
        """

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Keep these for another `lease_seconds` from now. What has come to somebody else stays theirs."""


class Transport(Receiver, Protocol):
    """Carries envelopes between services. Both ways are at least once; the log makes that effects once."""

    capabilities: Capabilities

    @property
    def dead(self) -> Receiver | None:
        """What the broker itself has given up (its dead-letter queue), where that is to be drained, else None.

        Of these messages the header `reason` says why, and `message` is the broker's name of one sending: the same
        whenever it comes.
        """

    async def open(self) -> None:
        """Connect. Raises TransportError while the broker is away: it is tried again, and the service starts meanwhile.

        What no further try mends is a TransportError that is not `retryable`, or a ServiceError: the service ends.
        """

    async def close(self) -> None:
        """Disconnect. What was received and not settled comes again, soon where the broker allows. Twice is once."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        """Send in this order, at most `max_batch`; return what was refused, the rest was taken for good.

        After an error some may have been taken: the same are sent again. Where order by key is claimed, nothing is
        taken that follows a refused one of its source and key: it is refused too, as retryable. `again`: they may have
        been taken before and shall come once more, also where one event sent twice comes once.
        """


class Topology(Protocol):
    """What has to be there before a transport can be opened: queues, topics, rights. Both raise TransportError."""

    async def check(self) -> list[str]:
        """Return what is missing or different, a line each."""

    async def apply(self) -> list[str]:
        """Make what is missing and change what is different; return a line for each."""
