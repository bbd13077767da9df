"""Appending to a stream: check what is asked, wrap the events for their place, tell why a stream refuses."""

from collections.abc import Sequence
from typing import Literal

from tidings.errors import EventEncodeError, ServiceError, StreamArchivedError, StreamConflictError, StreamError
from tidings.events import FOREVER, Envelope, Event
from tidings.events.envelope import MAX_LENGTHS
from tidings.publishing.producer import Cause, Producer, StableIds
from tidings.rows import Append
from tidings.statements import StreamStatements

NO_STREAM = 0
"""Expected version of a stream that is not there yet."""

ANY: Literal["any"] = "any"
"""Expected version of an append that does not depend on what the stream holds already."""

Expected = int | Literal["any"]
"""The version that a stream is expected to be at: that of its last event, which counts from 1, or ANY."""


def check_stream(stream: str) -> None:
    """Raise ServiceError for what cannot name a stream."""
    if not 0 < len(stream) <= MAX_LENGTHS["key"] or not stream.isprintable():
        raise ServiceError(
            f"A stream cannot be named {stream!r:.80}: use 1 to {MAX_LENGTHS['key']} printable characters, such as "
            "account-4711."
        )


def wrap_for_stream(
    producer: Producer, stream: str, events: Sequence[Event], expected: Expected, cause: Cause, ids: StableIds | None
) -> Append:
    """Wrap events for the end of a stream; raises ServiceError, EventEncodeError."""
    check_stream(stream)
    if not events:
        raise ServiceError(f"append() to stream {stream!r} got no events: pass at least one.")
    if not isinstance(expected, str) and expected < 0:
        raise ServiceError(f"append(expected={expected}) is no version: pass a number from 0 (NO_STREAM) on, or ANY.")
    at = None if isinstance(expected, str) else expected
    now = producer.now()  # they become facts together
    envelopes = tuple(
        [
            producer.wrap(event, cause, ids.next() if ids else None, stream, None if at is None else at + nth, now)
            for nth, event in enumerate(events, 1)
        ]
    )
    for envelope in envelopes:
        if envelope.keep != FOREVER:
            raise _not_forever(envelope, stream)
    return Append(stream, at, envelopes)


def _not_forever(envelope: Envelope, stream: str) -> EventEncodeError:
    return EventEncodeError(
        f"{envelope.type} cannot be appended to stream {stream!r}: its class says keep=…, so its events are "
        'dropped one day, and a stream with gaps tells another story. Leave keep= out ("forever"), or publish() it.'
    )


async def refusal(statements: StreamStatements, append: Append) -> StreamError:
    """Return why a stream did not take an append."""
    head = await statements.stream_head(append.stream)
    if head is not None and head.archived is not None:
        return StreamArchivedError(
            f"Stream {append.stream!r} is archived at version {head.version} and takes no events: bring it back with "
            "restore_stream(), or append to another."
        )
    return StreamConflictError(append.stream, append.expected or 0, head.version if head is not None else 0)
