"""The placeholders of a design document from outside: all closed, and the columns it cannot do without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adexport.designs.templates import Placeholder, parse_template
from adexport.errors import DesignError


def needed_fields(document: dict[str, Any]) -> list[str]:
    """Fields of a checked design document with a placeholder that has no default, in order of first use.

    A field that only decides whether a layer is shown may be missing: the layer is then left out.
    """
    placeholders = (part for text in _texts(document) for part in _placeholders(text))
    needed = (part.field for part in placeholders if not any(name == "default" for name, _ in part.filters))
    return list(dict.fromkeys(needed))


def refuse_unclosed(document: dict[str, Any]) -> None:
    """Raise DesignError for a text with a placeholder that is opened and not closed before the next one.

    Done before the document is read: finding such a text only while looking for placeholders takes time that grows
    with the square of its length.
    """
    for text in _texts({name: value for name, value in document.items() if name not in ("title", "description")}):
        if any("}}" not in rest for rest in text.split("{{")[1:]):
            raise DesignError("$", f"{text[:60]!r} has an unfinished placeholder; write {{{{ field }}}}")


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
