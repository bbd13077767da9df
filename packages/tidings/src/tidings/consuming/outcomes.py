"""What subscriptions without a store have decided: the events that followed from one, each outcome written once."""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from tidings.blobs import Blobs
from tidings.errors import BlobsError, EnvelopeError, StrictJSONError
from tidings.events import Envelope, envelope_from_json, envelope_to_json
from tidings.world import World

FORMAT = 1
"""Of the document. A release reads those up to its own; a later one may add fields without a new number."""

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


class _Document(Struct):
    format: int
    source: str
    id: str
    subscription: str
    attempt: int
    decided: datetime
    events: list[msgspec.Raw]


class Outcomes:
    """The outcomes in one place. Of two attempts that decide about one event, the first to write is right."""

    def __init__(self, blobs: Blobs, world: World) -> None:
        self._blobs = blobs
        self._world = world

    async def find(self, envelope: Envelope, subscription: str) -> list[Envelope] | None:
        """Return the events that an outcome holds, None if nothing is decided; raises BlobsError."""
        key = outcome_key(envelope, subscription)
        found = await self._blobs.read(key)
        return None if found is None else _events(key, found, envelope, subscription)

    async def decide(
        self, envelope: Envelope, subscription: str, attempt: int, events: Sequence[Envelope]
    ) -> list[Envelope]:
        """Write an outcome unless there is one; return the events of the one that is there. Raises BlobsError."""
        key = outcome_key(envelope, subscription)
        raw = [msgspec.Raw(envelope_to_json(event)) for event in events]
        document = _Document(FORMAT, envelope.source, envelope.id, subscription, attempt, self._world.clock(), raw)
        there = await self._blobs.create(key, msgspec.json.encode(document))
        return _events(key, there, envelope, subscription)


def outcome_key(envelope: Envelope, subscription: str) -> str:
    """Return the key under which a subscription's outcome of an event is: readable, where names and ids are plain."""
    return "/".join(("outcomes", *map(_part, (subscription, envelope.source, envelope.id))))


def _part(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else f"~{hashlib.sha256(text.encode()).hexdigest()}"


def _events(key: str, data: bytes, envelope: Envelope, subscription: str) -> list[Envelope]:
    try:
        document = msgspec.json.decode(data, type=_Document)
        if document.format > FORMAT:
            raise EnvelopeError(f"it has format {document.format}, and this release reads up to {FORMAT}")
        if (document.source, document.id, document.subscription) != (envelope.source, envelope.id, subscription):
            raise EnvelopeError("it is about another event")
        return [envelope_from_json(bytes(event)) for event in document.events]
    except (msgspec.MsgspecError, EnvelopeError, StrictJSONError) as error:
        raise BlobsError(
            f"The outcome {key} cannot be read: {error}. It says what this event led to: deploy the release that "
            "wrote it."
        ) from error
