"""What is said: events, envelopes, versions and their bytes. Pure, no I/O."""

from tidings.events.codec import (
    CONTENT_TYPE,
    MAX_ENVELOPE_BYTES,
    decode_event,
    encode_event,
    envelope_from_json,
    envelope_to_ascii,
    envelope_to_json,
)
from tidings.events.declaration import FOREVER, INTERNAL, EventType, parse_version
from tidings.events.envelope import UNDATED, Envelope, check, derive_id, uuid7
from tidings.events.event import Event, event_type, key_of, reader, share_of
from tidings.events.registry import Registry
from tidings.events.request import Request, RequestMeta
from tidings.events.strict_json import MAX_BYTES, MAX_DEPTH, parse_json
from tidings.events.upcasting import Upcaster, UpcastFunction

__all__ = [
    "CONTENT_TYPE",
    "FOREVER",
    "INTERNAL",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_ENVELOPE_BYTES",
    "UNDATED",
    "Envelope",
    "Event",
    "EventType",
    "Registry",
    "Request",
    "RequestMeta",
    "UpcastFunction",
    "Upcaster",
    "check",
    "decode_event",
    "derive_id",
    "encode_event",
    "envelope_from_json",
    "envelope_to_ascii",
    "envelope_to_json",
    "event_type",
    "key_of",
    "parse_json",
    "parse_version",
    "reader",
    "share_of",
    "uuid7",
]
