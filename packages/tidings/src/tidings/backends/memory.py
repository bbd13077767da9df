"""A transport inside the process, for tests: named queues, at least once, with redelivery of what was not settled."""

import asyncio
from collections import deque
from collections.abc import Sequence

from tidings.events import Envelope, envelope_to_json
from tidings.transport import Capabilities, Delivery, Refusal
from tidings.world import World

_queues: dict[str, "_Queue"] = {}


class _Queue:
    def __init__(self) -> None:
        self.waiting: deque[tuple[str, bytes]] = deque()
        self.arrived = asyncio.Event()
        self.sent = 0


def open_transport(url: str, world: World) -> "MemoryTransport":
    """Return the transport of `memory://out`, `memory://out?in=name`; equal names in one process are one queue."""
    name, _, query = url.partition("://")[2].partition("?")
    return MemoryTransport(name, query.removeprefix("in=") or name)


class MemoryTransport:
    """Implements tidings.transport.Transport; sends to one queue and receives from one, which may be the same."""

    capabilities = Capabilities(ordered_by_key=True, max_bytes=1_048_576, max_batch=100)

    def __init__(self, out: str, inward: str) -> None:
        self._out = _queues.setdefault(out, _Queue())
        self._in = _queues.setdefault(inward, _Queue())
        self._unsettled: dict[str, tuple[str, bytes]] = {}

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Put back what was not settled, in front and in its order."""
        for message in reversed(self._unsettled.values()):
            self._in.waiting.appendleft(message)
        self._unsettled.clear()

    async def send(self, envelopes: Sequence[Envelope]) -> list[Refusal]:
        """Put envelopes into the queue."""
        refused = []
        for envelope in envelopes:
            body = envelope_to_json(envelope)
            if len(body) > self.capabilities.max_bytes:
                refused.append(Refusal(envelope.id, f"{len(body)} bytes are more than the queue takes", False))
                continue
            self._out.sent += 1
            self._out.waiting.append((f"{envelope.id}#{self._out.sent}", body))
        self._out.arrived.set()
        return refused

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages; what is received is out of sight until settled or closed."""
        while not self._in.waiting:
            self._in.arrived.clear()
            await self._in.arrived.wait()
        taken = [self._in.waiting.popleft() for _ in range(min(limit, len(self._in.waiting)))]
        self._unsettled.update((receipt, (receipt, body)) for receipt, body in taken)
        return [Delivery(receipt, body) for receipt, body in taken]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Forget settled messages."""
        for delivery in deliveries:
            self._unsettled.pop(delivery.receipt, None)


def queue(name: str) -> deque[tuple[str, bytes]]:
    """Return the waiting messages of a queue, for tests that put in what no sender would."""
    found = _queues.setdefault(name, _Queue())
    found.arrived.set()
    return found.waiting
