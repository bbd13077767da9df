"""Bounds of envelopes, and the ids they carry."""

import re
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import EnvelopeError
from tidings.events import Envelope, check, derive_id, uuid7
from tidings.events.envelope import MAX_LENGTHS

SOUND = Envelope(
    id="018f0000-0000-7000-8000-000000000001",
    source="billing",
    type="shop.order.placed",
    time=datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
    correlation="018f0000-0000-7000-8000-000000000000",
    data=b'{"order_id":"o-1"}',
)


def test_a_sound_envelope_passes():
    check(SOUND)
    longest = {name: "x" * limit for name, limit in MAX_LENGTHS.items() if name != "keep"}
    extensions = {f"ext{number}": "v" * 1024 for number in range(32)}
    check(msgspec.structs.replace(SOUND, **longest, keep="9" * 15, extensions=extensions))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "id is empty"),
        ({"source": ""}, "source is empty"),
        ({"type": ""}, "type is empty"),
        ({"version": ""}, "version is empty"),
        ({"correlation": ""}, "correlation is empty"),
        ({"id": None}, "id must be text"),
        ({"key": 5}, "key must be text, not int"),
        *(({name: "x" * (limit + 1)}, f"shorten it to {limit}") for name, limit in MAX_LENGTHS.items()),
        ({"id": "a\nb"}, r"id holds the forbidden character U\+000A at position 1"),
        ({"source": "a\r"}, r"U\+000D"),
        ({"type": "a\x00"}, r"U\+0000"),
        ({"key": "a\x7f"}, r"U\+007F"),
        ({"subject": "\x85"}, r"U\+0085"),
        ({"key": "\ud800"}, r"U\+D800"),
        ({"key": "\ufffe"}, r"U\+FFFE"),
        ({"key": "\U0010ffff"}, r"U\+10FFFF"),
        ({"time": datetime(2026, 1, 1)}, "aware UTC"),
        ({"time": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "aware UTC"),
        ({"keep": "30d"}, "whole seconds"),
        ({"keep": ""}, "whole seconds"),
        ({"keep": "0"}, "whole seconds"),
        ({"extensions": {f"e{number}": "" for number in range(33)}}, "at most 32"),
        ({"extensions": {"Upper": "x"}}, "lower-case letters and digits"),
        ({"extensions": {"": "x"}}, "lower-case letters and digits"),
        ({"extensions": {"x" * 21: "x"}}, "lower-case letters and digits"),
        ({"extensions": {"ok": "x" * 1025}}, "shorten it to 1024"),
        ({"extensions": {"ok": "\x1b[2J"}}, r"U\+001B"),
        ({"extensions": {"ok": 5}}, "ok must be text"),
        ({"data": b""}, "data is not acceptable"),
        ({"data": b'{"a":1,"a":2}'}, r"duplicate key at \$\.a"),
        ({"data": b"[NaN]"}, "NaN"),
        ({"data": b'"' + b"x" * 1_048_576 + b'"'}, "data has 1048578 bytes; send at most 1048576"),
    ],
)
def test_what_is_out_of_bounds_is_named(changes, message):
    with pytest.raises(EnvelopeError, match=message) as caught:
        check(msgspec.structs.replace(SOUND, **changes))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", str(caught.value))
    assert len(str(caught.value)) < 1000


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_uuid7_is_an_rfc_9562_version_7(milliseconds, random_bits):
    parsed = UUID(uuid7(milliseconds, random_bits))
    assert parsed.version == 7
    assert parsed.variant == "specified in RFC 4122"
    assert parsed.int >> 80 == milliseconds
    assert (parsed.int >> 64 & 0xFFF) << 62 | parsed.int & (1 << 62) - 1 == random_bits
    assert str(parsed) == uuid7(milliseconds, random_bits)


def test_uuid7_matches_the_example_of_the_rfc():
    assert uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(("milliseconds", "bits"), [(-1, 0), (2**48, 0), (0, -1), (0, 2**74)])
def test_uuid7_refuses_what_does_not_fit(milliseconds, bits):
    with pytest.raises(ValueError, match="uuid7 takes"):
        uuid7(milliseconds, bits)


def test_derived_ids_are_stable_for_ever():
    # A released id must never change: a redelivery after an upgrade has to derive the same one.
    assert derive_id("billing", "e-1", "charge", 0) == "87fb4ab2-edca-8290-a30e-a40afd7e07d8"
    parsed = UUID(derive_id("billing", "e-1", "charge", 0))
    assert (parsed.version, parsed.variant) == (8, "specified in RFC 4122")


def test_derived_ids_differ_in_every_part():
    parts = [
        ("a", "b", "c", 0),
        ("x", "b", "c", 0),
        ("a", "x", "c", 0),
        ("a", "b", "x", 0),
        ("a", "b", "c", 1),
        ("ab", "", "c", 0),
        ("a", "bc", "", 0),
        ("a1:b", "", "c", 0),
        ("", "a", "bc", 0),
    ]
    assert len({derive_id(*part) for part in parts}) == len(parts)
