"""Codec: events to bytes and back, envelopes to CloudEvents JSON and back."""

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from tidings.errors import (
    EnvelopeError,
    EventDecodeError,
    EventEncodeError,
    StrictJSONError,
    UnknownEventTypeError,
    UnknownEventVersionError,
)
from tidings.events.declaration import FOREVER, parse_version
from tidings.events.envelope import UNDATED, Envelope, check_attributes
from tidings.events.event import Event, event_type, reader
from tidings.events.registry import Registry
from tidings.events.strict_json import MAX_BYTES, MAX_DEPTH, parse_json
from tidings.events.trace import is_traceparent, is_tracestate
from tidings.events.upcasting import Upcaster

MAX_ENVELOPE_BYTES = MAX_BYTES + 131_072
"""Largest CloudEvents JSON document accepted: the largest data, and every attribute at its bound."""

CONTENT_TYPE = "application/json"
"""The content type of every event's data."""

_WIRE_NAMES = {
    "id": "id",
    "source": "source",
    "type": "type",
    "subject": "subject",
    "key": "partitionkey",
    "share": "fairshare",
    "correlation": "correlationid",
    "causation": "causationid",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
    "version": "schemaversion",
    "keep": "keepfor",
    "supersedes": "supersedes",
}
_OWN_NAMES = {*_WIRE_NAMES.values(), "specversion", "time", "datacontenttype", "data", "data_base64"}
_OPTIONAL = tuple(
    (name, wire) for name, wire in _WIRE_NAMES.items() if name not in {"id", "source", "type", "correlation", "version"}
)

_JSON_CONTENT = re.compile(r"[\w.+-]+/(?:[\w.-]+\+)?json(?:\s*;.*)?", re.IGNORECASE)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(?:\.(\d{1,12}))?(?:[Zz]|([+-]\d\d:\d\d))",
    re.ASCII,
)

_encoder = msgspec.json.Encoder()
_plain_decoder = msgspec.json.Decoder(dict[str, Any])
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def encode_event(event: Event) -> bytes:
    """Return the JSON of an event, checked to be readable by its own class.

    Raises EventEncodeError naming the field, or EventDefinitionError. JSON has no NaN: in a field that may be
    None it is written as null, elsewhere refused.
    """
    decoder = reader(type(event))
    try:
        data = _encoder.encode(event)
        decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
        raise EventEncodeError(
            f"Event {type(event).__qualname__} cannot be published: {error}; fix the value where it is built."
        ) from error
    return data


def decode_event(envelope: Envelope, registry: Registry, into: type[Event] | None = None) -> Event:
    """Return the event of an envelope as an instance of `into`, by default the newest registered class.

    Older major versions go through the registry's upcasters; a newer minor version is read as it is, its unknown
    fields ignored. Raises ParkedEventError (UnknownEventTypeError, UnknownEventVersionError, NoUpcasterError)
    when this release cannot read it, EventDecodeError naming the field when the bytes do not fit.
    """
    cls = into or registry.newest(envelope.type)
    if cls is None or (declared := event_type(cls)).name != envelope.type:
        raise UnknownEventTypeError(
            f"Event {envelope.id} has type {envelope.type}, which no registered class reads; "
            "deploy a version that subscribes to it, or discard the event."
        )
    target = declared.major
    version = parse_version(envelope.version)
    if version is None or version[0] > target:
        raise UnknownEventVersionError(
            f"Event {envelope.id} is {envelope.type} version {envelope.version}, but this release reads up to "
            f"{target}; deploy the release that knows it."
        )
    data = envelope.data
    if version[0] < target:
        data = _upcast(envelope, registry.chain(envelope.type, version[0], target))
    try:
        return reader(cls).decode(data)
    except Exception as error:  # the class's own __post_init__ may raise anything
        raise EventDecodeError(
            f"Event {envelope.id} ({envelope.type} version {envelope.version}) does not fit {cls.__qualname__}: "
            f"{_reason(error)}; correct the publisher, or redrive it with edited data."
        ) from error


def _reason(error: Exception) -> str:
    """Return what went wrong; msgspec's own words name the field, others need the kind of error."""
    return str(error) if isinstance(error, msgspec.MsgspecError) else f"{type(error).__name__}: {error}"


def _upcast(envelope: Envelope, chain: tuple[Upcaster, ...]) -> bytes:
    """Run a chain of upcasters over a private copy of the data and return the new JSON."""
    step = f"reading {envelope.type} version {envelope.version}"
    try:
        document = _plain_decoder.decode(envelope.data)
        for upcaster in chain:
            step = upcaster.label
            document = upcaster.function(document)
            if not isinstance(document, dict):
                raise TypeError(f"it returned {type(document).__name__}, not a dict")
        return _encoder.encode(document)
    except Exception as error:  # whatever user code raises makes this one event dead
        raise EventDecodeError(
            f"Event {envelope.id} cannot be upcast: {step} failed with {type(error).__name__}: {error}; "
            "fix the upcaster and redrive the event."
        ) from error


def envelope_to_json(envelope: Envelope) -> bytes:
    """Return an envelope as CloudEvents 1.0 structured-mode JSON, its data inline, byte for byte."""
    document: dict[str, object] = {
        "specversion": "1.0",
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "datacontenttype": CONTENT_TYPE,
        "correlationid": envelope.correlation,
        "schemaversion": envelope.version,
    }
    if envelope.time != UNDATED:
        document["time"] = envelope.time
    for name, wire in _OPTIONAL:
        value = getattr(envelope, name)
        if value is not None:
            document[wire] = value
    document.update(envelope.extensions)
    document["data"] = msgspec.Raw(envelope.data)
    return _encoder.encode(document)


def envelope_to_ascii(envelope: Envelope) -> str:
    """Return CloudEvents JSON in ASCII, for brokers that refuse some characters.

    Data that is not ASCII goes as `data_base64`, so that it arrives byte for byte; attributes are escaped.
    """
    text = envelope_to_json(envelope)
    if text.isascii():
        return text.decode()
    if not envelope.data.isascii():
        bare = envelope_to_json(msgspec.structs.replace(envelope, data=b"0"))
        text = bare.removesuffix(b'"data":0}') + b'"data_base64":"' + base64.b64encode(envelope.data) + b'"}'
    return "".join(sign if sign.isascii() else _escaped(sign) for sign in text.decode())


def _escaped(sign: str) -> str:
    units = sign.encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def envelope_from_json(document: bytes) -> Envelope:
    """Return the envelope in a CloudEvents 1.0 structured-mode JSON document that an outsider wrote.

    `data` keeps its bytes (without outer spaces); `data_base64` is accepted when it holds JSON; without either
    it is `{}`. A missing `time` becomes UNDATED, a missing correlation the id, a missing schemaversion "1".
    Foreign attributes are kept in `extensions` as text, a malformed trace context is dropped. Raises StrictJSONError
    and EnvelopeError.
    """
    parsed = parse_json(document, max_bytes=MAX_ENVELOPE_BYTES, max_depth=MAX_DEPTH + 1)
    if not isinstance(parsed, dict):
        raise EnvelopeError("The document is not a JSON object; send one CloudEvents envelope.")
    if parsed.get("specversion") != "1.0":
        raise EnvelopeError(f'specversion is {parsed.get("specversion")!r:.40}; send "1.0".')
    _check_content_type(parsed.get("datacontenttype"))
    fields = {name: parsed[wire] for name, wire in _WIRE_NAMES.items() if parsed.get(wire) is not None}
    _drop_broken_trace(fields)
    for name in ("id", "source", "type"):
        if name not in fields:
            raise EnvelopeError(f"The envelope has no {name}; CloudEvents requires it.")
    extensions = {name: _extension(name, value) for name, value in parsed.items() if name not in _OWN_NAMES}
    envelope = Envelope(
        **{"correlation": fields["id"], "version": "1", "keep": FOREVER, **fields},
        time=_time(parsed.get("time")),
        extensions={name: value for name, value in extensions.items() if value is not None},
        data=_data(document, parsed),
    )
    check_attributes(envelope)
    return envelope


def _drop_broken_trace(fields: dict[str, Any]) -> None:
    # As W3C trace context says: what is malformed begins no trace, and is no reason to refuse the message.
    if not is_traceparent(fields.get("traceparent")):
        fields.pop("traceparent", None)
        fields.pop("tracestate", None)
    elif not is_tracestate(fields.get("tracestate")):
        fields.pop("tracestate", None)


def _check_content_type(value: object) -> None:
    if value is not None and not (isinstance(value, str) and _JSON_CONTENT.fullmatch(value)):
        raise EnvelopeError(f"datacontenttype is {value!r:.80}; send JSON data as {CONTENT_TYPE}.")


def _extension(name: str, value: object) -> str | None:
    """Return a foreign attribute as text, the way CloudEvents writes its types; null means absent."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise EnvelopeError(f"Attribute {name!r:.60} is {type(value).__name__}; send a string, an integer or a boolean.")


def _data(document: bytes, parsed: dict[str, Any]) -> bytes:
    """Return the bytes of the data member, as they stand in the document."""
    encoded = parsed.get("data_base64")
    if encoded is None:
        return bytes(_raw_decoder.decode(document)["data"]) if "data" in parsed else b"{}"
    if "data" in parsed or not isinstance(encoded, str):
        raise EnvelopeError("data_base64 must be text and stand alone; send either data or data_base64.")
    try:
        data = base64.b64decode(encoded, validate=True).strip(b" \t\r\n")
        parse_json(data)
    except (binascii.Error, ValueError, StrictJSONError) as error:
        raise EnvelopeError(f"data_base64 does not hold acceptable JSON: {error}") from error
    return data


def _time(value: object) -> datetime:
    """Return an RFC 3339 time in UTC. Digits beyond microseconds are cut; a leap second is the last microsecond."""
    if value is None:
        return UNDATED
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise EnvelopeError(f'time is {value!r:.60}; send RFC 3339 with an offset, such as "2026-01-31T12:00:00Z".')
    day, clock, seconds, fraction, offset = match.groups()
    leap = seconds == "60"
    seconds, fraction = ("59", "999999") if leap else (seconds, (fraction or "0")[:6].ljust(6, "0"))
    try:
        time = datetime.fromisoformat(f"{day}T{clock}{seconds}.{fraction}{offset or '+00:00'}").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise EnvelopeError(f"time {value!r:.60} does not exist: {error}; send a valid time.") from error
    if leap and (time.hour, time.minute) != (23, 59):
        raise EnvelopeError(f"time {value!r:.60} is no leap second: those end a UTC day; send a valid time.")
    return time
