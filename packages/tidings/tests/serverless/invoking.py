"""Calls a function in this process: events as an SQS event source makes them, and what came out of the transport."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from tidings import Event, Service
from tidings.backends.memory import open_transport
from tidings.events import Envelope, encode_event, envelope_from_json, envelope_to_json, key_of
from tidings.integrations.aws_lambda import LambdaHandler, lambda_handler
from tidings.service import system_clock, uuid7_ids
from tidings.world import World

QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"


def envelope(event: Event, event_id: str, **attributes: Any) -> Envelope:
    """Return an event as another service has published it."""
    declared = type(event).__event_type__
    fields = {
        "id": event_id, "source": "shop", "type": declared.name, "version": declared.version, "time": datetime.now(UTC),
        "correlation": event_id, "key": key_of(event), "data": encode_event(event),
    }  # fmt: skip
    return Envelope(**{**fields, **attributes})


def record(what: Envelope | str, *, receives: int = 1, group: str | None = None, **attributes: str) -> dict[str, Any]:
    """Return the record of a message; its id is that of the event, or the text itself."""
    return {
        "messageId": what.id if isinstance(what, Envelope) else what,
        "receiptHandle": "…",
        "body": envelope_to_json(what).decode() if isinstance(what, Envelope) else what,
        "attributes": {
            "ApproximateReceiveCount": str(receives),
            "SentTimestamp": "0",
            **({"MessageGroupId": group} if group else {}),
        },
        "messageAttributes": {
            name: {"stringValue": value, "dataType": "String", "stringListValues": [], "binaryListValues": []}
            for name, value in attributes.items()
        },
        "md5OfBody": "…",
        "eventSource": "aws:sqs",
        "eventSourceARN": QUEUE + ".fifo" * (group is not None),
        "awsRegion": "us-east-1",
    }  # fmt: skip


class Context:
    """What AWS gives a function that has so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._ends - time.monotonic()) * 1000)


class Invoking:
    """One function over a folder of outcomes. `calls` is what its handlers have noted there, `url` its transport."""

    def __init__(self, folder: Path, queue: str, subscribe: Callable[[Service], None]) -> None:
        self.folder = folder
        self.queue = queue
        self.url = f"memory://{queue}?in=nothing"
        self._subscribe = subscribe
        self.calls: list[Any] = []
        self._handlers: list[LambdaHandler] = []

    def function(self, blobs: str | None = None, margin: float = 0.2) -> LambdaHandler:
        """Return another instance of the function, as another process of AWS is."""
        service = Service("labels", store="none://", transport=self.url, blobs=blobs)
        self._subscribe(service)
        handler = lambda_handler(service, outcomes=(self.folder / "blobs").as_uri(), margin=timedelta(seconds=margin))
        self._handlers.append(handler)
        return handler

    def close(self) -> None:
        for handler in self._handlers:
            handler.close()

    def published(self) -> list[Envelope]:
        """Return what came out of the transport since the last look."""
        return asyncio.run(self._published())

    async def _published(self) -> list[Envelope]:
        transport = open_transport(f"memory://nothing?in={self.queue}", World(system_clock, Random(), uuid7_ids))
        found: list[Envelope] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                while True:
                    some = await transport.receive(100)
                    await transport.settle(some)
                    found += [envelope_from_json(delivery.body) for delivery in some]
        return found

    def outcomes(self) -> list[dict[str, Any]]:
        """Return what was decided."""
        return [json.loads(path.read_bytes()) for path in sorted(self.folder.rglob("*.blob"))]


def failed(response: Any) -> list[str]:
    """Return the messages that a response gives back."""
    assert list(response) == ["batchItemFailures"]
    return [entry["itemIdentifier"] for entry in response["batchItemFailures"]]


def event_of(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the event of some records."""
    return json.loads(json.dumps({"Records": list(records)}))
