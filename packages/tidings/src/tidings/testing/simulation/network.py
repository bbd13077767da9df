"""A simulated broker: messages come late, twice, out of order; it fails, refuses, and forgets who had what."""

import asyncio
from collections.abc import Sequence
from contextvars import Context
from random import Random

from msgspec import Struct

from tidings.errors import TransportError
from tidings.events import Envelope
from tidings.testing.simulation.loop import SimulatedLoop
from tidings.transport import Capabilities, Delivery, Refusal

OUT_OF_SIGHT = 8.0
"""Virtual seconds after which a message that was received and not settled is seen again."""


class Message(Struct):
    """One message on the broker and when it can be seen."""

    receipt: str
    body: bytes
    visible: float
    copies_left: int
    received: int = 0


class Network:
    """Both directions of the broker. `sent` is what it took, in order."""

    def __init__(self, loop: SimulatedLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self.waiting: dict[str, Message] = {}
        self.sent: list[Envelope] = []
        self.failing = 0.0
        self._arrivals: list[asyncio.Event] = []
        self._count = 0

    def put(self, body: bytes, *, late: float, copies: int) -> None:
        """Let a message arrive, `late` virtual seconds from now, and again so many times."""
        self._count += 1
        receipt = f"m{self._count}"
        self.waiting[receipt] = Message(receipt, body, self.loop.time() + late, copies)
        self.look_at(self.loop.time() + late)

    def look_at(self, when: float) -> None:
        """Wake every receiver at a time."""
        self.loop.call_at(when + 1e-6, self._wake, context=Context())

    def _wake(self) -> None:
        for arrival in tuple(self._arrivals):
            arrival.set()

    def visible(self) -> list[Message]:
        """Return what can be received now."""
        now = self.loop.time()
        return [message for message in self.waiting.values() if message.visible <= now]

    def of(self, receipt: str) -> Message | None:
        """Return the message of a receipt, if nobody has received it since."""
        number, _, received = receipt.partition(".")
        message = self.waiting.get(number)
        return message if message is not None and message.received == int(received) else None

    def settled(self, receipt: str) -> None:
        """Take a message away, or, if it is to come twice, show it again later."""
        message = self.of(receipt)
        if message is None:
            return
        if message.copies_left:
            message.copies_left -= 1
            self.show(message, self.random.random() * 3)
        else:
            del self.waiting[message.receipt]

    def show(self, message: Message, after: float) -> None:
        """Let a message be seen so many virtual seconds from now."""
        message.visible = self.loop.time() + after
        self.look_at(message.visible)


class SimulatedTransport:
    """Implements tidings.transport.Transport for one process."""

    capabilities = Capabilities(ordered_by_key=False, max_bytes=1_048_576, max_batch=7, lease_seconds=OUT_OF_SIGHT)
    dead = None

    def __init__(self, network: Network) -> None:
        self._network = network
        self._arrival = asyncio.Event()

    async def open(self) -> None:
        """Listen."""
        self._network._arrivals.append(self._arrival)

    async def close(self) -> None:
        """Listen no more."""
        self._network._arrivals.remove(self._arrival)

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        """Take envelopes, refuse some, or fail before or after having taken them."""
        network = self._network
        await asyncio.sleep(network.random.random() * 0.01)
        if network.random.random() < network.failing / 2:
            raise TransportError("The broker could not be reached.")
        refused = []
        closed: set[str] = set()
        for envelope in envelopes:
            if envelope.key in closed or network.random.random() < network.failing:
                refused.append(Refusal(envelope.id, "Too many requests.", True))
                closed.update([envelope.key] if envelope.key is not None else ())
            else:
                network.sent.append(envelope)
        if network.random.random() < network.failing / 2:
            raise TransportError("The broker did not answer.")
        await asyncio.sleep(network.random.random() * 0.01)
        return refused

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages; they come in any order."""
        network = self._network
        while not (visible := network.visible()):
            self._arrival.clear()
            await self._arrival.wait()
        network.random.shuffle(visible)
        taken = visible[: 1 + int(network.random.random() * min(limit, 5))]
        for message in taken:
            message.received += 1
            network.show(message, OUT_OF_SIGHT)
        return [Delivery(f"{message.receipt}.{message.received}", message.body) for message in taken]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge, or fail before or after that."""
        network = self._network
        await asyncio.sleep(network.random.random() * 0.01)
        if network.random.random() < network.failing / 2:
            raise TransportError("The broker could not be reached.")
        for delivery in deliveries:
            network.settled(delivery.receipt)
        if network.random.random() < network.failing / 2:
            raise TransportError("The broker did not answer.")

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Show these again after a delay."""
        await self._show(deliveries, delay)

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Begin the leases anew."""
        await self._show(deliveries, OUT_OF_SIGHT)

    async def _show(self, deliveries: Sequence[Delivery], after: float) -> None:
        await asyncio.sleep(self._network.random.random() * 0.01)
        for delivery in deliveries:
            if (message := self._network.of(delivery.receipt)) is not None:
                self._network.show(message, after)
