"""Transport over BullMQ queues: an event is a job of the event's id, its data the CloudEvents JSON."""

import asyncio
import contextlib
import logging
import math
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from tidings.backends.bullmq.address import Address, read_url
from tidings.backends.bullmq.durability import check_durability
from tidings.backends.bullmq.link import Link, command
from tidings.backends.bullmq.queue import Job, Queue, refused_id, second_id
from tidings.backends.bullmq.scripts import load_scripts
from tidings.errors import TransportError
from tidings.events import MAX_ENVELOPE_BYTES, Envelope, envelope_to_json
from tidings.transport import Capabilities, Delivery, Refusal
from tidings.world import World

log = logging.getLogger("tidings")

BATCH = 100
"""Jobs that one piece of commands takes or completes at most, and that are taken ahead."""

MAX_BATCH = 300
"""Events that are sent at a time. Of 100 the relay's own commit takes more of the time (0.57 of a plain loop, against
0.84 of 300 and 0.82 of 1000); more are more memory where events are large."""

PIECE_BYTES = 4_000_000
"""Bytes after which what is sent goes out in another piece, with a time to answer of its own."""

BLOCK_SECONDS = 5
"""So long Redis holds a question for work open before it says that there is none, as Node's workers have it."""

MAX_DELAY = 30 * 86_400.0
"""Seconds that a job can be given back for."""


BUSY = "A worker has the job of an earlier sending right now; it is sent again when that has ended."
"""Why an event is not sent once more."""


class _Out(Struct):
    """The last delivery of a job, not settled, and its receipt."""

    job: Job
    receipt: str


def open_transport(url: str, world: World) -> "BullMQTransport":
    """Return the transport of a `bullmq://` URL; raises ServiceError. See `address.Address` for its options."""
    return BullMQTransport(read_url(url), world)


class BullMQTransport:
    """Implements tidings.transport.Transport on two BullMQ queues: one sent to, one received from.

    Attempts are not BullMQ's business: a job is complete once its event is in the log.
    """

    def __init__(self, address: Address, world: World) -> None:
        scripts = load_scripts()
        texts = list(scripts.values())
        token = world.fresh_id()
        # What is taken ahead is renewed every half lease: half a lease more, and who receives it has a whole one left.
        lock_ms = int(address.lock * 1500)
        self.capabilities = Capabilities(
            # BullMQ is first in, first out for one receiver; with several, or after a crash, it is not.
            ordered_by_key=False,
            max_bytes=MAX_ENVELOPE_BYTES,
            max_batch=MAX_BATCH,
            lease_seconds=address.lock,
            max_delay=MAX_DELAY,
            receives=address.inward is not None,
        )
        self.dead = None  # what a Node worker has failed stays among the failed jobs
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
                asyncio.create_task(self._every(self._address.lock / 2, self._extend_ahead)),
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
            while self._ahead:
                self._deliver(self._ahead.popleft())
            held = [Delivery(out.receipt, b"") for out in self._unsettled.values()]
            await self.give_back(held)
        for link in (self._sending, self._receiving, self._waiting):
            await link.close()

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        """Add events as jobs, many in one piece; an event whose job is there already is not added again.

        Sent `again`, what is there of an earlier sending makes room, completed or failed; one that a worker has right
        now is refused until that has ended.
        """
        refused: list[Refusal] = []
        jobs: list[tuple[Envelope, bytes]] = []
        for envelope in envelopes:
            body = envelope_to_json(envelope)
            reason = self._refusal(envelope, body)
            if reason is None:
                jobs.append((envelope, body))
            else:
                refused.append(Refusal(envelope.id, reason, False))
        if again:
            busy = await self._make_room([envelope for envelope, _ in jobs])
            refused += [Refusal(event_id, BUSY, True) for event_id in sorted(busy)]
            jobs = [job for job in jobs if job[0].id not in busy]
        if jobs:
            # An id is its source's: of another service's event under it, BullMQ would say that it is there already.
            others = await self._add(jobs, [envelope.id for envelope, _ in jobs])
            await self._add(others, [second_id(envelope) for envelope, _ in others])
        return refused

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for jobs and return some, locked; raises TransportError."""
        while True:
            missing = min(limit, BATCH) - len(self._ahead)
            if missing > 0:
                # Shielded: a job that was taken for a caller who has gone is given back, not left to stall.
                self._taking = asyncio.ensure_future(self._take(missing))
                self._taking.add_done_callback(_heeded)
                await asyncio.shield(self._taking)
            if self._ahead:
                return [self._deliver(self._ahead.popleft()) for _ in range(min(limit, len(self._ahead)))]
            await self._wait()

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Complete jobs, and take as many next ones in the same steps. What is no longer ours is left alone."""
        jobs = self._let_go(deliveries)
        if not jobs or self._in is None:
            return
        now = self._now()
        room = BATCH - len(self._ahead)
        commands = [self._in.complete(job, now, fetch=number < room) for number, job in enumerate(jobs)]
        for job, reply in zip(jobs, await self._receiving.run(commands), strict=True):
            if isinstance(reply, int) and reply < 0:
                log.info("Job %s was not completed (%d): its lock had ended. It comes again.", job.id, reply)
            self._note(reply, now)

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Let these come again: at once in front of the queue, or when `delay` seconds have passed."""
        jobs = self._let_go(deliveries)
        if not jobs or self._in is None:
            return
        if delay > 0:
            now = self._now() + 1  # of a millisecond that has begun: never early
            delay_ms = math.ceil(min(delay, MAX_DELAY) * 1000)
            commands = [self._in.delay(job, now, delay_ms) for job in jobs]
        else:
            # The last first: each goes to the front, and their order stays.
            commands = [self._in.give_back(job) for job in reversed(jobs)]
        await self._receiving.run(commands)

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Renew the locks of these, as far as they are still ours."""
        jobs = [job for delivery in deliveries if (job := self._job_of(delivery)) is not None]
        if jobs and self._in is not None:
            await self._receiving.run([self._in.extend(jobs)])

    async def _add(self, jobs: Sequence[tuple[Envelope, bytes]], ids: Sequence[str]) -> list[tuple[Envelope, bytes]]:
        """Add jobs under these ids; return those whose id a job of another source has."""
        if not jobs or self._out is None:
            return []
        commands: list[bytes] = []
        replies: list[Any] = []
        waiting = 0
        for (envelope, body), job_id in zip(jobs, ids, strict=True):
            commands.append(self._out.add(envelope, job_id, body, self._now(), self._address.attempts))
            commands.append(self._out.options_of(job_id))
            waiting += len(body)
            if waiting > PIECE_BYTES:
                replies += await self._sending.run(commands)
                commands, waiting = [], 0
        replies += await self._sending.run(commands)
        return [
            job for job, options in zip(jobs, replies[1::2], strict=True) if not self._out.is_of(options, job[0].source)
        ]

    async def _make_room(self, envelopes: Sequence[Envelope]) -> set[str]:
        """Remove the jobs of events that are sent again; return the ids of events whose job a worker has."""
        if not envelopes or self._out is None:
            return set()
        options = await self._sending.run([self._out.options_of(envelope.id) for envelope in envelopes])
        own = [self._out.is_of(found, each.source) for found, each in zip(options, envelopes, strict=True)]
        ids = [each.id if is_own else second_id(each) for each, is_own in zip(envelopes, own, strict=True)]
        removed = await self._sending.run([self._out.remove(job_id) for job_id in ids])
        return {each.id for each, reply in zip(envelopes, removed, strict=True) if not reply}

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
        # Of a job that is received twice only the later delivery settles: the earlier one had lost its lock.
        self._unsettled[job.id] = _Out(job, receipt)
        return Delivery(receipt, job.body, job.headers)

    def _job_of(self, delivery: Delivery) -> Job | None:
        """Return the job of a delivery that is its last and not settled, else None."""
        out = self._unsettled.get(delivery.receipt.partition("#")[2])
        return out.job if out is not None and out.receipt == delivery.receipt else None

    def _let_go(self, deliveries: Sequence[Delivery]) -> list[Job]:
        """Return the jobs of deliveries, and forget that they are out."""
        jobs = []
        for delivery in deliveries:
            job = self._job_of(delivery)
            if job is not None:
                del self._unsettled[job.id]
                jobs.append(job)
        return jobs

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await act()
            except Exception as error:  # whatever it was, what is taken ahead must be renewed again
                log.warning("Locks of %s could not be looked after; it is tried again: %s", self._address.inward, error)
            await asyncio.sleep(seconds)

    async def _extend_ahead(self) -> None:
        """Renew the locks of what was taken ahead, and forget what is somebody else's by now."""
        if not self._ahead or self._in is None:
            return
        (lost,) = await self._receiving.run([self._in.extend(list(self._ahead))])
        gone = {job_id.decode() for job_id in lost}
        self._ahead = deque(job for job in self._ahead if job.id not in gone)

    async def _recover(self) -> None:
        """Look for jobs whose worker died, ours or another's, and put them back into the queue."""
        if self._in is None:
            return
        (stalled,) = await self._receiving.run([self._in.recover(self._now(), int(self._address.stalled * 1000))])
        if stalled:
            log.warning("%d jobs of %s had lost their worker, and are taken again.", len(stalled), self._address.inward)

    def _now(self) -> int:
        return self._world.now() // 1000


def _heeded(taking: "asyncio.Future[None]") -> None:
    """Look at the error of a task whose caller may have gone, so that the loop does not complain of it."""
    if not taking.cancelled():
        taking.exception()
