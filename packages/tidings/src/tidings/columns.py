"""Envelopes, failures and lanes as the values of columns: the same in every store."""

from typing import Any
from zlib import crc32

import msgspec

from tidings.events import Envelope
from tidings.rows import Failure, Followed, Held, Ready, Record, SagaNote, SagaRow
from tidings.world import microseconds, moment

_failures = msgspec.json.Decoder(tuple[Failure, ...])
_envelope = msgspec.json.Decoder(Envelope)
_journal = msgspec.json.Decoder(tuple[SagaNote, ...])
_timers = msgspec.json.Decoder(dict[str, str])
_extensions = msgspec.json.Decoder(dict[str, str])

ENVELOPE_NAMES = (
    "type",
    "version",
    "id",
    "source",
    "time",
    "subject",
    "key",
    "share",
    "correlation",
    "causation",
    "traceparent",
    "tracestate",
    "supersedes",
    "keep",
    "extensions",
    "data",
    "stream",
    "stream_version",
)
ENVELOPE_COLUMNS = ", ".join(ENVELOPE_NAMES)
RECORDED_COLUMNS = "position, stream, stream_version, type, version, id, source, time, correlation, causation, data"
"""What is read of an event in a stream: all that a typed event and its place need, and no more, for many are read."""


_followed = msgspec.json.Decoder(Followed)


FOLLOWED = "followed:"
"""So begins the name under which a store keeps how far a log was followed; then comes its place."""


def followed_value(row: Followed) -> str:
    """Return how far a log was followed as one text, the same for what is the same."""
    return msgspec.json.encode(row, order="sorted").decode()


def followed_row(value: str) -> Followed:
    """Return what `followed_value` wrote."""
    return _followed.decode(value)


def lane_hash(envelope: Envelope) -> int:
    """Return what decides an event's lane: of its key, so that one key stays in one lane; without a key, of its id."""
    return crc32((envelope.key or envelope.id).encode())


def lane_of(envelope: Envelope, lanes: int) -> int:
    """Return the lane of an event: its hash, modulo the number of lanes."""
    return lane_hash(envelope) % lanes


def envelope_row(envelope: Envelope) -> tuple[Any, ...]:
    """Return the values of ENVELOPE_COLUMNS; the time in microseconds since 1970 UTC."""
    return (
        envelope.type,
        envelope.version,
        envelope.id,
        envelope.source,
        microseconds(envelope.time),
        envelope.subject,
        envelope.key,
        envelope.share,
        envelope.correlation,
        envelope.causation,
        envelope.traceparent,
        envelope.tracestate,
        envelope.supersedes,
        envelope.keep,
        msgspec.json.encode(envelope.extensions) if envelope.extensions else None,
        envelope.data,
        envelope.stream,
        envelope.stream_version,
    )


def record(row: Any) -> Record:
    """Return the record of a row: position, lane, ENVELOPE_COLUMNS."""
    # By position: by name an envelope takes four times as long to build.
    envelope = Envelope(
        row[4],
        row[5],
        row[2],
        moment(row[6]),
        row[10],
        row[17],
        row[7],
        row[8],
        row[9],
        row[11],
        row[12],
        row[13],
        row[3],
        row[15],
        row[14],
        _extensions.decode(row[16]) if row[16] else {},
        row[18],
        row[19],
    )
    return Record(row[0], row[1], envelope)


def pack_failures(failures: tuple[Failure, ...]) -> bytes | None:
    """Return failures as JSON, or None if there are none."""
    return msgspec.json.encode(failures) if failures else None


def unpack_failures(data: bytes | None) -> tuple[Failure, ...]:
    """Return what pack_failures wrote."""
    return _failures.decode(data) if data else ()


def pack_envelope(envelope: Envelope | None) -> bytes | None:
    """Return an envelope as JSON, its data in base64."""
    return msgspec.json.encode(envelope) if envelope is not None else None


def unpack_envelope(data: bytes | None) -> Envelope | None:
    """Return what pack_envelope wrote."""
    return _envelope.decode(data) if data else None


HELD_COLUMNS = "subscription, position, lane, key, blocks, state, attempts, due, reason, failures, actor, updated"


def held_row(row: Held) -> tuple[Any, ...]:
    """Return the values of HELD_COLUMNS."""
    return (
        row.subscription,
        row.position,
        row.lane,
        row.key,
        row.blocks,
        row.state,
        row.attempts,
        row.due,
        row.reason,
        pack_failures(row.failures),
        row.actor,
        row.updated,
    )


def held_of(row: Any) -> Held:
    """Return the exception of a row: HELD_COLUMNS."""
    return Held(
        subscription=row[0],
        position=row[1],
        lane=row[2],
        key=row[3],
        blocks=bool(row[4]),
        state=row[5],
        attempts=row[6],
        due=row[7],
        reason=row[8],
        failures=unpack_failures(row[9]),
        actor=row[10],
        updated=row[11],
    )


READY_COLUMNS = "subscription, share, position, lane, key, attempt, owner, failures, since"


def ready_row(row: Ready) -> tuple[Any, ...]:
    """Return the values of READY_COLUMNS."""
    return (
        row.subscription,
        row.share,
        row.position,
        row.lane,
        row.key,
        row.attempt,
        row.owner,
        pack_failures(row.failures),
        row.since,
    )


def ready_of(row: Any) -> Ready:
    """Return the work of a row: READY_COLUMNS."""
    return Ready(row[0], row[1], row[2], row[3], row[4], row[5], row[6], unpack_failures(row[7]), row[8])


SAGA_COLUMNS = (
    "saga, id, status, version, state_version, state, needs, timers, journal, reason, started, updated, expires"
)


def saga_row(row: SagaRow) -> tuple[Any, ...]:
    """Return the values of SAGA_COLUMNS."""
    return (
        row.saga,
        row.id,
        row.status,
        row.version,
        row.state_version,
        row.state,
        "\n".join(row.needs),
        msgspec.json.encode(row.timers),
        msgspec.json.encode(row.journal),
        row.reason,
        row.started,
        row.updated,
        row.expires,
    )


def needed(text: str) -> tuple[str, ...]:
    """Return the names in the column `needs`."""
    return tuple(text.split("\n")) if text else ()


def saga(row: Any) -> SagaRow:
    """Return the saga of a row of SAGA_COLUMNS."""
    return SagaRow(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        bytes(row[5]),
        needed(row[6]),
        _timers.decode(row[7]),
        _journal.decode(row[8]),
        row[9],
        row[10],
        row[11],
        row[12],
    )
