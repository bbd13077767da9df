"""What people may ask for, as strict types: an export, a preview."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from adexport.errors import AdExportError
from adexport.rendering.encoding import FORMATS, FormatName

MAX_ROWS = 10_000
MAX_SIDE = 4096
"""Pixels a side of a canvas; 4096 x 4096 is 16.8 megapixels and 67 MB of RGBA."""

SIZE_PATTERN = r"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
Size = Annotated[str, Meta(pattern=SIZE_PATTERN, description="Width x height in pixels.")]
Title = Annotated[str, Meta(min_length=1, max_length=200)]
Digest = Annotated[str, Meta(pattern=DIGEST_PATTERN, description="The id of an uploaded feed.")]
Fields = Annotated[
    dict[Annotated[str, Meta(max_length=200)], Annotated[str, Meta(max_length=10_000)]], Meta(max_length=100)
]
Bytes = Annotated[int, Meta(ge=1, le=100_000_000)]
Quality = Annotated[int, Meta(ge=1, le=100)]


class RequestError(AdExportError):
    """A request that is valid JSON but not what this takes; `where` is the JSON path of the culprit."""

    retryable = False

    def __init__(self, message: str, where: str = "$") -> None:
        """Keep the JSON path beside the message."""
        super().__init__(message)
        self.where = where


class LineBreakError(AdExportError):
    """A name holds a line break or another control character, which could forge headers and log lines."""

    retryable = False


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A design × sizes × formats × rows. See docs/reference/http-api.md for what each member means and defaults to."""

    design: Annotated[str, Meta(min_length=1, max_length=64)] | dict[str, Any]
    title: Title | None = None
    feed: Digest | None = None
    rows: Annotated[list[Fields], Meta(min_length=1, max_length=MAX_ROWS)] | None = None
    networks: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=50)] = ()
    sizes: Annotated[tuple[Size, ...], Meta(max_length=200)] = ()
    formats: Annotated[tuple[FormatName, ...], Meta(min_length=1, max_length=10)] = ("jpeg",)
    max_bytes: Bytes | None = None
    quality: Quality | None = None
    naming: Annotated[str, Meta(max_length=200)] | None = None


class PreviewRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of an export, to look at. `row` counts from 1 in the feed (or the sample feed); `fields` replace it."""

    design: Annotated[str, Meta(min_length=1, max_length=64)] | dict[str, Any]
    size: Size
    format: FormatName = "jpeg"
    feed: Digest | None = None
    row: Annotated[int, Meta(ge=1, le=MAX_ROWS)] = 1
    fields: Fields | None = None
    network: Annotated[str, Meta(max_length=64)] | None = None
    max_bytes: Bytes | None = None
    quality: Quality | None = None


T = TypeVar("T")
# msgspec quotes the pattern of a text that does not match; people are told what the value should have been.
_PATTERNS = {
    SIZE_PATTERN: f"is not width x height in pixels, each from 1 to {MAX_SIDE}. Write it such as 300x250",
    DIGEST_PATTERN: "is not the id of a feed. Give the 64 hexadecimal digits that its upload answered with",
}


def refuse_breaks(**names: str | None) -> None:
    """Raise LineBreakError when a name holds a control character."""
    for what, text in names.items():
        if text is not None and any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise LineBreakError(f"The {what} holds a line break or another control character. Remove it.")


def convert(value: object, kind: type[T], *, strict: bool = True) -> T:
    """`value` as `kind`. Raises RequestError with the JSON path; `strict=False` reads numbers from text (queries)."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        where = where.rstrip("`") or "$"
        raise RequestError(f"{_plainly(message, _at(value, where))}.", where) from error


def _at(value: Any, where: str) -> object:
    """The value at a JSON path of msgspec, such as $.sizes[0]."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", where):
        value = value[name] if name else value[int(index)]
    return value


def _plainly(message: str, value: object) -> str:
    """A message of msgspec, where it would show a pattern or hide the choices, in words that say what to write."""
    for pattern, meaning in _PATTERNS.items():
        if repr(pattern) in message:
            return f"{str(value)[:40]!r} {meaning}"
    if message.startswith("Invalid enum value "):
        return f"There is no format {message.removeprefix('Invalid enum value ')}. Use {', '.join(FORMATS)}"
    return message


def parse_size(size: str) -> tuple[int, int]:
    """Width and height of a text that matches Size."""
    width, height = size.split("x")
    return int(width), int(height)
