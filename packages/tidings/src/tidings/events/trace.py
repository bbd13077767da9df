"""W3C trace context: what may stand in `traceparent` and `tracestate` (https://www.w3.org/TR/trace-context/)."""

import re

# Version 00 is complete; a later one may go on after a dash. All zeros are no id, and ff is no version.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-[\x21-\x7e]{0,199})?"
)
_TRACESTATE = re.compile(r"[\x20-\x7e\t]{1,512}")

MOST_MEMBERS = 32
"""List members of a tracestate at most (W3C trace context, 3.3.1.1)."""


def is_traceparent(value: object) -> bool:
    """Tell whether a value is a traceparent."""
    found = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    return found is not None and (found["more"] is None or found["version"] != "00")


def is_tracestate(value: object) -> bool:
    """Tell whether a value can be a tracestate: its length, its characters, its number of members."""
    return isinstance(value, str) and bool(_TRACESTATE.fullmatch(value)) and value.count(",") < MOST_MEMBERS
