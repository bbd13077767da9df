"""The records of an SQS event source, as AWS Lambda hands them to a function. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from tidings.consuming.landing import traced
from tidings.errors import EnvelopeError, ServiceError
from tidings.events import Envelope, check, envelope_from_json

DIGEST = "sha256"
"""Attribute of a message that holds the SHA-256 of its body, as the SQS transport sends it."""


class _Attribute(Struct, rename="camel"):
    string_value: str | None = None


class _System(Struct):
    receives: str = msgspec.field(name="ApproximateReceiveCount", default="1")
    group: str | None = msgspec.field(name="MessageGroupId", default=None)


class Record(Struct, rename="camel"):
    """One message: its id, its body, and how often it has come by now."""

    id: str = msgspec.field(name="messageId")
    body: str
    queue: str = msgspec.field(name="eventSourceARN", default="the queue")
    system: _System = msgspec.field(name="attributes", default_factory=_System)
    attributes: dict[str, _Attribute] = msgspec.field(name="messageAttributes", default_factory=dict)

    @property
    def attempt(self) -> int:
        """How often it was received, from 1."""
        return max(int(self.system.receives), 1)

    @property
    def group(self) -> str | None:
        """The group whose order a FIFO queue keeps; None from any other."""
        return self.system.group if self.queue.endswith(".fifo") else None


class _Event(Struct):
    records: list[Record] = msgspec.field(name="Records")


class _Notification(Struct):
    """What SNS makes of a message where raw delivery is off."""

    type: str = msgspec.field(name="Type")
    topic: str = msgspec.field(name="TopicArn")
    message: str = msgspec.field(name="Message")
    attributes: dict[str, dict[str, str]] = msgspec.field(name="MessageAttributes", default_factory=dict)


def read_records(event: Any) -> list[Record]:
    """Return the messages of one invocation; raises ServiceError for what is no batch of SQS messages."""
    try:
        return msgspec.convert(event, type=_Event).records
    except msgspec.ValidationError as error:
        raise ServiceError(
            f"The function was called with what is no batch of SQS messages ({error}): let an SQS queue be its event "
            "source, with ReportBatchItemFailures."
        ) from error


def read_event(record: Record) -> Envelope:
    """Return the event of a message; raises EnvelopeError and StrictJSONError."""
    headers: Mapping[str, str] = {
        name: found.string_value for name, found in record.attributes.items() if found.string_value is not None
    }
    body = record.body
    if '"TopicArn"' in body and (notification := _notification(body)) is not None:
        body = notification.message
        headers = {name: said.get("Value", "") for name, said in notification.attributes.items()}
    _check_digest(body, headers.get(DIGEST))
    envelope = traced(envelope_from_json(body.encode("utf-8", "surrogatepass")), headers)
    check(envelope)
    return envelope


def _check_digest(body: str, told: str | None) -> None:
    actual = hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()
    if told is not None and told != actual:
        raise EnvelopeError(f"it changed on its way: its SHA-256 is {actual}, and its sender said {told}.")


def lines_of(records: Sequence[Record]) -> list[list[Record]]:
    """Return the messages that are handled one after the other: those of a group; any other is a line of its own."""
    lines: dict[str, list[Record]] = {}
    for record in records:
        lines.setdefault(record.id if record.group is None else f"group {record.group}", []).append(record)
    return list(lines.values())


def _notification(body: str) -> _Notification | None:
    try:
        found = msgspec.json.decode(body, type=_Notification)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
    return found if found.type == "Notification" else None
