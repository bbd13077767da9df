"""A transport inside the process, for tests: named queues, at least once, in order by key, with leases and delays."""

import asyncio
from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from tidings.errors import ServiceError
from tidings.events import Envelope, envelope_to_json
from tidings.transport import FOLLOWS, Capabilities, Delivery, Refusal
from tidings.world import World

LEASE_SECONDS = 30.0

MAX_BYTES, MAX_BATCH, MAX_DELAY = 1_048_576, 100, 900.0

Group = tuple[str, str]
"""Source and key: what order is kept by."""


class _Message(Struct):
    """One message of a queue, out of sight until `hidden_until` (loop time); `receipt` is its last receiving's."""

    number: int
    body: bytes
    headers: dict[str, str]
    group: Group | None
    hidden_until: float = 0.0
    receipt: str = ""
    received: int = 0


class _Queue:
    def __init__(self) -> None:
        self.messages: dict[int, _Message] = {}
        self.waiting: set[asyncio.Event] = set()
        self.known: dict[tuple[str, str], float] = {}
        self.dead: _Queue | None = None
        self.receives = 0
        self._numbers = 0
        self._receipts = 0

    def put(self, body: bytes, headers: dict[str, str], group: Group | None) -> None:
        self._numbers += 1
        self.messages[self._numbers] = _Message(self._numbers, body, headers, group)
        self.wake()

    def wake(self) -> None:
        for waiting in self.waiting:
            waiting.set()

    def repeats(self, envelope: Envelope, now: float, seconds: float) -> bool:
        """Say whether an event was sent within the last so many seconds, and note it."""
        if not seconds:
            return False
        self.known = {event: until for event, until in self.known.items() if until > now}
        known = (envelope.source, envelope.id) in self.known
        self.known.setdefault((envelope.source, envelope.id), now + seconds)
        return known

    def take(self, limit: int, now: float, lease: float) -> list[_Message]:
        """Take what can be seen and what nothing before it of its key keeps back."""
        self._give_up(now)
        taken: list[_Message] = []
        kept_back: set[Group] = set()
        for message in self.messages.values():
            if message.hidden_until > now or message.group in kept_back:
                if message.group is not None:
                    kept_back.add(message.group)
                continue
            self._receipts += 1
            message.receipt = f"{message.number}.{self._receipts}"
            message.hidden_until = now + lease
            message.received += 1
            taken.append(message)
            if len(taken) == limit:
                break
        return taken

    def _give_up(self, now: float) -> None:
        """Move what was received as often as it may be to the dead-letter queue."""
        if self.dead is None:
            return
        for message in list(self.messages.values()):
            if message.received >= self.receives and message.hidden_until <= now:
                del self.messages[message.number]
                said = {
                    "reason": f"It was received {message.received} times.",
                    "message": f"{id(self)}.{message.number}",
                }
                self.dead.put(message.body, {**message.headers, **said}, message.group)

    def next_look(self, now: float) -> float | None:
        """Return the time from which more can be seen, if nothing happens before."""
        return min((one.hidden_until for one in self.messages.values() if one.hidden_until > now), default=None)

    def of(self, receipt: str) -> _Message | None:
        """Return the message that is in a receipt's hands."""
        message = self.messages.get(int(receipt.partition(".")[0]))
        return message if message is not None and message.receipt == receipt else None


_queues: dict[str, _Queue] = {}


def put(name: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Let any bytes arrive in a queue: for tests, which put in what no sender would."""
    _queue(name).put(body, headers or {}, _group_of(body))


def open_transport(url: str, world: World) -> "MemoryTransport":
    """Return the transport of `memory://out`, `memory://out?in=name`; equal names in one process are one queue.

    `memory://one,two` sends to both. Options in seconds: `lease` (30), `dedup` (0). `dead` names the queue to which
    those sent to give up what was received `receives` (3) times and not settled. Raises ServiceError.
    """
    names, _, query = url.partition("://")[2].partition("?")
    options = dict(parse_qsl(query))
    inward, dead = options.pop("in", names), options.pop("dead", "")
    try:
        lease, dedup = float(options.pop("lease", LEASE_SECONDS)), float(options.pop("dedup", 0))
        receives = int(options.pop("receives", 3))
    except ValueError:
        raise ServiceError(f"{url!r}: lease and dedup are seconds, receives a number, such as lease=30.") from None
    if options:
        raise ServiceError(f"{url!r}: {', '.join(options)} is not known here: use in, lease, dedup, dead or receives.")
    if dead:
        for name in names.split(","):
            _queue(name).dead, _queue(name).receives = _queue(dead), receives
    return MemoryTransport(names.split(","), inward, lease, dedup, dead)


class MemoryReceiver:
    """Implements tidings.transport.Receiver on one queue."""

    def __init__(self, name: str, lease: float) -> None:
        self._in = _queue(name)
        self._lease = lease
        self._unsettled: set[str] = set()

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages; what is received is out of sight until its lease ends."""
        arrived = asyncio.Event()
        self._in.waiting.add(arrived)
        try:
            while not (taken := self._in.take(limit, asyncio.get_running_loop().time(), self._lease)):
                await self._look_again(arrived)
        finally:
            self._in.waiting.discard(arrived)
        self._unsettled.update(message.receipt for message in taken)
        return [Delivery(message.receipt, message.body, message.headers) for message in taken]

    async def _look_again(self, arrived: asyncio.Event) -> None:
        """Return when something has arrived, or may be seen again."""
        arrived.clear()
        try:
            async with asyncio.timeout_at(self._in.next_look(asyncio.get_running_loop().time())):
                await arrived.wait()
        except TimeoutError:
            pass

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Forget messages, unless somebody else has received them since."""
        for delivery in deliveries:
            self._unsettled.discard(delivery.receipt)
            if (message := self._in.of(delivery.receipt)) is not None:
                del self._in.messages[message.number]
        self._in.wake()  # what they have kept back

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Let messages be seen again after a delay."""
        receipts = {delivery.receipt for delivery in deliveries}
        self._hide(receipts, asyncio.get_running_loop().time() + min(delay, MAX_DELAY))
        self._unsettled -= receipts

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Begin the leases anew."""
        until = asyncio.get_running_loop().time() + self._lease
        for delivery in deliveries:
            if (message := self._in.of(delivery.receipt)) is not None:
                message.hidden_until = until

    def release(self) -> None:
        """Let what was not settled be seen again at once."""
        self._hide(self._unsettled, 0.0)
        self._unsettled.clear()

    def _hide(self, receipts: set[str], until: float) -> None:
        for receipt in receipts:
            if (message := self._in.of(receipt)) is not None:
                message.receipt, message.hidden_until = "", until
        self._in.wake()


class MemoryTransport(MemoryReceiver):
    """Implements tidings.transport.Transport; sends to some queues and receives from one, which may be among them."""

    def __init__(self, out: Sequence[str], inward: str, lease: float, dedup: float, dead: str = "") -> None:
        super().__init__(inward, lease)
        self.dead = MemoryReceiver(dead, lease) if dead else None
        self.capabilities = Capabilities(
            ordered_by_key=True, max_bytes=MAX_BYTES, max_batch=MAX_BATCH, lease_seconds=lease, max_delay=MAX_DELAY,
            dedup_seconds=dedup, fan_out=True,
        )  # fmt: skip
        self._out = [_queue(name) for name in out]

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Let what was not settled be seen again at once."""
        for receiver in (self, self.dead):
            if receiver is not None:
                receiver.release()

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        """Put envelopes into the queues."""
        refused: list[Refusal] = []
        closed: set[Group | None] = set()
        now = asyncio.get_running_loop().time()
        for envelope in envelopes:
            body = envelope_to_json(envelope)
            group = None if envelope.key is None else (envelope.source, envelope.key)
            if group is not None and group in closed:
                refused.append(Refusal(envelope.id, FOLLOWS, True))
            elif len(body) > MAX_BYTES:
                refused.append(Refusal(envelope.id, f"{len(body)} bytes are more than the {MAX_BYTES} it takes", False))
                closed.add(group)
            else:
                self._put(envelope, body, group, now, again)
        return refused

    def _put(self, envelope: Envelope, body: bytes, group: Group | None, now: float, again: bool) -> None:
        for queue in self._out:
            if not queue.repeats(envelope, now, self.capabilities.dedup_seconds) or again:
                queue.put(body, {}, group)


class _Keyed(Struct):
    """What of an encoded envelope order is kept by."""

    source: str
    partitionkey: str


def _group_of(body: bytes) -> Group | None:
    try:
        keyed = msgspec.json.decode(body, type=_Keyed)
    except msgspec.MsgspecError:
        return None
    return keyed.source, keyed.partitionkey


def _queue(name: str) -> _Queue:
    return _queues.setdefault(name, _Queue())
