"""Strict JSON for whatever outsiders write: refuses what is ambiguous or hostile and names the place.

Two passes share one grammar. The standard library's C parser, with hooks, accepts good documents fast. When it
or a hook objects, a scanner without recursion walks the text again to say where and why. Both are linear in the
size of the document.
"""

import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from tidings.errors import StrictJSONError

MAX_BYTES = 1_048_576
"""Largest document accepted unless said otherwise, in bytes of UTF-8."""

MAX_DEPTH = 64
"""Deepest nesting of arrays and objects accepted unless said otherwise."""

SMALLEST_INTEGER = -(2**63)
"""Integers below this are refused."""

LARGEST_INTEGER = 2**63 - 1
"""Integers above this are refused."""

_DEEPEST = 200  # The C parser recurses; this stays far below the interpreter's limit.
_LONGEST_INTEGER = 20  # characters in "-9223372036854775808"

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_GOOD_ESCAPE = rf'{_HIGH}{_LOW}|\\u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{{4}}|\\["\\/bfnrt]'
_GOOD_ESCAPES = re.compile(rf"(?:[^\\]++|{_GOOD_ESCAPE})*+")
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z)', re.DOTALL)
_STRING = re.compile(rf'"((?:[^"\\\x00-\x1f\ud800-\udfff]++|{_GOOD_ESCAPE})*+)("?)')
# No possessive groups here: Python 3.11.2 forgets what they held.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?([eE][+-]?[0-9]++)?")
_LITERAL = re.compile(r"true|false|null|NaN|-?Infinity")
_SPACE = re.compile(r"[ \t\n\r]*+")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class _RefusedError(ValueError):
    """A hook of the fast pass objects; the scanner finds out where."""


def parse_json(data: bytes | str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> object:
    """Return the value of a JSON document that an outsider wrote.

    Refused, with StrictJSONError naming the place: malformed text, trailing data, a byte-order mark, invalid
    UTF-8, duplicate keys, NaN and Infinity, lone surrogates, NUL characters, more than `max_depth` levels
    (at most 200), integers outside -2**63 .. 2**63-1, numbers too large for a float, more than `max_bytes` bytes.
    """
    if not 1 <= max_depth <= _DEEPEST:
        raise ValueError(f"max_depth is {max_depth}; give 1 to {_DEEPEST}")
    text = _text(data, max_bytes)
    try:
        if _depth_exceeds(text, max_depth):
            raise _RefusedError
        value = _DECODER.decode(text)
        if "\\u" in text and not _GOOD_ESCAPES.fullmatch(text):
            raise _RefusedError
    except (ValueError, RecursionError) as error:
        _Scanner(text, max_depth).run()
        raise StrictJSONError(f"malformed JSON ({error})", "send a valid JSON document") from error
    return value


def _text(data: bytes | str, max_bytes: int) -> str:
    """Return the document as text: within the size, without a mark, free of surrogates."""
    try:
        raw = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise _after(error.object[: error.start], "a lone surrogate", "send complete characters") from None
    if len(raw) > max_bytes:
        raise StrictJSONError(f"{len(raw)} bytes of JSON", f"send at most {max_bytes} bytes")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise StrictJSONError("a byte-order mark", "send UTF-8 without a mark")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        problem = f"invalid UTF-8 (byte {error.start})"
        raise _after(raw[: error.start].decode(), problem, "send the document as UTF-8") from None


def _after(prefix: str, problem: str, advice: str) -> StrictJSONError:
    """Return the error for what stands right after a readable prefix of the document."""
    scanner = _Scanner(prefix, _DEEPEST)
    with suppress(StrictJSONError):
        scanner.run()
    return scanner.error(problem, advice, at=len(prefix))


def _depth_exceeds(text: str, limit: int) -> bool:
    """Tell whether brackets outside strings nest deeper than the limit."""
    if text.count("[") + text.count("{") <= limit:
        return False
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(text):
        character = text[match.start()]
        if character in "[{":
            depth += 1
            if depth > limit:
                return True
        elif character in "]}":
            depth -= 1
    return False


def _bounded_integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER or not SMALLEST_INTEGER <= (value := int(digits)) <= LARGEST_INTEGER:
        raise _RefusedError
    return value


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _RefusedError
    return value


def _no_constant(_: str) -> NoReturn:
    raise _RefusedError


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedError
    return members


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_int=_bounded_integer,
    parse_float=_finite_float,
    parse_constant=_no_constant,
)


class _Scanner:
    """Walks a document to its first fault. Each step reads one token and returns the next step."""

    def __init__(self, text: str, max_depth: int) -> None:
        self.text = text
        self.max_depth = max_depth
        self.at = 0
        self.path: list[str | int | None] = []  # one place per open container; None before its first key
        self.keys: list[set[str]] = []  # keys seen in each open container; stays empty in an array

    def run(self) -> None:
        """Raise StrictJSONError at the first fault; return if there is none."""
        step: _Step | None = self.value
        while step is not None:
            self.at = self.match(_SPACE).end()
            step = step()

    def error(self, problem: str, advice: str, at: int | None = None) -> StrictJSONError:
        """Return the error for a fault at an index of the text, by default where the scanner stands."""
        at = self.at if at is None else at
        line = self.text.count("\n", 0, at) + 1
        return StrictJSONError(problem, advice, _path_text(self.path), line, at - self.text.rfind("\n", 0, at))

    def malformed(self, expected: str) -> StrictJSONError:
        """Return the error for a token that the grammar does not allow here."""
        found = ascii(self.text[self.at]) if self.at < len(self.text) else "the end of the document"
        return self.error(f"{found} instead of {expected}", "send a valid JSON document")

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Match a pattern that always matches here; one that does not is a malformed value."""
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self.malformed("a value")
        return found

    def value(self) -> "_Step | None":
        """Read a scalar, or open a container."""
        character = self.text[self.at : self.at + 1]
        if character == "{":
            return self.open(None, self.first_key)
        if character == "[":
            return self.open(0, self.first_item)
        if character == '"':
            self.string()
            return self.after
        return self.constant() if _LITERAL.match(self.text, self.at) else self.number()

    def open(self, place: int | None, following: "_Step") -> "_Step":
        """Enter an array or object."""
        if len(self.path) == self.max_depth:
            raise self.error(f"more than {self.max_depth} levels of nesting", "flatten the document")
        self.path.append(place)
        self.keys.append(set())
        self.at += 1
        return following

    def close(self) -> "_Step":
        """Leave the innermost array or object."""
        self.path.pop()
        self.keys.pop()
        self.at += 1
        return self.after

    def first_key(self) -> "_Step | None":
        """Read what follows `{`."""
        return self.close() if self.text.startswith("}", self.at) else self.key()

    def first_item(self) -> "_Step | None":
        """Read what follows `[`."""
        return self.close() if self.text.startswith("]", self.at) else self.value()

    def key(self) -> "_Step":
        """Read a key and its colon."""
        if not self.text.startswith('"', self.at):
            raise self.malformed("a key in double quotes")
        start = self.at
        key = self.string()
        self.path[-1] = key
        if key in self.keys[-1]:
            raise self.error("a duplicate key", "send each key once", at=start)
        self.keys[-1].add(key)
        self.at = self.match(_SPACE).end()
        if not self.text.startswith(":", self.at):
            raise self.malformed("a colon")
        self.at += 1
        return self.value

    def after(self) -> "_Step | None":
        """Read what follows a value: a comma, a closing bracket, or the end."""
        if not self.path:
            if self.at < len(self.text):
                raise self.error("data after the document", "send one JSON document")
            return None
        place = self.path[-1]
        in_array = isinstance(place, int)
        if self.text.startswith("]" if in_array else "}", self.at):
            return self.close()
        if not self.text.startswith(",", self.at):
            raise self.malformed("a comma or a closing bracket")
        self.at += 1
        if isinstance(place, int):
            self.path[-1] = place + 1
            return self.value
        return self.key

    def constant(self) -> "_Step":
        """Read true, false or null; NaN and Infinity are no JSON."""
        word = self.match(_LITERAL)[0]
        if word not in ("true", "false", "null"):
            raise self.error(f"the number {word}, which is not JSON", "send null or a finite number")
        self.at += len(word)
        return self.after

    def number(self) -> "_Step":
        """Read a number and check its size."""
        found = self.match(_NUMBER)
        whole = found[1] is None and found[2] is None
        try:
            _bounded_integer(found[0]) if whole else _finite_float(found[0])
        except _RefusedError:
            limit = "an integer beyond 64 bits" if whole else "a number too large for a 64-bit float"
            raise self.error(limit, "send a smaller number, or the digits as a string") from None
        self.at = found.end()
        return self.after

    def string(self) -> str:
        """Read a string and return what it says."""
        found = self.match(_STRING)
        if not found[2]:
            self.at = found.end()
            raise self.error(*_string_fault(self.text[self.at : self.at + 6]))
        self.at = found.end()
        return str(json.loads(found[0]))


_Step = Callable[[], "_Step | None"]


def _string_fault(rest: str) -> tuple[str, str]:
    """Return problem and advice for what stopped a string: the end, an escape or a control character."""
    if not rest:
        return "a string without an end", "close it with a double quote"
    if rest == "\\u0000":
        return "a NUL character", "remove it"
    if re.fullmatch(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}", rest):
        return "a lone surrogate", "send complete characters"
    if rest[0] == "\\":
        return f"the unknown escape {rest[:2]!a}", r"use only \" \\ \/ \b \f \n \r \t and \u with four hex digits"
    return f"the control character U+{ord(rest[0]):04X} in a string", "escape or remove it"


def _path_text(path: list[str | int | None]) -> str:
    """Return a JSON path such as `$.rows[3].name`; long and odd keys are quoted and cut."""
    parts = ["$"]
    for place in path:
        if isinstance(place, int):
            parts.append(f"[{place}]")
        elif place is not None:
            parts.append(f".{place}" if _PLAIN_KEY.fullmatch(place) else f"[{json.dumps(place[:64])}]")
    return "".join(parts)
