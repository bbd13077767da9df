"""Feeds: a CSV file of any common dialect, read strictly into columns and rows of text."""

import csv
import re
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Final

import charset_normalizer
import msgspec

from adexport.errors import AdExportError
from adexport.problems import Problem, name_rows

MAX_BYTES: Final = 5_000_000
MAX_ROWS: Final = 10_000
MAX_COLUMNS: Final = 100
MAX_CELL: Final = 10_000
"""Characters in one cell."""
DELIMITERS: Final = (",", ";", "\t", "|")

_MARKS: Final = (("utf-8-sig", b"\xef\xbb\xbf"), ("utf-16", b"\xff\xfe"), ("utf-16", b"\xfe\xff"))
_OTHER_FILES: Final = (
    (b"PK\x03\x04", "an Excel or zip file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "a gzip file"),
)
_OLDER: Final = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("cp932", "gb18030", "big5", "cp949"),
)
ENCODINGS: Final = ("utf-8", "utf-8-sig", "utf-16", *_OLDER)
"""The encodings a feed may have."""
# With fewer bytes outside ASCII than this, every guess is chance: they are an accent or a currency sign.
_TELLING_BYTES: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class FeedError(AdExportError):
    """A feed cannot be read. `line` counts from 1 in the file, `column` names the column; None where unknown."""

    retryable = False

    def __init__(self, message: str, *, line: int | None = None, column: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A feed as text: nothing in it is ever evaluated, a cell that looks like a formula is that text.

    `rows` map every column to its cell (the empty string where empty); `lines` gives the line in the file on which
    each row starts. `encoding` and `delimiter` are what was found, so that a page can show and doubt them.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    encoding: str
    delimiter: str


def parse_feed(data: bytes, filename: str | None = None, *, encoding: str | None = None) -> Feed:
    """Read a CSV or TSV feed whose first line names the columns.

    Reads UTF-8, UTF-16 with its mark, and by detection the usual older encodings; commas, semicolons, tabs or bars;
    quoted cells with line breaks (which become LF). Lines without any text are left out. `filename` settles the
    delimiter of `.tsv` and names the file in errors. `encoding` overrules detection, which is a guess for short texts.

    Raises FeedError, naming line and column, for: more than 5 MB, 10,000 rows, 100 columns or 10,000 characters in a
    cell; empty or repeated column names; a row with another number of cells; open quotes; NUL and control characters;
    files that are not text.
    """
    name = filename or "the feed"
    _check_bytes(data, name)
    text, found = (_strictly(data, encoding, name), encoding) if encoding else _decode(data, name)
    delimiter = "\t" if filename and filename.lower().endswith(".tsv") else _delimiter(text)
    records = _records(text, delimiter, name)
    first = next(records, None)
    if first is None:
        raise FeedError(f"{name} is empty. Its first line names the columns, each further line is one row.")
    columns = _columns(*first)
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    for line, cells in records:
        if len(rows) == MAX_ROWS:
            raise FeedError(f"Line {line}: {name} has more than {MAX_ROWS:,} rows. Split it.", line=line)
        rows.append(_row(line, cells, columns))
        lines.append(line)
    if not rows:
        raise FeedError(f"{name} has column names but no rows. Add a line for each ad.", line=first[0])
    return Feed(columns=columns, rows=tuple(rows), lines=tuple(lines), encoding=found, delimiter=delimiter)


def check_fields(design_fields: Iterable[str], feed: Feed) -> list[Problem]:
    """What a design's fields lack in a feed: missing columns (errors), empty cells (warnings, with their rows)."""
    problems = []
    for field in dict.fromkeys(design_fields):
        if field not in feed.columns:
            problems.append(_missing(field, feed))
            continue
        empty = [number for number, row in enumerate(feed.rows, start=1) if not row[field].strip()]
        if empty:
            problems.append(
                Problem(
                    code="empty_cell",
                    message=f"Column '{field}' is empty in {name_rows(empty)}.",
                    action="Fill it in, or give the field a default in the design.",
                    severity="warning",
                    rows=tuple(empty),
                    column=field,
                )
            )
    return problems


def _missing(field: str, feed: Feed) -> Problem:
    alike = [column for column in feed.columns if column.casefold() == field.casefold()]
    hint = (
        f"Rename '{alike[0]}': upper and lower case count." if alike else f"Add it. Found: {', '.join(feed.columns)}."
    )
    return Problem(
        code="missing_column",
        message=f"The design uses the field '{field}', but the feed has no such column.",
        action=hint,
        column=field,
    )


def _check_bytes(data: bytes, name: str) -> None:
    if len(data) > MAX_BYTES:
        raise FeedError(f"{name} has {len(data):,} bytes, above {MAX_BYTES:,}. Split it.")
    for magic, what in _OTHER_FILES:
        if data.startswith(magic):
            raise FeedError(f"{name} is {what}, not CSV. Save or export it as CSV (UTF-8).")


def _decode(data: bytes, name: str) -> tuple[str, str]:
    """Text and the name of its encoding. NUL is refused before guessing: it means the file is not text."""
    for encoding, mark in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding, name), encoding
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise FeedError(
            f"Line {line}: {name} contains a NUL byte, so it is not CSV text. Save it as CSV (UTF-8).", line=line
        )
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        encoding = _guess(data, error.start)
    return _strictly(data, encoding, name), encoding


def _guess(data: bytes, start: int) -> str:
    """The likeliest older encoding, by the bytes outside ASCII, of which the first is at `start`.

    The sample ends with a line, because half a character at its end would rule out the right encoding.
    """
    end = start + 100_000
    end = len(data) if end >= len(data) else data.rfind(b"\n", start, end) + 1 or end
    sample = data[max(0, start - 2_000) : end]
    if sum(byte > 127 for byte in sample) < _TELLING_BYTES:
        return "cp1252"
    matches = charset_normalizer.from_bytes(sample, cp_isolation=list(_OLDER))
    best = matches.best()
    if best is None:
        return "cp1252"
    # Western and Central European texts often read equally well as either; Western is by far the commoner.
    equals = [name for match in matches if match.chaos <= best.chaos for name in match.could_be_from_charset]
    return "cp1252" if best.encoding == "cp1250" and "cp1252" in equals else best.encoding


def _strictly(data: bytes, encoding: str, name: str) -> str:
    if encoding not in ENCODINGS:
        raise FeedError(f"The encoding '{encoding}' is not known. Leave it out, or use one of: {', '.join(ENCODINGS)}.")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FeedError(
            f"Line {line}: {name} looks like {encoding}, but has bytes that are not. Save it as CSV (UTF-8).", line=line
        ) from None


def _delimiter(text: str) -> str:
    """The candidate that stands most often in the header outside quotes; the comma when none does."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"(?:[^"]|"")*"', "", header)
    return max(DELIMITERS, key=bare.count)


def _records(text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that holds any text, with the line it starts on."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise FeedError(
                f"Line {start}: {name} breaks the rules of CSV: {error}. Close every quote, and double quotes inside "
                "quoted cells.",
                line=start,
            ) from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield start, cells
        start = reader.line_num + 1


def _columns(line: int, header: list[str]) -> tuple[str, ...]:
    while header and not header[-1].strip() and len(header) > 1:
        header = header[:-1]
    if len(header) > MAX_COLUMNS:
        raise FeedError(f"Line {line}: {len(header)} columns, above {MAX_COLUMNS}. Remove the unused ones.", line=line)
    columns: dict[str, int] = {}
    for number, cell in enumerate(header, start=1):
        column = _text(line, cell, f"column {number}").strip()
        if not column:
            raise FeedError(f"Line {line}: column {number} has no name. Name it or remove it.", line=line)
        if column in columns:
            raise FeedError(
                f"Line {line}: '{column}' names both column {columns[column]} and column {number}. Rename one.",
                line=line,
                column=column,
            )
        columns[column] = number
    return tuple(columns)


def _row(line: int, cells: list[str], columns: tuple[str, ...]) -> dict[str, str]:
    if len(cells) > len(columns) and not any(cell.strip() for cell in cells[len(columns) :]):
        cells = cells[: len(columns)]
    if len(cells) != len(columns):
        raise FeedError(
            f"Line {line}: {len(cells)} cells, but the header names {len(columns)} columns. Add or remove cells, "
            "and quote a cell that contains the delimiter.",
            line=line,
        )
    return {column: _text(line, cell, column) for column, cell in zip(columns, cells, strict=True)}


def _text(line: int, cell: str, column: str) -> str:
    if len(cell) > MAX_CELL:
        raise FeedError(
            f"Line {line}, column '{column}': {len(cell):,} characters, above {MAX_CELL:,}. Shorten it.",
            line=line,
            column=column,
        )
    control = _CONTROL.search(cell)
    if control:
        raise FeedError(
            f"Line {line}, column '{column}': control character U+{ord(control[0]):04X}. Remove it.",
            line=line,
            column=column,
        )
    return cell.replace("\r\n", "\n").replace("\r", "\n")
