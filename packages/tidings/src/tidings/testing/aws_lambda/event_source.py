"""An SQS queue as the event source of a function, with the rules of AWS's event source mapping.

What AWS documents is kept: batches and their window, several at a time, messages that come again after their visibility
time-out when the function failed, partial batch responses, and the limits that AWS refuses. Left out: filters, and
polling less while the function fails. Events under way are handled to their end before the source closes.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tidings.errors import ServiceError
from tidings.testing.aws_lambda.environment import Result
from tidings.testing.aws_lambda.function import LambdaFunction

log = logging.getLogger("tidings")

CALL_MESSAGES = 10
"""Messages that one call to SQS receives or deletes at most."""

WAIT_SECONDS = 1
"""So long a call waits for messages at most. Nobody may go away meanwhile: what such a call brings would be lost until
its visibility time-out, so the end waits for it."""

PAYLOAD = 6_000_000
"""Bytes of an invocation at most."""

Message = Mapping[str, Any]


class EventSource:
    """Use it as `async with EventSource(function, sqs, queue_url): …`; `sqs` is an open client of aiobotocore.

    `batch_size` messages at most are one event; they are collected for up to `window` seconds. `concurrency` events at
    most are handled at a time, else as many as the function has. `partial`: the function's batchItemFailures are
    heeded (ReportBatchItemFailures); without, what it returns is not looked at. Raises ServiceError for what AWS
    refuses: a function that may take longer than the queue's visibility time-out, and sizes out of bounds.
    """

    def __init__(
        self,
        function: LambdaFunction,
        sqs: Any,
        queue_url: str,
        *,
        batch_size: int = 10,
        window: float = 0.0,
        concurrency: int | None = None,
        partial: bool = True,
    ) -> None:
        self.results: deque[tuple[int, Result]] = deque(maxlen=10_000)
        self._function = function
        self._sqs = sqs
        self._queue_url = queue_url
        self._batch_size = batch_size
        self._window = window
        self._concurrency = concurrency
        self._partial = partial
        self._arn = ""
        self._ending = asyncio.Event()
        self._polling: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        wanted = ["QueueArn", "VisibilityTimeout"]
        answer = await self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=wanted)
        self._arn = answer["Attributes"]["QueueArn"]
        self._check(int(answer["Attributes"]["VisibilityTimeout"]))
        pollers = self._concurrency or self._function.concurrency
        self._polling = [asyncio.create_task(self._poll()) for _ in range(pollers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        await asyncio.gather(*self._polling)

    def _check(self, visibility: int) -> None:
        fifo = self._arn.endswith(".fifo")
        for wrong, what in (
            (self._function.timeout > visibility, f"the function's timeout is over the queue's {visibility} s"),
            (not 1 <= self._batch_size <= (10 if fifo else 10_000), f"batch_size={self._batch_size}"),
            (not 0 <= self._window <= (0 if fifo else 300), f"window={self._window:g}"),
            (self._batch_size > 10 and self._window < 1, f"batch_size={self._batch_size} needs a window of a second"),
            (self._concurrency is not None and not 2 <= self._concurrency <= 1000, f"concurrency={self._concurrency}"),
        ):
            if wrong:
                raise ServiceError(f"AWS refuses {self._arn} as event source: {what} is out of bounds.")

    async def _poll(self) -> None:
        while not self._ending.is_set():
            try:
                for batch in _pieces(await self._collect()):
                    await (self._give_back(batch) if self._ending.is_set() else self._handle(batch))
            except Exception as error:  # the queue is away: AWS goes on asking
                log.warning("Event source %s: %s", self._arn, error)
                await asyncio.sleep(0.5)

    async def _collect(self) -> list[Message]:
        loop = asyncio.get_running_loop()
        messages = await self._receive(WAIT_SECONDS)
        ends = loop.time() + self._window
        while messages and len(messages) < self._batch_size and (left := ends - loop.time()) > 0:
            if self._ending.is_set():
                break
            messages += await self._receive(min(left, WAIT_SECONDS), self._batch_size - len(messages))
            if sum(len(message["Body"]) for message in messages) > PAYLOAD:
                break
        return messages

    async def _give_back(self, batch: Sequence[Message]) -> None:
        for message in batch:
            await self._sqs.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )

    async def _receive(self, seconds: float, room: int | None = None) -> list[Message]:
        answer = await self._sqs.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=min(room or self._batch_size, CALL_MESSAGES),
            WaitTimeSeconds=max(int(seconds), 0),
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = list(answer.get("Messages", []))
        if not messages and 0 < seconds < 1:
            await asyncio.sleep(seconds)  # SQS waits for whole seconds
        return messages

    async def _handle(self, batch: Sequence[Message]) -> None:
        result = await self._function.invoke({"Records": [self._record(message) for message in batch]})
        self.results.append((len(batch), result))
        if result.error_type is not None:
            log.warning("Event source %s: %s: %s", self._arn, result.error_type, result.error)
            return  # all of them come again, after their visibility time-out
        failed = _failures(result.payload, {message["MessageId"] for message in batch}) if self._partial else set()
        done = [message for message in batch if message["MessageId"] not in failed]
        for start in range(0, len(done), CALL_MESSAGES):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(done[start : start + CALL_MESSAGES])
            ]
            await self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)

    def _record(self, message: Message) -> dict[str, Any]:
        attributes = {
            name: {
                "dataType": said["DataType"],
                **({"stringValue": said["StringValue"]} if "StringValue" in said else {}),
                "stringListValues": [],
                "binaryListValues": [],
            }
            for name, said in message.get("MessageAttributes", {}).items()
        }
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": attributes,
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._arn,
            "awsRegion": self._arn.split(":")[3],
        }


def _pieces(messages: Sequence[Message]) -> list[list[Message]]:
    """Return messages as events that are not too large."""
    pieces: list[list[Message]] = []
    size = PAYLOAD
    for message in messages:
        length = len(json.dumps(message["Body"])) + 2000  # its attributes besides
        if size + length > PAYLOAD:
            pieces.append([])
            size = 0
        pieces[-1].append(message)
        size += length
    return pieces


def _failures(payload: Any, ids: set[str]) -> set[str]:
    """Return the ids that a function gives back. Nothing is none; what names no message of the batch is all of them."""
    if payload is None or payload == "" or payload == {}:
        return set()
    try:
        listed = payload.get("batchItemFailures") or []
        failed = {entry["itemIdentifier"] for entry in listed}
    except (AttributeError, KeyError, TypeError):
        return ids
    return failed if failed <= ids else ids
