"""Transport over BullMQ queues: an event is a job of the event's id, its data the CloudEvents JSON."""

import asyncio
import contextlib
import logging
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from tidings.backends.bullmq.address import Address, read_url
from tidings.backends.bullmq.durability import check_durability
from tidings.backends.bullmq.link import Link, command
from tidings.backends.bullmq.queue import Job, Queue, refused_id
from tidings.backends.bullmq.scripts import load_scripts
from tidings.errors import TransportError
from tidings.events import MAX_ENVELOPE_BYTES, Envelope, envelope_to_json
from tidings.transport import Capabilities, Delivery, Refusal
from tidings.world import World

log = logging.getLogger("tidings")

BATCH = 100
"""Jobs that one piece of commands adds, takes or completes at most."""

BLOCK_SECONDS = 5
"""So long Redis holds a question for work open before it says that there is none, as Node's workers have it."""

GIVEN_UP_LOCKS = 10
"""After so many lock times an unsettled delivery is not renewed any more: whoever had it has given it up."""


class _Out(Struct):
    """The last delivery of a job, not settled: its receipt, and until when the lock is renewed."""

    job: Job
    receipt: str
    until_ms: int


def open_transport(url: str, world: World) -> "BullMQTransport":
    """Return the transport of a `bullmq://` URL; raises ServiceError. See `address.Address` for its options."""
    return BullMQTransport(read_url(url), world)


class BullMQTransport:
    """Implements tidings.transport.Transport on two BullMQ queues: one sent to, one received from.

    Jobs that are received stay locked, and the locks are renewed, until they are settled or given back. Attempts are
    not BullMQ's business: a job is complete once its event is in the log.
    """

    capabilities = Capabilities(ordered_by_key=False, max_bytes=MAX_ENVELOPE_BYTES, max_batch=BATCH)

    def __init__(self, address: Address, world: World) -> None:
        scripts = load_scripts()
        texts = list(scripts.values())
        token = world.fresh_id()
        lock_ms = int(address.lock * 1000)
        self._address = address
        self._world = world
        self._out, self._in = (
            Queue(scripts, address.prefix, name, token, lock_ms, address.keep) if name else None
            for name in (address.queue, address.inward)
        )
        # By this name Node's Queue.getWorkers() finds who listens.
        listening = f"{address.prefix}:{b64encode((address.inward or '').encode()).decode()}"
        self._sending = Link(address, texts)
        self._receiving = Link(address, texts)
        self._waiting = Link(address, [], listening)
        self._ahead: deque[Job] = deque()
        self._unsettled: dict[str, _Out] = {}
        self._received = 0
        self._ask_at = 0.0
        self._taking: asyncio.Future[None] | None = None
        self._marker: asyncio.Task[list[Any]] | None = None
        self._upkeep: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect, and look at how durable Redis is; raises TransportError and ServiceError."""
        await check_durability(self._sending, self._address)
        if self._in is not None:
            await self._waiting.run([command("PING")])  # from now on Node sees a worker
            self._upkeep = [
                asyncio.create_task(self._every(self._address.lock / 2, self._extend)),
                asyncio.create_task(self._every(self._address.stalled, self._recover)),
            ]

    async def close(self) -> None:
        """Put what was received and not settled in front of the queue, and disconnect."""
        tasks = [task for task in (*self._upkeep, self._marker) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._upkeep, self._marker = [], None
        with contextlib.suppress(TransportError):  # then their locks end, and they come again
            if self._taking is not None:
                await self._taking
            await self._give_back()
        for link in (self._sending, self._receiving, self._waiting):
            await link.close()

    async def send(self, envelopes: Sequence[Envelope]) -> list[Refusal]:
        """Add events as jobs, in one piece; an event whose job is there already is not added again."""
        refused: list[Refusal] = []
        commands: list[bytes] = []
        for envelope in envelopes:
            body = envelope_to_json(envelope)
            reason = self._refusal(envelope, body)
            if reason is not None:
                refused.append(Refusal(envelope.id, reason, False))
            elif self._out is not None:
                commands.append(self._out.add(envelope, body, self._now(), self._address.attempts))
        if commands:
            await self._sending.run(commands)
        return refused

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for jobs and return some, locked; raises TransportError."""
        while True:
            missing = min(limit, BATCH) - len(self._ahead)
            if missing > 0:
                # Shielded: a job that was taken for a caller who has gone is given back, not left to stall.
                self._taking = asyncio.ensure_future(self._take(missing))
                await asyncio.shield(self._taking)
            if self._ahead:
                return [self._deliver(self._ahead.popleft()) for _ in range(min(limit, len(self._ahead)))]
            await self._wait()

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Complete jobs, and take as many next ones in the same steps. What is no longer ours is left alone."""
        jobs = [job for delivery in deliveries if (job := self._let_go(delivery.receipt)) is not None]
        if not jobs or self._in is None:
            return
        now = self._now()
        room = BATCH - len(self._ahead)
        commands = [self._in.complete(job, now, fetch=number < room) for number, job in enumerate(jobs)]
        for job, reply in zip(jobs, await self._receiving.run(commands), strict=True):
            if isinstance(reply, int) and reply < 0:
                log.info("Job %s was not completed (%d): its lock had ended. It comes again.", job.id, reply)
            self._note(reply, now)

    def _refusal(self, envelope: Envelope, body: bytes) -> str | None:
        if self._out is None:
            return "The transport's URL names no queue to send to: add queue=NAME."
        if len(body) > self.capabilities.max_bytes:
            return (
                f"The envelope has {len(body)} bytes, more than the {self.capabilities.max_bytes} that landing reads."
            )
        return refused_id(envelope.id)

    async def _take(self, wanted: int) -> None:
        """Take jobs that are there now, and put them at the end of those taken ahead."""
        if self._in is None:
            return
        now = self._now()
        first, *lengths = await self._receiving.run([self._in.take(now), *self._in.lengths()])
        more = min(sum(lengths), wanted - 1) if self._note(first, now) else 0
        if more > 0:
            for reply in await self._receiving.run([self._in.take(now)] * more):
                self._note(reply, now)

    def _note(self, reply: Any, now: int) -> bool:
        """Keep the job that a script handed out; says whether there was one."""
        if self._in is None:
            return False
        taken = self._in.taken(reply, now)
        if taken.job is None:
            self._ask_at = taken.ask_at
            return False
        self._ahead.append(taken.job)
        return True

    async def _wait(self) -> None:
        """Wait until there may be a job: Redis says so by the queue's marker, or the next delayed one is due.

        The timer is ours: Redis ends a blocking wait up to 100 ms late. The question to Redis stays open meanwhile.
        """
        if self._in is None:
            await asyncio.Event().wait()  # nothing is received here, until cancelled
            return
        if self._marker is None:
            question = command("BZPOPMIN", self._in.marker, BLOCK_SECONDS)
            self._marker = asyncio.create_task(self._waiting.run([question], BLOCK_SECONDS + 10))
        now = self._world.now() / 1000
        timeout = max(self._ask_at - now, 0.5) / 1000 if self._ask_at else None
        await asyncio.wait({self._marker}, timeout=timeout)
        if self._marker.done():
            answered, self._marker = self._marker, None
            answered.result()

    def _deliver(self, job: Job) -> Delivery:
        self._received += 1
        receipt = f"{self._received}#{job.id}"
        until = self._now() + int(self._address.lock * GIVEN_UP_LOCKS * 1000)
        # Of a job that is received twice only the later delivery settles: the earlier one had lost its lock.
        self._unsettled[job.id] = _Out(job, receipt, until)
        return Delivery(receipt, job.body, job.headers)

    def _let_go(self, receipt: str) -> Job | None:
        """Return the job of a delivery, which then is not ours to renew any more; None if it is not the last one."""
        job_id = receipt.partition("#")[2]
        out = self._unsettled.get(job_id)
        if out is None or out.receipt != receipt:
            return None
        del self._unsettled[job_id]
        return out.job

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await act()
            except TransportError as error:
                log.info("Looking after locks: %s", error)  # receiving warns; the next turn tries again
            await asyncio.sleep(seconds)

    async def _extend(self) -> None:
        """Renew the locks of what is taken; forget what has been given up, or is somebody else's by now."""
        now = self._now()
        self._unsettled = {key: out for key, out in self._unsettled.items() if out.until_ms >= now}
        jobs = [*self._ahead, *(out.job for out in self._unsettled.values())]
        if not jobs or self._in is None:
            return
        (lost,) = await self._receiving.run([self._in.extend(jobs)])
        gone = {job_id.decode() for job_id in lost}
        self._ahead = deque(job for job in self._ahead if job.id not in gone)
        self._unsettled = {key: out for key, out in self._unsettled.items() if key not in gone}

    async def _recover(self) -> None:
        """Look for jobs whose worker died, ours or another's, and put them back into the queue."""
        if self._in is None:
            return
        (stalled,) = await self._receiving.run([self._in.recover(self._now(), int(self._address.stalled * 1000))])
        if stalled:
            log.warning("%d jobs of %s had lost their worker, and are taken again.", len(stalled), self._address.inward)

    async def _give_back(self) -> None:
        jobs = [*(out.job for out in self._unsettled.values()), *self._ahead]
        self._unsettled.clear()
        self._ahead.clear()
        if jobs and self._in is not None:
            # The last first: each goes to the front, and their order stays.
            await self._receiving.run([self._in.give_back(job) for job in reversed(jobs)])

    def _now(self) -> int:
        return self._world.now() // 1000
