"""Strict JSON: what is refused, where it says so, and that nothing sane is refused or changed."""

import json
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.errors import StrictJSONError
from tidings.events import parse_json
from tidings.events.strict_json import LARGEST_INTEGER, SMALLEST_INTEGER, _Scanner

HOSTILE = [
    # document, problem, path, line, column
    (b"", "the end of the document instead of a value", "$", 1, 1),
    (b"  \n ", "the end of the document instead of a value", "$", 2, 2),
    (b"{", "the end of the document instead of a key", "$", 1, 2),
    (b"[", "the end of the document instead of a value", "$[0]", 1, 2),
    (b"[1,", "the end of the document instead of a value", "$[1]", 1, 4),
    (b"[1 2]", "'2' instead of a comma", "$[0]", 1, 4),
    (b"[1,]", "']' instead of a value", "$[1]", 1, 4),
    (b"[,1]", "',' instead of a value", "$[0]", 1, 2),
    (b'{"a":1,}', "'}' instead of a key", "$.a", 1, 8),
    (b'{"a" 1}', "'1' instead of a colon", "$.a", 1, 6),
    (b'{"a":}', "'}' instead of a value", "$.a", 1, 6),
    (b"{a:1}", "'a' instead of a key in double quotes", "$", 1, 2),
    (b"{'a':1}", '"\'" instead of a key', "$", 1, 2),
    (b'{"a":1]', "']' instead of a comma or a closing bracket", "$.a", 1, 7),
    (b"[1}", "'}' instead of a comma or a closing bracket", "$[0]", 1, 3),
    (b"]", "']' instead of a value", "$", 1, 1),
    (b"tru", "'t' instead of a value", "$", 1, 1),
    (b"True", "'T' instead of a value", "$", 1, 1),
    (b"nulls", "data after the document", "$", 1, 5),
    (b"{} {}", "data after the document", "$", 1, 4),
    (b"1 // note", "data after the document", "$", 1, 3),
    (b"/* note */ 1", "'/' instead of a value", "$", 1, 1),
    (b"[01]", "'1' instead of a comma", "$[0]", 1, 3),
    (b"[+1]", "'+' instead of a value", "$[0]", 1, 2),
    (b"[-]", "'-' instead of a value", "$[0]", 1, 2),
    (b"[.5]", "'.' instead of a value", "$[0]", 1, 2),
    (b"[1.]", "'.' instead of a comma", "$[0]", 1, 3),
    (b"[1e]", "'e' instead of a comma", "$[0]", 1, 3),
    (b"[0x10]", "'x' instead of a comma", "$[0]", 1, 3),
    ("[\u0661]", "'\\u0661' instead of a value", "$[0]", 1, 2),
    ("[\u00a01]", "'\\xa0' instead of a value", "$[0]", 1, 2),
    (b"\x0c1", "'\\x0c' instead of a value", "$", 1, 1),
    (b'{"a": NaN}', "the number NaN", "$.a", 1, 7),
    (b"[Infinity]", "the number Infinity", "$[0]", 1, 2),
    (b"[1, -Infinity]", "the number -Infinity", "$[1]", 1, 5),
    (b'{"a":1,"a":2}', "a duplicate key", "$.a", 1, 8),
    (b'{"x":{"a":1,"\\u0061":2}}', "a duplicate key", "$.x.a", 1, 13),
    (b'{"":1,"":2}', "a duplicate key", '$[""]', 1, 7),
    (b'[{"a b":0},\n {"a b":0,"a b":0}]', "a duplicate key", '$[1]["a b"]', 2, 11),
    (b'["\\ud800"]', "a lone surrogate", "$[0]", 1, 3),
    (b'["\\udc00\\ud800"]', "a lone surrogate", "$[0]", 1, 3),
    (b'["x\\uD83Dy"]', "a lone surrogate", "$[0]", 1, 4),
    (b'["\\ud83d\\ud83d\\ude00"]', "a lone surrogate", "$[0]", 1, 3),
    (b'{"\\udfff":1}', "a lone surrogate", "$", 1, 3),
    ('["ok\ud800"]', "a lone surrogate", "$[0]", 1, 5),
    (b'["a\\u0000"]', "a NUL character", "$[0]", 1, 4),
    (b'{"a\\u0000":1}', "a NUL character", "$", 1, 4),
    (b'["a\x00"]', "the control character U+0000", "$[0]", 1, 4),
    (b"\x00", "'\\x00' instead of a value", "$", 1, 1),
    (b'["a\nb"]', "the control character U+000A", "$[0]", 1, 4),
    (b'["a\tb"]', "the control character U+0009", "$[0]", 1, 4),
    (b'["\\x41"]', "the unknown escape '\\\\x'", "$[0]", 1, 3),
    (b'["\\u12"]', "the unknown escape '\\\\u'", "$[0]", 1, 3),
    (b'["abc', "a string without an end", "$[0]", 1, 6),
    (b'["abc\\', "the unknown escape", "$[0]", 1, 6),
    (b'{"a', "a string without an end", "$", 1, 4),
    (b"\xef\xbb\xbf{}", "a byte-order mark", "$", 1, 1),
    ("\ufeff{}", "a byte-order mark", "$", 1, 1),
    ("[1]".encode("utf-16"), "invalid UTF-8 (byte 0)", "$", 1, 1),
    ("[1]".encode("utf-16-le"), "'\\x00' instead of a value", "$[0]", 1, 2),
    (b'["a", "\xff"]', "invalid UTF-8 (byte 7)", "$[1]", 1, 8),
    (b'{"a": "\xed\xa0\x80"}', "invalid UTF-8 (byte 7)", "$.a", 1, 8),
    (b'"\xc0\xaf"', "invalid UTF-8 (byte 1)", "$", 1, 2),
    (b"[9223372036854775808]", "an integer beyond 64 bits", "$[0]", 1, 2),
    (b"[-9223372036854775809]", "an integer beyond 64 bits", "$[0]", 1, 2),
    (b'{"n": ' + b"9" * 5000 + b"}", "an integer beyond 64 bits", "$.n", 1, 7),
    (b"-" + b"9" * 1_000_000, "an integer beyond 64 bits", "$", 1, 1),
    (b"[1e309]", "a number too large", "$[0]", 1, 2),
    (b"[-1.0E+999999999]", "a number too large", "$[0]", 1, 2),
    (b"1" * 400 + b".0", "a number too large", "$", 1, 1),
    (b"[" * 65 + b"]" * 65, "more than 64 levels", "$" + "[0]" * 64, 1, 65),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "more than 64 levels", "$" + ".a" * 64, 1, 321),
    (b"[" * 1_048_576, "more than 64 levels", "$" + "[0]" * 64, 1, 65),
    (b'["' + b"\\[" * 40 + b'"]', "the unknown escape '\\\\['", "$[0]", 1, 3),
    (b"[" + b" " * 1_048_576, "1048577 bytes of JSON", "$", 1, 1),
]


@pytest.mark.parametrize("case", HOSTILE, ids=[f"{i:02}-{case[1][:30]}" for i, case in enumerate(HOSTILE)])
def test_hostile_documents_are_refused_with_the_place(case):
    document, problem, path, line, column = case
    with pytest.raises(StrictJSONError) as caught:
        parse_json(document)
    error = caught.value
    assert error.problem.startswith(problem)
    assert (error.path, error.line, error.column) == (path, line, column)
    assert error.advice in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b" [1 , 2 ]\r\n\t", [1, 2]),
        (b"-0", 0),
        (b"1E2", 100.0),
        (b"0.1e-400", 0.0),
        (str(LARGEST_INTEGER), LARGEST_INTEGER),
        (str(SMALLEST_INTEGER), SMALLEST_INTEGER),
        (b'"\\ud83d\\ude00 \\uD83D\\uDE00"', "\U0001f600 \U0001f600"),
        (b'"\\\\ud800 \\\\u0000"', "\\ud800 \\u0000"),
        (b'"\\u0001\\ufffe"', "\x01\ufffe"),
        (b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}', {"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}),
        (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
        (b'["' + b"[{" * 5000 + b'"]', ["[{" * 5000]),
        (b"[" + b"[]," * 5000 + b"[]]", [[]] * 5001),
        (b'["\\"' + b"[" * 100 + b'\\\\"]', ['"' + "[" * 100 + "\\"]),
        ("{}", {}),
    ],
)
def test_unusual_but_sound_documents_are_accepted(document, value):
    assert parse_json(document) == value


SANE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(SMALLEST_INTEGER, LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00")),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00")), inner)
    ),
    max_leaves=20,
)


@given(SANE, st.booleans(), st.sampled_from([None, 2]))
def test_whatever_json_writes_reads_back_equal(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert parse_json(text) == value
    assert parse_json(text.encode()) == value


SCRAPS = [
    *("{", "}", "[", "]", ",", ":", '"a"', '"b"', '"', "\\", "\\u0000", "\\ud83d", "\\ude00", "\\n", " ", "\n"),
    *("0", "1", "-", ".5", "e9", "e999", "9" * 20, "true", "null", "NaN", "-Infinity", "\x00", "é"),
]
SCRAP_TEXT = st.lists(st.sampled_from(SCRAPS), max_size=14).map("".join)
CUT_AND_SPOILT = st.builds(
    lambda value, end, scraps: json.dumps(value)[:end] + scraps, SANE, st.integers(0, 50), SCRAP_TEXT
)


def refusal(read: Callable[[], object]) -> str | None:
    """Return the message of the refusal, or None."""
    try:
        read()
    except StrictJSONError as error:
        return str(error)
    return None


@settings(max_examples=400)
@given(SCRAP_TEXT | CUT_AND_SPOILT)
def test_both_passes_agree(text):
    assert refusal(lambda: parse_json(text)) == refusal(_Scanner(text, 64).run)


@settings(max_examples=200)
@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(data):
    message = refusal(lambda: parse_json(data))
    assert message is None or message.isprintable()


def test_limits_can_be_set():
    assert parse_json("[[1]]", max_depth=2) == [[1]]
    with pytest.raises(StrictJSONError, match="more than 1 levels"):
        parse_json("[[1]]", max_depth=1)
    with pytest.raises(StrictJSONError, match="send at most 4 bytes"):
        parse_json('"é1"', max_bytes=4)
    with pytest.raises(ValueError, match="max_depth"):
        parse_json("1", max_depth=1000)


def test_long_and_odd_keys_do_not_flood_the_message():
    key = "k\u2028" * 10_000
    with pytest.raises(StrictJSONError) as caught:
        parse_json(json.dumps({key: [float("nan")]}))
    assert len(str(caught.value)) < 600
    assert str(caught.value).isascii()


def test_the_error_crosses_processes():
    with pytest.raises(StrictJSONError) as caught:
        parse_json("[1,\nNaN]")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.line, again.column, again.path) == (2, 1, "$[1]")
