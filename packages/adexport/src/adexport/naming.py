"""File names from a pattern: safe on every system and network, unique, the same every time."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from adexport.errors import AdExportError
from adexport.planning import Cell
from adexport.rendering.encoding import FORMATS

DEFAULT_PATTERN: Final = "{network}/{design}_{width}x{height}_{row}.{ext}"
MAX_PATTERN: Final = 200
"""Characters in a pattern."""
MAX_NAME_BYTES: Final = 255
"""Bytes of UTF-8 in one part of a path: the limit of the common file systems."""
MAX_FOLDERS: Final = 4
MAX_FIELD: Final = 80
"""Characters that one value may add to a name."""

TOKENS: Final = ("design", "width", "height", "size", "row", "format", "ext", "network", "placement")

_TOKEN: Final = re.compile(r"\{([^{}]*)\}")
# Names that Windows keeps for devices, with or without an extension.
_RESERVED: Final = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)")
_SAFE_LITERAL: Final = re.compile(r"[A-Za-z0-9._/ -]*")
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff\\:%*?"<>|]')


class NamingError(AdExportError):
    """A pattern or a name cannot be used; the message quotes the part that is wrong."""

    retryable = False


class Pattern(msgspec.Struct, frozen=True):
    """A checked pattern: `parts` alternate between literal text (even places) and tokens (odd places)."""

    text: str
    parts: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The feed columns that the pattern uses."""
        return tuple(token.removeprefix("field:") for token in self.parts[1::2] if token.startswith("field:"))


def parse_pattern(text: str) -> Pattern:
    """Read a pattern such as `{network}/{design}_{width}x{height}_{field:sku}.{ext}`.

    Tokens: design, width, height, size, row (from 1, padded with zeros), format, ext, network, placement, field:NAME.
    Outside of tokens only letters, digits, space, dot, hyphen, underscore and `/` (for folders) may stand. It must
    end in `.{ext}`. Raises NamingError.
    """
    if len(text) > MAX_PATTERN:
        raise NamingError(f"The pattern has {len(text)} characters, above {MAX_PATTERN}. Shorten it.")
    parts = tuple(_TOKEN.split(text))
    for token in parts[1::2]:
        if token not in TOKENS and not (token.startswith("field:") and len(token) > len("field:")):
            raise NamingError(
                f"The pattern uses '{{{token}}}', which is unknown. Choose from {', '.join(TOKENS)}, field:NAME."
            )
    for literal in parts[0::2]:
        if not _SAFE_LITERAL.fullmatch(literal):
            raise NamingError(
                f"The pattern has {literal!r} outside of tokens. Use letters, digits, space, '.', '-', '_', and '/'."
            )
    if not text.endswith(".{ext}"):
        raise NamingError("The pattern does not end in '.{ext}', so files would open as the wrong kind. Add it.")
    folders = text.split("/")
    if len(folders) > MAX_FOLDERS + 1 or any(folder.strip(" .") == "" for folder in folders):
        raise NamingError(
            f"The pattern's folders are not usable: no '..', no empty one, none at the start, at most {MAX_FOLDERS}."
        )
    return Pattern(text, parts)


def name_files(
    pattern: Pattern,
    cells: Sequence[Cell],
    design: str,
    rows: Sequence[Mapping[str, str]],
    *,
    on_collision: Literal["suffix", "error"] = "suffix",
) -> list[str]:
    """Name every cell's file, in the order of `cells`: relative paths with `/`, unique when letter case is ignored.

    Values are made safe (see `safe`). A later cell whose name is taken gets `-2`, `-3` … before its extension, or
    with `on_collision="error"` raises NamingError naming both rows. Name the whole plan at once: the suffixes depend
    on all of it. Raises NamingError for a field that the rows do not have.
    """
    _check_fields(pattern, rows)
    digits = len(str(len(rows)))
    names = [_name(pattern, cell, design, rows[cell.row], digits) for cell in cells]
    return _unique(names, cells, refuse=on_collision == "error")


def safe(value: str, limit: int = MAX_FIELD) -> str:
    """Make text fit for a part of a file name: letters, marks and digits of any script, `.`, `-`, `_`.

    Compatibility forms are folded first (NFKC), so that no look-alike slash or dot survives; every other run of
    characters becomes one hyphen; hyphens and dots at the ends go. Longer text is cut to `limit` characters.
    """
    folded = unicodedata.normalize("NFKC", value)
    spaced = "".join(sign if sign in "._-" or unicodedata.category(sign)[0] in "LMN" else " " for sign in folded)
    kept = re.sub(r"\.{2,}", ".", "-".join(spaced.split()))
    return kept.strip("-.")[:limit].strip("-.")


def check_path(path: str) -> None:
    """Refuse a relative path that is not safe to extract or to send anywhere. Raises NamingError saying why."""
    for part in path.split("/"):
        reason = _wrong(part)
        if reason:
            raise NamingError(f"The file name {path!r} cannot be used: {reason}. Choose another pattern or value.")


def _wrong(part: str) -> str:
    """Why this part of a path cannot be used; empty when it can."""
    if part in ("", ".", ".."):
        return "it is absolute, or has an empty part, '.' or '..'"
    if _FORBIDDEN.search(part):
        return 'it has a control character, half a character, or one of \\ : % * ? " < > |'
    if part != part.strip(" ") or part.endswith("."):
        return "a part starts or ends with a space, or ends with a dot"
    if _RESERVED.match(part):
        return f"Windows keeps {part!r} for a device"
    if len(part.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"a part has more than {MAX_NAME_BYTES} bytes"
    return ""


def _check_fields(pattern: Pattern, rows: Iterable[Mapping[str, str]]) -> None:
    first = next(iter(rows), {})
    for field in pattern.fields:
        if field not in first:
            raise NamingError(
                f"The pattern uses the field '{field}', which the feed does not have. Found: {', '.join(first)}."
            )


def _name(pattern: Pattern, cell: Cell, design: str, row: Mapping[str, str], digits: int) -> str:
    values = {
        "design": design,
        "width": str(cell.width),
        "height": str(cell.height),
        "size": f"{cell.width}x{cell.height}",
        "row": str(cell.row + 1).zfill(digits),
        "format": cell.format,
        "ext": FORMATS[cell.format].extension,
        "network": cell.network,
        "placement": cell.placement,
    }
    pieces = [
        part if place % 2 == 0 else safe(values[part] if part in values else row[part.removeprefix("field:")])
        for place, part in enumerate(pattern.parts)
    ]
    # A token may be empty, such as the network of a size without one: the folder it would have made is left out.
    folders = [part for part in (folder.strip(" -.") for folder in "".join(pieces).split("/")) if part]
    if len(folders) == 0 or folders[-1] == values["ext"]:
        folders = [*folders[:-1], f"{cell.index + 1}.{values['ext']}"]
    return "/".join(_fitted(_unreserved(folder)) for folder in folders)


def _unreserved(part: str) -> str:
    return f"_{part}" if _RESERVED.match(part) else part


def _fitted(part: str, suffix: str = "") -> str:
    """The part with `suffix` before its extension, cut to the byte limit; what is cut is replaced by its hash."""
    stem, dot, extension = part.rpartition(".")
    stem, tail = (stem, f"{suffix}.{extension}") if dot and len(extension) <= 8 else (part, suffix)
    if len((stem + tail).encode()) <= MAX_NAME_BYTES:
        return stem + tail
    tail = f"-{hashlib.sha256(stem.encode()).hexdigest()[:8]}{tail}"
    room = MAX_NAME_BYTES - len(tail.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + tail


def _unique(names: Sequence[str], cells: Sequence[Cell], *, refuse: bool) -> list[str]:
    """Number the repeated names. Every unsuffixed name is taken from the start, so that no suffix runs into one."""
    taken = {name.casefold() for name in names}
    seen: dict[str, int] = {}
    counts: dict[str, int] = {}
    unique = []
    for name, cell in zip(names, cells, strict=True):
        folded = name.casefold()
        if folded not in seen:
            seen[folded] = cell.row
            unique.append(name)
            continue
        if refuse:
            raise NamingError(
                f"Rows {seen[folded] + 1} and {cell.row + 1} would both be named '{name}'. Add a token to the pattern "
                "that tells them apart, such as {row}, {size} or {network}."
            )
        folder, slash, last = name.rpartition("/")
        while True:
            counts[folded] = counts.get(folded, 1) + 1
            candidate = f"{folder}{slash}{_fitted(last, f'-{counts[folded]}')}"
            if candidate.casefold() not in taken:
                break
        taken.add(candidate.casefold())
        unique.append(candidate)
    return unique
