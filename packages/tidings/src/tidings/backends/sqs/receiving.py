"""The way in: a question that waits, more of them while there is much, and receipts that are good for one lease."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from tidings.backends.sqs.calls import Calls, together
from tidings.backends.sqs.message import read, traceparent_of
from tidings.errors import TransportError
from tidings.transport import Delivery

log = logging.getLogger("tidings")

CALL_MESSAGES = 10
"""Messages that one call receives, deletes or changes at most."""

MAX_DELAY = 43_200
"""Seconds that a message can be kept away for, counted from when it was received: twelve hours."""

_STALE = ("ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue")
_SYSTEM = ["AWSTraceHeader", "ApproximateReceiveCount", "DeadLetterQueueSourceArn"]


class _Out(Struct):
    """A message that was received: where, AWS's receipt, and until when it is ours (loop time)."""

    queue: str
    handle: str
    until: float


class Receiving:
    """Receives from some queues, and settles. Of a message that came again only the last receipt counts.

    AWS may heed an old receipt, so each is dropped here when its lease has ended.
    """

    def __init__(self, calls: Calls, names: Sequence[str], lease: int, wait: int) -> None:
        self._calls = calls
        self._names = names
        self._lease = lease
        self._wait = wait
        self._queues: list[str] = []
        self._polls: dict[str, asyncio.Task[list[Delivery]]] = {}
        self._out: dict[str, _Out] = {}
        self._received = 0
        self._more = 1

    async def open(self) -> None:
        """Find the queues; raises ServiceError for one that is not there."""
        self._queues = [await self._calls.queue_url(name) for name in self._names]

    async def close(self) -> None:
        """Ask no more, and let what was not settled come again at once."""
        for poll in self._polls.values():
            poll.cancel()
        await asyncio.gather(*self._polls.values(), return_exceptions=True)
        self._polls.clear()
        try:
            await self.give_back([Delivery(receipt, b"") for receipt in self._out])
        except TransportError as error:
            log.warning("What was received comes again when its lease ends, not now: %s", error)
        self._out.clear()

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for messages and return some. The question outlives a caller who has gone: its answer is the next's."""
        while True:
            for queue in self._queues:
                if queue not in self._polls:
                    self._polls[queue] = asyncio.create_task(self._ask(queue, limit))
            if not self._polls:
                await asyncio.Event().wait()  # nothing is received here, until cancelled
            await asyncio.wait(self._polls.values(), return_when=asyncio.FIRST_COMPLETED)
            found = await self._answered()
            if found:
                await self.give_back(found[limit:])
                return found[:limit]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Delete messages, ten a call."""
        await self._each("delete_message_batch", self._ours(deliveries), {})
        self._forget(deliveries)

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Let messages be seen again after a delay, in whole seconds: never early."""
        seconds = min(-int(-delay // 1), MAX_DELAY)
        await self._each("change_message_visibility_batch", self._ours(deliveries), {"VisibilityTimeout": seconds})
        self._forget(deliveries)

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Begin the leases anew."""
        ours = self._ours(deliveries)
        until = self._now() + self._lease
        await self._each("change_message_visibility_batch", ours, {"VisibilityTimeout": self._lease})
        for out in ours:
            out.until = until

    async def _answered(self) -> list[Delivery]:
        """Return what came of the questions that are answered; raises what one of them has met."""
        done = [queue for queue, poll in self._polls.items() if poll.done()]
        polls = [self._polls.pop(queue) for queue in done]
        found: list[Delivery] = []
        failed: BaseException | None = None
        for poll in polls:
            failed = failed or poll.exception()
            found += poll.result() if poll.exception() is None else []
        if failed is not None and not found:
            raise failed
        # What lay here while nobody asked, for half its lease or more, comes again by itself.
        fresh = self._now() + self._lease / 2
        return [each for each in found if (out := self._out.get(each.receipt)) is not None and out.until > fresh]

    async def _ask(self, queue: str, limit: int) -> list[Delivery]:
        """Wait for messages of a queue; where one call was full, look for the rest of the limit at once."""
        found = await self._take(queue, min(limit, CALL_MESSAGES), self._wait)
        more = min((limit - 1) // CALL_MESSAGES, self._more) if len(found) == CALL_MESSAGES else 0
        if more > 0:
            try:
                answers = await together([self._take(queue, CALL_MESSAGES, 0) for _ in range(more)])
            except TransportError as error:
                log.info("Not everything was asked for at once: %s", error)
                return found
            # Twice as many the next time if all were full; an empty answer costs as much as a full one.
            full = sum(len(some) == CALL_MESSAGES for some in answers)
            self._more = 2 * more if full == more else max(full, 1)
            found += [delivery for some in answers for delivery in some]
        return found

    async def _take(self, queue: str, limit: int, wait: int) -> list[Delivery]:
        asked = self._now()
        answer = await self._calls.call(
            self._calls.waiting, "receive_message", QueueUrl=queue, MaxNumberOfMessages=limit, WaitTimeSeconds=wait,
            VisibilityTimeout=self._lease, MessageAttributeNames=["All"], MessageSystemAttributeNames=_SYSTEM,
        )  # fmt: skip
        # The lease began somewhere between the question and the answer: of one that was answered at once, when it
        # was asked; of one that waited, AWS has answered as soon as there was something.
        began = asked if wait == 0 else self._now()
        return [self._delivery(queue, each, began) for each in answer.get("Messages", ())]

    def _delivery(self, queue: str, message: dict[str, Any], began: float) -> Delivery:
        self._received += 1
        receipt = str(self._received)
        self._out[receipt] = _Out(queue, message["ReceiptHandle"], began + self._lease)
        said = {name: one.get("StringValue", "") for name, one in message.get("MessageAttributes", {}).items()}
        body, headers, broken = read(message["Body"], said)
        system = message.get("Attributes", {})
        if "traceparent" not in headers and (trace := traceparent_of(system.get("AWSTraceHeader", ""))):
            headers["traceparent"] = trace
        headers["message"] = message["MessageId"]
        if source := system.get("DeadLetterQueueSourceArn"):
            times = system.get("ApproximateReceiveCount", "some")
            headers["reason"] = f"The queue {source.rpartition(':')[2]} gave it up; it was received {times} times."
        return Delivery(receipt, body, headers, broken)

    def _ours(self, deliveries: Sequence[Delivery]) -> list[_Out]:
        """Return what is still ours of some messages."""
        now = self._now()
        found = [self._out.get(each.receipt) for each in deliveries]
        return [out for out in found if out is not None and out.until > now]

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these, and what nobody settles any more."""
        for delivery in deliveries:
            self._out.pop(delivery.receipt, None)
        now = self._now()
        self._out = {receipt: out for receipt, out in self._out.items() if out.until > now}

    async def _each(self, operation: str, out: Sequence[_Out], said: dict[str, Any]) -> None:
        """Make a call for every ten messages of a queue, all at once; raises if any but stale ones failed."""
        calls = []
        for queue in self._queues:
            mine = [each for each in out if each.queue == queue]
            for start in range(0, len(mine), CALL_MESSAGES):
                entries = [
                    {"Id": str(number), "ReceiptHandle": each.handle, **said}
                    for number, each in enumerate(mine[start : start + CALL_MESSAGES])
                ]
                calls.append(self._calls.call(self._calls.sqs, operation, QueueUrl=queue, Entries=entries))
        for answer in await together(calls):
            for failed in answer.get("Failed", ()):
                if not any(part in failed["Code"] for part in _STALE):
                    raise TransportError(
                        f"AWS refused to {operation}: {failed.get('Message')} ({failed['Code']}). It is tried again."
                    )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
