"""One message of SQS or SNS: an envelope as plain ASCII with its digest, its group, and what came back of it. Pure."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from tidings.events import Envelope, envelope_to_ascii
from tidings.events.trace import is_traceparent

DIGEST = "sha256"
"""Attribute of a message that holds the SHA-256 of its body."""

_GROUP = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_XRAY = re.compile(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24})")


class Message(Struct, frozen=True):
    """One event as it is sent. `size` is what counts against the broker's limit, attributes included."""

    event_id: str
    body: str
    attributes: dict[str, str]
    trace_header: str | None
    group: str
    once: str
    size: int


class _Notification(Struct):
    """What SNS makes of a message where raw delivery is off."""

    Type: str
    TopicArn: str
    Message: str
    MessageAttributes: dict[str, dict[str, str]] = {}


def message_of(envelope: Envelope, again: str) -> Message:
    """Return the message of an envelope; `again` is empty, or says which repeated sending this is."""
    body = envelope_to_ascii(envelope)
    attributes = {DIGEST: _sha256(body), "type": envelope.type}
    for name in ("traceparent", "tracestate"):
        if value := getattr(envelope, name):
            attributes[name] = value
    size = len(body) + sum(len(name) + len("String") + len(text.encode()) for name, text in attributes.items())
    return Message(
        event_id=envelope.id,
        body=body,
        attributes=attributes,
        trace_header=xray_of(envelope.traceparent),
        # What has no key needs no order: a group of its own.
        group=_group(envelope.id if envelope.key is None else envelope.key),
        once=_sha256("\0".join((envelope.source, envelope.id, again))),
        size=size,
    )


def _group(key: str) -> str:
    """Return the group of a key: the key itself, or its hash where AWS does not take it."""
    return key if _GROUP.fullmatch(key) else _sha256(key)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read(body: str, attributes: Mapping[str, str]) -> tuple[bytes, dict[str, str], str | None]:
    """Return the bytes of a message that came, its attributes, and why it is broken, if it is."""
    found = dict(attributes)
    if '"TopicArn"' in body and (notification := _notification(body)) is not None:
        body = notification.Message
        found = {name: said.get("Value", "") for name, said in notification.MessageAttributes.items()}
    digest, actual = found.pop(DIGEST, None), _sha256(body)
    broken = None
    if digest is not None and digest != actual:
        broken = f"changed on its way: its SHA-256 is {actual}, and its sender said {digest}"
    return body.encode("utf-8", "surrogatepass"), found, broken


def _notification(body: str) -> _Notification | None:
    try:
        found = msgspec.json.decode(body, type=_Notification)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
    return found if found.Type == "Notification" else None


def xray_of(traceparent: str | None) -> str | None:
    """Return AWS's trace header for a W3C one: the same ids, written another way."""
    if traceparent is None or not is_traceparent(traceparent):
        return None
    _, trace, parent, flags = traceparent.split("-")[:4]
    return f"Root=1-{trace[:8]}-{trace[8:]};Parent={parent};Sampled={int(flags, 16) & 1}"


def traceparent_of(header: str) -> str | None:
    """Return the W3C trace context of AWS's trace header, None where it names no parent."""
    parts = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    root = _XRAY.fullmatch(f"Root={parts.get('Root', '')}")
    if root is None:
        return None
    found = f"00-{root[1]}{root[2]}-{parts.get('Parent', '')}-0{int(parts.get('Sampled') == '1')}"
    return found if is_traceparent(found) else None


def attributes_of(message: Message) -> dict[str, Any]:
    """Return the attributes as AWS's calls take them."""
    return {name: {"DataType": "String", "StringValue": text} for name, text in message.attributes.items()}
