"""The records of an SQS event source, as AWS Lambda hands them to a function. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from tidings.backends.sqs.message import read, traceparent_of
from tidings.consuming.landing import traced
from tidings.errors import EnvelopeError, ServiceError
from tidings.events import Envelope, check, envelope_from_json


class _Attribute(Struct, rename="camel"):
    string_value: str | None = None


class _System(Struct):
    receives: str = msgspec.field(name="ApproximateReceiveCount", default="1")
    group: str | None = msgspec.field(name="MessageGroupId", default=None)
    trace: str = msgspec.field(name="AWSTraceHeader", default="")


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
    said = {name: found.string_value for name, found in record.attributes.items() if found.string_value is not None}
    body, headers, broken = read(record.body, said)
    if broken is not None:
        raise EnvelopeError(f"it {broken}.")
    if "traceparent" not in headers and (trace := traceparent_of(record.system.trace)):
        headers["traceparent"] = trace
    envelope = traced(envelope_from_json(body), headers)
    check(envelope)
    return envelope


def lines_of(records: Sequence[Record]) -> list[list[Record]]:
    """Return the messages that are handled one after the other: those of a group; any other is a line of its own."""
    lines: dict[str, list[Record]] = {}
    for record in records:
        lines.setdefault(record.id if record.group is None else f"group {record.group}", []).append(record)
    return list(lines.values())
