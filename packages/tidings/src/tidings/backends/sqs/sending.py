"""The way out: messages in calls of ten and a mebibyte, many calls at once, a FIFO group never out of order."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from msgspec import Struct

from tidings.backends.sqs.address import FIFO
from tidings.backends.sqs.calls import UNFIT, Calls, PlaceError, UnfitError, together
from tidings.backends.sqs.message import Message, attributes_of
from tidings.transport import FOLLOWS, Refusal

CALL_MESSAGES = 10
"""Messages of one call, for SQS and SNS alike."""

QUEUE_BYTES, TOPIC_BYTES = 1_048_576, 262_144
"""Bytes of one call at most, and so of one message: SQS, SNS (AWS's quotas of 2026)."""

ATTRIBUTE_BYTES = 2_560
"""Bytes of them that are left to the attributes of a message: each at the bound that an envelope has for it."""


class Place(Struct, frozen=True):
    """A queue or topic that is sent to: its name, AWS's address of it, and whether it is a topic."""

    name: str
    address: str
    is_topic: bool

    @property
    def fifo(self) -> bool:
        """Say whether it keeps the order of a group."""
        return self.name.endswith(FIFO)

    @property
    def bytes(self) -> int:
        """Return how many bytes one call takes."""
        return TOPIC_BYTES if self.is_topic else QUEUE_BYTES


class Sending:
    """Sends to one place."""

    def __init__(self, calls: Calls, place: Place) -> None:
        self._calls = calls
        self._place = place

    async def send(self, messages: Sequence[Message], max_bytes: int) -> dict[str, Refusal]:
        """Send in order; return what was refused by its event's id.

        In a FIFO place one call holds one message of a group at most, and the next goes when that was taken: of two in
        one call AWS may refuse the first and take the second.
        """
        refused: dict[str, Refusal] = {}
        closed: set[str] = set()
        for turn in self._rounds(messages):
            now = {message.event_id: _before(message, closed, max_bytes) for message in turn}
            sent = [message for message in turn if now[message.event_id] is None]
            for answer in await together([self._call(chunk) for chunk in self._chunks(sent)]):
                now |= {each.event_id: each for each in answer}
            refused |= {event_id: refusal for event_id, refusal in now.items() if refusal is not None}
            if self._place.fifo:
                closed |= {message.group for message in turn if message.event_id in refused}
        return refused

    def _rounds(self, messages: Sequence[Message]) -> Sequence[Sequence[Message]]:
        """Return what may go at once: everything, or the first of each group, then the second …"""
        if not self._place.fifo:
            return [messages]
        rounds: list[list[Message]] = []
        seen: defaultdict[str, int] = defaultdict(int)
        for message in messages:
            turn = seen[message.group]
            seen[message.group] += 1
            if turn == len(rounds):
                rounds.append([])
            rounds[turn].append(message)
        return rounds

    def _chunks(self, messages: Sequence[Message]) -> Iterator[list[Message]]:
        chunk: list[Message] = []
        size = 0
        for message in messages:
            if chunk and (len(chunk) == CALL_MESSAGES or size + message.size > self._place.bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append(message)
            size += message.size
        if chunk:
            yield chunk

    async def _call(self, messages: Sequence[Message]) -> list[Refusal]:
        try:
            answer = await self._made(messages)
        except PlaceError as error:  # nobody's fault among them: they are sent again when somebody has put it right
            return [Refusal(message.event_id, str(error), True) for message in messages]
        except UnfitError as error:
            if len(messages) == 1:
                return [Refusal(messages[0].event_id, str(error), False)]
            # One of them spoils the call: each goes in a call of its own.
            return [refusal for message in messages for refusal in await self._call([message])]
        failed = {int(each["Id"]): each for each in answer.get("Failed", ())}
        return [_refusal(messages[number], said) for number, said in sorted(failed.items())]

    async def _made(self, messages: Sequence[Message]) -> Any:
        entries = [self._entry(number, message) for number, message in enumerate(messages)]
        if self._place.is_topic:
            return await self._calls.call(
                self._calls.sns, "publish_batch", TopicArn=self._place.address, PublishBatchRequestEntries=entries
            )
        return await self._calls.call(
            self._calls.sqs, "send_message_batch", QueueUrl=self._place.address, Entries=entries
        )

    def _entry(self, number: int, message: Message) -> dict[str, Any]:
        entry: dict[str, Any] = {"Id": str(number), "MessageAttributes": attributes_of(message)}
        entry["Message" if self._place.is_topic else "MessageBody"] = message.body
        if self._place.fifo:
            entry |= {"MessageGroupId": message.group, "MessageDeduplicationId": message.once}
        if message.trace_header and not self._place.is_topic:
            header = {"DataType": "String", "StringValue": message.trace_header}
            entry["MessageSystemAttributes"] = {"AWSTraceHeader": header}
        return entry


def _before(message: Message, closed: Collection[str], max_bytes: int) -> Refusal | None:
    """Return why a message is not sent at all, or None."""
    if message.group in closed:
        return Refusal(message.event_id, FOLLOWS, True)
    if len(message.body) <= max_bytes:
        return None
    reason = f"The envelope has {len(message.body)} bytes, and this transport carries {max_bytes} at most."
    return Refusal(message.event_id, reason, False)


def _refusal(message: Message, said: dict[str, Any]) -> Refusal:
    code, words = str(said.get("Code", "")), str(said.get("Message", ""))
    unfit = bool(said.get("SenderFault")) and any(part in code for part in UNFIT)
    return Refusal(message.event_id, f"AWS refused it: {words} ({code}).", not unfit)
