"""What goes into statements: placeholders for many arguments, and values, in words that every store reads alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
# So short that the drivers keep such a statement prepared: asyncpg up to 15 kB, apsw up to 16 kB.
_MOST_ARGUMENTS = 1500


def numbered(count: int, first: int = 1) -> str:
    """ "$1, $2, $3": placeholders of `count` arguments, the first with the number `first`."""
    return ", ".join(f"${number}" for number in range(first, first + count))


def table(types: tuple[str, ...], rows: Sequence[Sequence[Any]], first: int = 1) -> tuple[str, list[Any]]:
    """Rows as a table: "VALUES (CAST($1 AS TEXT), …), ($5, …), …", and the arguments. The first row tells the types."""
    return _table(types, len(rows), first), list(chain.from_iterable(rows))


@lru_cache(maxsize=64)
def _table(types: tuple[str, ...], rows: int, first: int) -> str:
    width = len(types)
    typed = ", ".join(f"CAST(${number} AS {kind})" for number, kind in enumerate(types, first))
    others = (numbered(width, start) for start in range(first + width, first + rows * width, width))
    return f"VALUES ({'), ('.join((typed, *others))})"


def in_parts(items: Sequence[T], width: int = 1) -> Iterator[Sequence[T]]:
    """`items` in parts that fit into one statement when each takes `width` arguments."""
    size = _MOST_ARGUMENTS // width
    return (items[start : start + size] for start in range(0, len(items), size))


def as_json(value: object) -> str:
    """`value` as JSON text for columns."""
    return msgspec.json.encode(value).decode()


def microseconds(moment: datetime) -> int:
    """A time in microseconds since 1970."""
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
