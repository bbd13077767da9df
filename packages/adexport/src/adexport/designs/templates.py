"""Placeholders: `"From {{ price | currency:'USD' }}"`, compiled once, filled per row. Nothing executes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from adexport.designs.filters import BLANK_IS_FINE, COUNTED, FILTERS

_LONGEST = 10_000
# No braces inside: so an opening without its end is found in one pass, however many there are.
_HOLE = re.compile(r"\{\{([^{}]*)\}\}")
_PIECE = re.compile(r"""'[^']*'|"[^"]*"|[^|'"]+|\|""")
_FILTER = re.compile(r"""\s*([a-z]+)\s*(?::\s*('[^']*'|"[^"]*"|\d+)\s*)?""")
_FIELD = re.compile(r"[^\W\d][\w .#/()-]{0,99}")


class FieldValueError(ValueError):
    """A row's value does not suit the placeholder; the message names the field."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `{{ field | filter | … }}`: the field and its filters with their arguments, in order."""

    field: str
    filters: tuple[tuple[str, tuple[str, ...]], ...]

    def fill(self, fields: Mapping[str, str]) -> str:
        """The field's value after the filters. Raises FieldValueError."""
        value = fields.get(self.field)
        if value is None:
            if not any(name == "default" for name, _ in self.filters):
                raise FieldValueError(f"the row has no field {self.field!r}; add the column or use default:'…'")
            value = ""
        for name, arguments in self.filters:
            if not value and name in BLANK_IS_FINE:
                continue
            try:
                value = FILTERS[name][0](value, *arguments)
            except ValueError as error:
                raise FieldValueError(f"field {self.field!r} does not suit filter {name!r}: {error}") from error
        return value


class Template:
    """Literal text and placeholders in turn. A plain class, as `Length` is."""

    __slots__ = ("parts", "source")

    def __init__(self, source: str, parts: tuple[str | Placeholder, ...]) -> None:
        """Keep the text as written and its compiled parts."""
        self.source = source
        self.parts = parts

    def fill(self, fields: Mapping[str, str]) -> str:
        """The text for one row. Raises FieldValueError naming the field."""
        return "".join(part if isinstance(part, str) else part.fill(fields) for part in self.parts)

    def fields(self) -> list[str]:
        """Names of the fields used, in order of appearance."""
        return [part.field for part in self.parts if isinstance(part, Placeholder)]


@lru_cache(maxsize=1024)
def parse_template(source: str) -> Template:
    """Compile a text with placeholders. Raises ValueError that says what is wrong and what is allowed."""
    if len(source) > _LONGEST:
        raise ValueError(f"a text of {len(source)} characters is too long; use at most {_LONGEST}")
    parts: list[str | Placeholder] = []
    position = 0
    for match in _HOLE.finditer(source):
        parts += [source[position : match.start()], _placeholder(match[1])]
        position = match.end()
    parts.append(source[position:])
    if any(isinstance(part, str) and ("{{" in part or "}}" in part) for part in parts):
        raise ValueError(f"{source[:60]!r} has an unfinished placeholder; write {{{{ field }}}}")
    return Template(source, tuple(part for part in parts if part))


def _placeholder(inside: str) -> Placeholder:
    pieces = _PIECE.findall(inside)
    if "".join(pieces) != inside:
        raise ValueError(f"{inside.strip()[:60]!r} has a quote that is not closed")
    segments = [""]
    for piece in pieces:
        if piece == "|":
            segments.append("")
        else:
            segments[-1] += piece
    field = segments[0].strip()
    if not _FIELD.fullmatch(field):
        raise ValueError(f"{field[:60]!r} is not a field name; start with a letter, then letters, digits, _ or spaces")
    return Placeholder(field, tuple(_filter(segment) for segment in segments[1:]))


def _filter(segment: str) -> tuple[str, tuple[str, ...]]:
    match = _FILTER.fullmatch(segment)
    name = match[1] if match else segment.strip()[:40]
    if match is None or name not in FILTERS:
        raise ValueError(f"{name!r} is not a filter; known are {', '.join(sorted(FILTERS))}")
    arguments = () if match[2] is None else (match[2].strip("'\""),)
    least, most = FILTERS[name][1:]
    if not least <= len(arguments) <= most:
        raise ValueError(f"filter {name!r} takes {'no' if most == 0 else 'one'} argument, as in {name}:'…'")
    if arguments and name in COUNTED and not (arguments[0].isascii() and arguments[0].isdecimal()):
        raise ValueError(f"filter {name!r} takes a whole number, not {arguments[0][:40]!r}")
    if arguments and name in COUNTED and int(arguments[0][:9]) > COUNTED[name]:
        raise ValueError(f"filter {name!r} takes at most {COUNTED[name]}, not {arguments[0][:40]}")
    return name, arguments
