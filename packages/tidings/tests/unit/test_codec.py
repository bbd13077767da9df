"""Events to bytes and back; envelopes to CloudEvents JSON and back."""

import base64
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import EnvelopeError, EventDecodeError, EventEncodeError, StrictJSONError
from tidings.events import (
    MAX_BYTES,
    UNDATED,
    Envelope,
    Event,
    Registry,
    check,
    decode_event,
    encode_event,
    envelope_from_json,
    envelope_to_json,
)

MOMENT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


class Colour(Enum):
    """An enumeration inside an event."""

    RED = "red"


class Rich(Event, name="a.rich", key="id"):
    """Has a field of every kind."""

    id: UUID
    count: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    ratio: float = 0.5
    label: Annotated[str, msgspec.Meta(max_length=10)] = ""
    when: datetime = MOMENT
    day: date = date(2026, 1, 31)
    price: Decimal = Decimal("1.10")
    colour: Colour = Colour.RED
    lasting: timedelta = timedelta(seconds=90)
    tags: list[str] = msgspec.field(default_factory=list)
    table: dict[int, float | None] = msgspec.field(default_factory=dict)
    wire: int = msgspec.field(default=1, name="wireName")


ID = UUID("018f0000-0000-7000-8000-000000000001")


def known() -> Registry:
    made = Registry()
    made.register(Rich)
    return made


def envelope(data: bytes = b"{}", **changes: Any) -> Envelope:
    fields: dict[str, Any] = {"id": "e-1", "source": "s", "type": "a.rich", "time": MOMENT, "correlation": "c-1"}
    return Envelope(**fields | changes, data=data)


def test_every_kind_of_field_round_trips():
    event = Rich(id=ID, count=100, tags=["x", "é\U0001f600"], table={1: 2.5, -3: None}, wire=7)
    data = encode_event(event)
    assert json.loads(data)["wireName"] == 7
    assert decode_event(envelope(data), known()) == event


@given(
    st.builds(
        Rich,
        id=st.uuids(),
        count=st.integers(0, 100),
        ratio=st.floats(allow_nan=False, allow_infinity=False),
        label=st.text(st.characters(blacklist_categories=["Cs"]), max_size=10),
        when=st.datetimes(timezones=st.just(UTC)),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        tags=st.lists(st.text(st.characters(blacklist_categories=["Cs"]))),
        table=st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.none() | st.floats(allow_nan=False)),
    )
)
def test_whatever_can_be_encoded_reads_back_equal(event):
    try:
        data = encode_event(event)
    except EventEncodeError:
        assert any(value in (float("inf"), float("-inf")) for value in event.table.values())
        return
    if float("inf") in event.table.values() or float("-inf") in event.table.values():
        return  # written as null, as documented
    assert decode_event(envelope(data), known()) == event


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": "5"}, r"Expected `int`, got `str` - at `\$.count`"),
        ({"count": 101}, r"Expected `int` <= 100 - at `\$.count`"),
        ({"label": "x" * 11}, r"length <= 10 - at `\$.label`"),
        ({"label": "\ud800"}, "surrogates not allowed"),
        ({"ratio": float("nan")}, r"Expected `float`, got `null` - at `\$.ratio`"),
        ({"tags": [object()]}, "object"),
        ({"wire": None}, r"Expected `int`, got `null` - at `\$.wireName`"),
    ],
)
def test_an_event_that_its_class_could_not_read_is_not_published(changes, message):
    with pytest.raises(EventEncodeError, match=message) as caught:
        encode_event(Rich(**{"id": ID} | changes))
    assert "Rich cannot be published" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"id":"x"}', r"Invalid UUID - at `\$.id`"),
        (b"{}", "missing required field `id`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"id":"%s","count":"1"}' % str(ID).encode(), r"Expected `int`, got `str` - at `\$.count`"),
        (b'{"id":"%s","count":-1}' % str(ID).encode(), r"Expected `int` >= 0 - at `\$.count`"),
        (b'{"id":"%s","tags":["a",1]}' % str(ID).encode(), r"at `\$.tags\[1\]`"),
        (b'{"id":"%s","colour":"blue"}' % str(ID).encode(), r"Invalid enum value 'blue' - at `\$.colour`"),
        (b'{"id":', "truncated"),
        (b"", "truncated"),
        (b'{"id":"%s","label":"\xff"}' % str(ID).encode(), "codec can't decode"),
        (b'{"x":' + b"[" * 100_000, "recursion"),
    ],
)
def test_bytes_that_do_not_fit_are_dead_and_the_field_is_named(data, message):
    with pytest.raises(EventDecodeError, match=message) as caught:
        decode_event(envelope(data), known())
    assert "e-1 (a.rich version 1) does not fit Rich" in str(caught.value)


TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc", "Cn"], blacklist_characters="\ufffe\uffff"), min_size=1, max_size=30
)
NAMES = st.from_regex(r"x[a-z0-9]{1,19}", fullmatch=True)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(
    st.builds(
        Envelope,
        id=TEXT,
        source=TEXT,
        type=TEXT,
        time=st.datetimes(timezones=st.just(UTC)),
        correlation=TEXT,
        subject=st.none() | TEXT,
        key=st.none() | TEXT,
        share=st.none() | TEXT,
        causation=st.none() | TEXT,
        traceparent=st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        tracestate=st.none() | st.from_regex(r"[a-z]{1,9}=[\x21-\x2b\x2d-\x7e]{1,40}", fullmatch=True),
        version=st.sampled_from(["1", "2.3", "odd"]),
        keep=st.sampled_from(["forever", "86400"]),
        supersedes=st.none() | TEXT,
        extensions=st.dictionaries(NAMES, TEXT, max_size=5),
        data=st.builds(
            lambda value, indent, ascii_only: json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(),
            DATA,
            st.sampled_from([None, 3]),
            st.booleans(),
        ),
    )
)
def test_envelopes_round_trip_with_their_bytes_unchanged(sent):
    check(sent)
    document = envelope_to_json(sent)
    assert envelope_from_json(document) == sent
    assert json.loads(document)["specversion"] == "1.0"


def test_the_wire_form_is_cloudevents_json():
    sent = envelope(b'{ "a":1.10 }', key="k", share="t", causation="p", supersedes="old", keep="60", version="1.2")
    assert json.loads(envelope_to_json(sent)) == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "s",
        "type": "a.rich",
        "time": "2026-01-31T12:00:00.123456Z",
        "datacontenttype": "application/json",
        "partitionkey": "k",
        "fairshare": "t",
        "correlationid": "c-1",
        "causationid": "p",
        "schemaversion": "1.2",
        "keepfor": "60",
        "supersedes": "old",
        "data": {"a": 1.1},
    }
    assert b'"data":{ "a":1.10 }' in envelope_to_json(sent)


def foreign(**changes: Any) -> bytes:
    document = {"specversion": "1.0", "id": "7", "source": "/crm", "type": "com.crm.lead"} | changes
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def test_a_foreign_envelope_gets_defaults_and_keeps_its_attributes():
    read = envelope_from_json(
        foreign(dataschema="https://x.test/s", priority=5, urgent=True, note=None, data={"b": [1, "é"]})
    )
    assert read == Envelope(
        id="7",
        source="/crm",
        type="com.crm.lead",
        time=UNDATED,
        correlation="7",
        extensions={"dataschema": "https://x.test/s", "priority": "5", "urgent": "true"},
        data=b'{"b": [1, "\\u00e9"]}',
    )
    assert envelope_from_json(envelope_to_json(read)) == read
    assert "time" not in json.loads(envelope_to_json(read))
    assert envelope_from_json(foreign()).data == b"{}"
    assert envelope_from_json(foreign(data=None)).data == b"null"


def test_encoded_data_is_taken_when_it_is_json():
    encoded = base64.b64encode(b' {"a": 1}\n').decode()
    assert envelope_from_json(foreign(data_base64=encoded)).data == b'{"a": 1}'


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00.5z", datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123456789Z", datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-01-31T12:00:00.000000999999Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+05:30", datetime(2026, 1, 31, 6, 30, tzinfo=UTC)),
        ("2026-01-01T00:30:00+01:00", datetime(2025, 12, 31, 23, 30, tzinfo=UTC)),
        ("2026-01-31T12:00:00-00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("2016-12-31T23:59:60.25Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("2017-01-01T00:59:60+01:00", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (None, UNDATED),
    ],
)
def test_times_become_utc_microseconds(time, expected):
    read = envelope_from_json(foreign(time=time)).time
    assert read == expected
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("2026-01-31T12:00:00", "with an offset"),
        ("2026-01-31", "with an offset"),
        ("31.01.2026 12:00", "with an offset"),
        ("2026-01-31T12:00Z", "with an offset"),
        ("2026-01-31T12:00:00.1234567890123Z", "with an offset"),
        ("2026-01-31T12:00:00.Z", "with an offset"),
        ("２026-01-31T12:00:00Z", "with an offset"),
        (1_767_225_600, "with an offset"),
        ("2026-02-30T12:00:00Z", "does not exist"),
        ("2026-01-31T24:00:01Z", "does not exist"),
        ("2026-01-31T12:00:61Z", "does not exist"),
        ("0000-01-01T00:00:00Z", "does not exist"),
        ("2026-01-31T12:00:00+25:00", "does not exist"),
        ("0001-01-01T00:00:00+01:00", "does not exist"),
        ("9999-12-31T23:59:59-01:00", "does not exist"),
        ("2016-12-31T12:00:60Z", "no leap second"),
        ("2016-12-31T23:59:60+01:00", "no leap second"),
    ],
)
def test_times_that_are_unclear_are_refused(time, message):
    with pytest.raises(EnvelopeError, match=message):
        envelope_from_json(foreign(time=time))


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        (b"[]", EnvelopeError, "not a JSON object"),
        (b"{", StrictJSONError, "instead of a key"),
        (foreign(specversion="0.3"), EnvelopeError, "specversion is '0.3'"),
        (foreign(specversion=...), EnvelopeError, "specversion is None"),
        (foreign(id=...), EnvelopeError, "no id"),
        (foreign(source=None), EnvelopeError, "no source"),
        (foreign(type=""), EnvelopeError, "type is empty"),
        (foreign(id=5), EnvelopeError, "id must be text, not int"),
        (foreign(partitionkey=["a"]), EnvelopeError, "key must be text, not list"),
        (foreign(id="a\nb"), EnvelopeError, r"U\+000A"),
        (foreign(keepfor=60), EnvelopeError, "keep must be text"),
        (foreign(keepfor="a week"), EnvelopeError, "whole seconds"),
        (foreign(datacontenttype="text/xml"), EnvelopeError, "datacontenttype is 'text/xml'"),
        (foreign(datacontenttype=7), EnvelopeError, "datacontenttype is 7"),
        (foreign(Camel="x"), EnvelopeError, "lower-case letters and digits"),
        (foreign(ratio=1.5), EnvelopeError, "send a string, an integer or a boolean"),
        (foreign(nested={}), EnvelopeError, "send a string, an integer or a boolean"),
        (foreign(data_base64="e30=", data={}), EnvelopeError, "either data or data_base64"),
        (foreign(data_base64=7), EnvelopeError, "must be text"),
        (foreign(data_base64="e30"), EnvelopeError, "does not hold acceptable JSON"),
        (foreign(data_base64="*"), EnvelopeError, "does not hold acceptable JSON"),
        (foreign(data_base64="/w=="), EnvelopeError, "invalid UTF-8"),
        (foreign(data_base64="é"), EnvelopeError, "does not hold acceptable JSON"),
        (foreign()[:-1] + b',"id":"8"}', StrictJSONError, "duplicate key"),
        (foreign()[:-1] + b',"data":{"a":NaN}}', StrictJSONError, r"NaN, which is not JSON at \$\.data\.a"),
        (foreign()[:-1] + b',"data":' + b"[" * 65 + b"]" * 65 + b"}", StrictJSONError, "levels"),
        (b'{"a":"' + b"x" * 2_000_000 + b'"}', StrictJSONError, "send at most"),
        (foreign(data="x" * MAX_BYTES), EnvelopeError, "data has 1048578 bytes"),
    ],
)
def test_envelopes_from_outside_are_checked(document, error, message):
    with pytest.raises(error, match=message):
        envelope_from_json(document)


class Careful(Event, name="a.careful"):
    """Checks itself, with a mistake."""

    limits: dict[str, int]

    def __post_init__(self) -> None:
        """Look at a limit that may be missing."""
        if self.limits["low"] > 5:
            raise ValueError("low is above 5")


@pytest.mark.parametrize(
    ("data", "message"), [(b'{"limits":{"low":6}}', "low is above 5"), (b'{"limits":{}}', "KeyError: 'low'")]
)
def test_what_a_class_itself_refuses_is_dead(data, message):
    known = Registry()
    known.register(Careful)
    with pytest.raises(EventDecodeError, match=message):
        decode_event(envelope(data, type="a.careful"), known)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_content_types_are_accepted(kind):
    assert envelope_from_json(foreign(datacontenttype=kind)).data == b"{}"


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("traceparent", "tracestate", "kept"),
    [
        (TRACE, "a=1", (TRACE, "a=1")),
        (TRACE, None, (TRACE, None)),
        (f"01{TRACE[2:]}-more", "a=1", (f"01{TRACE[2:]}-more", "a=1")),
        (TRACE, "x" * 513, (TRACE, None)),
        (TRACE, ",".join("a=1" for _ in range(33)), (TRACE, None)),
        (TRACE, "caf\u00e9=1", (TRACE, None)),
        (f"{TRACE}-more", "a=1", (None, None)),
        (TRACE.upper(), "a=1", (None, None)),
        (f"ff{TRACE[2:]}", "a=1", (None, None)),
        ("00-" + "0" * 32 + TRACE[35:], "a=1", (None, None)),
        ("x" * 9999, "a=1", (None, None)),
        (17, {}, (None, None)),
        (None, "a=1", (None, None)),
    ],
)
def test_a_malformed_trace_context_is_dropped_and_refuses_no_message(traceparent, tracestate, kept):
    document = json.loads(envelope_to_json(envelope()))
    document.update(traceparent=traceparent, tracestate=tracestate)
    found = envelope_from_json(json.dumps(document).encode())
    assert (found.traceparent, found.tracestate) == kept
