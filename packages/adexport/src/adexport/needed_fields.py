"""Which columns a design cannot do without: those that it shows without a default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adexport.designs.templates import Placeholder, parse_template


def needed_fields(document: dict[str, Any]) -> list[str]:
    """Fields of a checked design document with a placeholder that has no default, in order of first use.

    A field that only decides whether a layer is shown may be missing: the layer is then left out.
    """
    placeholders = (part for text in _texts(document) for part in _placeholders(text))
    needed = (part.field for part in placeholders if not any(name == "default" for name, _ in part.filters))
    return list(dict.fromkeys(needed))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _placeholders(text: str) -> Iterator[Placeholder]:
    if "{{" not in text:
        return
    try:
        parts = parse_template(text).parts
    except ValueError:
        return  # a description or an unused part: the design's own check passed, so it is never shown
    yield from (part for part in parts if isinstance(part, Placeholder))
