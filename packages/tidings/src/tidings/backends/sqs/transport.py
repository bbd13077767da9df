"""Transport over SQS queues and SNS topics: an event is a message whose body is its CloudEvents JSON."""

from collections.abc import Sequence

from tidings.backends.sqs.address import FIFO, Address, read_url
from tidings.backends.sqs.calls import Calls
from tidings.backends.sqs.message import message_of
from tidings.backends.sqs.receiving import MAX_DELAY, Receiving
from tidings.backends.sqs.sending import ATTRIBUTE_BYTES, QUEUE_BYTES, TOPIC_BYTES, Place, Sending
from tidings.events import Envelope
from tidings.transport import Capabilities, Delivery, Refusal
from tidings.world import World

MAX_BATCH = 200
"""Events that are sent at a time: twenty calls."""

DEDUP_SECONDS = 300.0
"""So long FIFO queues and topics know a message that is sent again."""


def open_transport(url: str, world: World) -> "SQSTransport":
    """Return the transport of an `sqs://` or `sns://` URL; raises ServiceError. Its options: `address.Address`."""
    return SQSTransport(read_url(url), world)


class SQSTransport:
    """Implements tidings.transport.Transport: sends to queues or topics, receives from queues."""

    def __init__(self, address: Address, world: World) -> None:
        sent_to = address.queues or address.topics
        self.capabilities = Capabilities(
            ordered_by_key=address.ordered,
            max_bytes=(TOPIC_BYTES if address.topics else QUEUE_BYTES) - ATTRIBUTE_BYTES,
            max_batch=MAX_BATCH,
            lease_seconds=float(address.lease),
            max_delay=float(MAX_DELAY),
            dedup_seconds=DEDUP_SECONDS if sent_to and all(name.endswith(FIFO) for name in sent_to) else 0.0,
            ascii=True,
            fan_out=True,
            receives=bool(address.inward),
        )
        self._address = address
        self._world = world
        self._calls = Calls(address)
        self._places: list[Sending] = []
        self._in = Receiving(self._calls, address.inward, address.lease, address.wait)
        self.dead = Receiving(self._calls, address.dead, address.lease, address.wait) if address.dead else None

    async def open(self) -> None:
        """Connect, and find the queues and topics; raises TransportError, and ServiceError for one that is missing."""
        await self._calls.open()
        try:
            await self._find()
        except BaseException:
            await self._calls.close()
            raise

    async def _find(self) -> None:
        found = [Place(name, await self._calls.queue_url(name), False) for name in self._address.queues]
        found += [Place(name, await self._calls.topic_arn(name), True) for name in self._address.topics]
        self._places = [Sending(self._calls, place) for place in found]
        for receiving in (self._in, self.dead):
            if receiving is not None:
                await receiving.open()

    async def close(self) -> None:
        """Let what was not settled come again, and disconnect."""
        for receiving in (self._in, self.dead):
            if receiving is not None:
                await receiving.close()
        await self._calls.close()

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        """Send in calls of ten, many at once; what is sent `again` is new to a FIFO queue."""
        refused: dict[str, Refusal] = {}
        word = self._world.fresh_id() if again else ""
        messages = [message_of(envelope, word) for envelope in envelopes]
        for place in self._places:
            refused |= await place.send(messages, self.capabilities.max_bytes)
        if not self._places:
            reason = "The transport's URL names nothing to send to: write sqs://QUEUE?… or sns://TOPIC?…."
            return [Refusal(envelope.id, reason, False) for envelope in envelopes]
        return list(refused.values())

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages; raises TransportError."""
        return await self._in.receive(limit)

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Delete messages."""
        await self._in.settle(deliveries)

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Let messages be seen again, after a delay in whole seconds."""
        await self._in.give_back(deliveries, delay)

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Begin leases anew."""
        await self._in.extend(deliveries)
