"""What the keywords of an event class may say: wire name, version, key, retention."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Literal

import msgspec

from tidings.errors import EventDefinitionError

MAX_NAME = 255
"""Longest wire name, in characters; equal to the envelope's bound on `type`."""

FOREVER: Literal["forever"] = "forever"
"""The retention of events that are never dropped."""

INTERNAL = "tidings."
"""Wire names that begin so are the library's own: such events stay on their log, and no relay sends them."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)+")
_VERSION = re.compile(r"([1-9][0-9]{0,5})(?:\.(0|[1-9][0-9]{0,5}))?")


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """What an event class declares, found at `cls.__event_type__`.

    `name` is the wire name, `major`/`minor` the version, `key` and `fair_by` the names of fields or None,
    `keep` the retention as the envelope writes it: "forever" or whole seconds as text.
    """

    name: str
    major: int
    minor: int = 0
    key: str | None = None
    keep: str = FOREVER
    fair_by: str | None = None

    @property
    def version(self) -> str:
        """The version as the wire writes it: "1" or "1.2"."""
        return f"{self.major}.{self.minor}" if self.minor else str(self.major)


def declare(
    class_name: str, name: object, version: object, key: str | None, keep: object, fair_by: str | None
) -> EventType:
    """Return the declaration that the class keywords make; raises EventDefinitionError."""
    major, minor = _checked_version(class_name, version)
    return EventType(
        name=_checked_name(class_name, name),
        major=major,
        minor=minor,
        key=key,
        keep=_checked_keep(class_name, keep),
        fair_by=fair_by,
    )


def check_fields(class_name: str, fields: tuple[str, ...], **named: object) -> None:
    """Refuse a key or fair_by that is not one of the fields; raises EventDefinitionError."""
    for keyword, field in named.items():
        if field is not None and field not in fields:
            raise EventDefinitionError(
                f"Event class {class_name}: {keyword}={field!r} is not a field; "
                f"name one of {', '.join(fields) or '(it has no fields)'}."
            )


def check_abstract(class_name: str, bases: tuple[type, ...], given: tuple[str | None, ...]) -> None:
    """Refuse an abstract class that names itself or extends a named one; raises EventDefinitionError."""
    if any(value is not None for value in given):
        raise EventDefinitionError(
            f"Event class {class_name}: an abstract class holds fields only; "
            "remove abstract=True, or give name, key and fair_by to its subclasses."
        )
    if any(hasattr(base, "__event_type__") for base in bases):
        raise EventDefinitionError(
            f"Event class {class_name}: an abstract class cannot extend an event with a name; "
            "move the shared fields into the abstract class and extend that."
        )


def _checked_name(class_name: str, name: object) -> str:
    if name is None:
        raise EventDefinitionError(
            f"Event class {class_name} has no wire name; add one: "
            f'class {class_name}(Event, name="shop.order.placed", version=1), or abstract=True to share fields.'
        )
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise EventDefinitionError(
            f"Event class {class_name}: name={name!r} is not a wire name; use two or more lower-case words joined "
            f'by dots, at most {MAX_NAME} characters, such as "shop.order.placed".'
        )
    return name


@lru_cache(maxsize=1024)
def parse_version(text: str) -> tuple[int, int] | None:
    """Return (major, minor) of a version such as "1" or "1.2", or None if it is not one."""
    match = _VERSION.fullmatch(text)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _checked_version(class_name: str, version: object) -> tuple[int, int]:
    plain = isinstance(version, int | str) and not isinstance(version, bool)
    parsed = parse_version(str(version)) if plain else None
    if parsed is None:
        raise EventDefinitionError(
            f"Event class {class_name}: version={version!r} is not a version; "
            'use a whole number from 1, or "major.minor" as text such as "1.2".'
        )
    return parsed


def _checked_keep(class_name: str, keep: object) -> str:
    if keep == FOREVER:
        return FOREVER
    if not isinstance(keep, timedelta) or keep < timedelta(seconds=1) or keep.microseconds:
        raise EventDefinitionError(
            f'Event class {class_name}: keep={keep!r} is not a retention; use "forever" or a timedelta of '
            "whole seconds, such as timedelta(days=30)."
        )
    return str(keep // timedelta(seconds=1))
