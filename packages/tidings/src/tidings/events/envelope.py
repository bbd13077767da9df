"""Envelope: an event's bytes with the metadata of CloudEvents 1.0, its bounds and its ids."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import msgspec

from tidings.errors import EnvelopeError, StrictJSONError
from tidings.events.declaration import FOREVER
from tidings.events.strict_json import MAX_BYTES, parse_json

UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of an envelope whose source gave none: the same on every copy, so copies are still recognised."""

MAX_LENGTHS = {
    "id": 255,
    "source": 255,
    "type": 255,
    "subject": 512,
    "key": 512,
    "share": 255,
    "correlation": 255,
    "causation": 255,
    "traceparent": 255,
    "tracestate": 1024,
    "version": 32,
    "keep": 16,
    "supersedes": 255,
}
"""Longest value of each text attribute, in characters."""

MAX_EXTENSIONS = 32
"""Most unknown extension attributes that an envelope may carry."""

MAX_EXTENSION_VALUE = 1024
"""Longest value of an unknown extension attribute, in characters."""

_LOW_62 = (1 << 62) - 1
_ID_MASK = ~(0xF << 76 | 0b11 << 62)  # clears the version and variant of a UUID

_REQUIRED = ("id", "source", "type", "correlation", "version")
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,20}")
_KEEP = re.compile(r"forever|[1-9][0-9]{0,14}")
# What CloudEvents 1.0 (type system, String) forbids: control characters, surrogates, noncharacters.
_PLANE_ENDS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_PLANE_ENDS}]")


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """An event on its way: CloudEvents 1.0 attributes and the event's JSON.

    `time` is aware, UTC, to the microsecond. `key` is what order is kept by, `share` whose turn it is
    (`fair_by`), `version` the event's version as text, `keep` the retention ("forever" or seconds).
    `correlation` is the id of the event that started it all, `causation` of the one handled when this was
    published. `supersedes` is the id this one stands in for. `extensions` holds foreign attributes as text.
    `stream` and `stream_version` say where it lies in a stream of the log that it is on; they do not travel.
    Building one checks nothing; `check` does, for envelopes that others wrote.
    """

    id: str
    source: str
    type: str
    time: datetime
    correlation: str
    data: bytes
    subject: str | None = None
    key: str | None = None
    share: str | None = None
    causation: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    version: str = "1"
    keep: str = FOREVER
    supersedes: str | None = None
    extensions: dict[str, str] = msgspec.field(default_factory=dict)
    stream: str | None = None
    stream_version: int | None = None


def check(envelope: Envelope) -> None:
    """Check every bound of an envelope from outside, its data as strict JSON included; raises EnvelopeError."""
    check_attributes(envelope)
    try:
        parse_json(envelope.data)
    except StrictJSONError as error:
        raise EnvelopeError(f"Envelope {envelope.id!r}: data is not acceptable: {error}") from error


def check_attributes(envelope: Envelope) -> None:
    """Check everything but what the data says; raises EnvelopeError."""
    if len(envelope.data) > MAX_BYTES:
        raise EnvelopeError(
            f"Envelope {envelope.id!r:.80}: data has {len(envelope.data)} bytes; send at most {MAX_BYTES}, "
            "or store it elsewhere and send where it is."
        )
    for name, limit in MAX_LENGTHS.items():
        _check_text(name, getattr(envelope, name), limit, required=name in _REQUIRED)
    if envelope.time.utcoffset() != timedelta(0):
        raise EnvelopeError(f"Envelope {envelope.id!r}: time {envelope.time!r} is not in UTC; give an aware UTC time.")
    if not _KEEP.fullmatch(envelope.keep):
        raise EnvelopeError(f'Envelope {envelope.id!r}: keep {envelope.keep!r} is neither "forever" nor whole seconds.')
    if len(envelope.extensions) > MAX_EXTENSIONS:
        raise EnvelopeError(
            f"Envelope {envelope.id!r} has {len(envelope.extensions)} extension attributes; "
            f"send at most {MAX_EXTENSIONS}."
        )
    for name, value in envelope.extensions.items():
        if not _EXTENSION_NAME.fullmatch(name):
            raise EnvelopeError(
                f"Envelope {envelope.id!r}: extension name {name!r:.60} is not allowed; "
                "use 1 to 20 lower-case letters and digits."
            )
        _check_text(name, value, MAX_EXTENSION_VALUE, required=False)


def is_clean(text: str) -> bool:
    """Tell whether text holds only characters that CloudEvents allows."""
    return _FORBIDDEN.search(text) is None


def _check_text(name: str, value: object, limit: int, *, required: bool) -> None:
    """Refuse text that is empty where required, too long, or holds characters that CloudEvents forbids."""
    if value is None and not required:
        return
    if not isinstance(value, str):
        raise EnvelopeError(f"Envelope attribute {name} must be text, not {type(value).__name__}; send a string.")
    if required and not value:
        raise EnvelopeError(f"Envelope attribute {name} is empty; every envelope needs one.")
    if len(value) > limit:
        raise EnvelopeError(f"Envelope attribute {name} has {len(value)} characters; shorten it to {limit}.")
    found = _FORBIDDEN.search(value)
    if found:
        raise EnvelopeError(
            f"Envelope attribute {name} holds the forbidden character U+{ord(found[0]):04X} "
            f"at position {found.start()}; remove it."
        )


def uuid7(milliseconds: int, random_bits: int) -> str:
    """Return a UUIDv7 as text (RFC 9562, 5.7) from Unix time and 74 random bits.

    Raises ValueError when `milliseconds` needs more than 48 bits or `random_bits` more than 74.
    """
    if not 0 <= milliseconds < 1 << 48 or not 0 <= random_bits < 1 << 74:
        raise ValueError("uuid7 takes milliseconds below 2**48 and random bits below 2**74, both not negative")
    return _uuid_text(milliseconds << 80 | 0x7 << 76 | random_bits >> 62 << 64 | 0b10 << 62 | random_bits & _LOW_62)


def derive_id(source: str, incoming_id: str, subscription: str, ordinal: int) -> str:
    """Return the id of the `ordinal`th event that a subscription publishes while handling an event.

    The same inputs always give the same id. UUIDv8 (RFC 9562, 5.8) over SHA-256 of the parts, each with its
    length in front so that no two different lists of parts read alike.
    """
    parts = ("tidings.id.1", source, incoming_id, subscription, str(ordinal))
    text = "".join([f"{len(part)}:{part}" for part in parts])
    value = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16])
    return _uuid_text(value & _ID_MASK | 0x8 << 76 | 0b10 << 62)


def _uuid_text(value: int) -> str:
    digits = value.to_bytes(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
