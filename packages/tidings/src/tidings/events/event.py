"""Event: a frozen, typed fact whose class carries its wire name, version, key and retention."""

from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, Literal, dataclass_transform

import msgspec
from msgspec import inspect

from tidings.errors import EventDefinitionError, EventEncodeError
from tidings.events.declaration import FOREVER, EventType, check_abstract, check_fields, declare
from tidings.events.envelope import MAX_LENGTHS, is_clean


class EventMeta(msgspec.StructMeta):
    """Reads the class keywords of events; every event class is frozen and built by keyword."""

    def __new__(
        mcls,
        class_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        name: str | None = None,
        version: int | str = 1,
        key: str | None = None,
        keep: Literal["forever"] | timedelta = FOREVER,
        fair_by: str | None = None,
        abstract: bool = False,
        frozen: Literal[True] = True,
        **unknown: object,
    ) -> "EventMeta":
        """Create the class; raises EventDefinitionError. `frozen` is there for type checkers: no event is mutable."""
        if not frozen:
            raise EventDefinitionError(f"Event class {class_name}: events never change; remove frozen=False.")
        if unknown:
            raise EventDefinitionError(
                f"Event class {class_name}: unknown class keyword {', '.join(sorted(unknown))}; "
                "use name, version, key, keep, fair_by or abstract."
            )
        cls = super().__new__(mcls, class_name, bases, namespace, frozen=True, kw_only=True)
        if abstract:
            check_abstract(class_name, bases, (name, key, fair_by))
            return cls
        check_fields(class_name, cls.__struct_fields__, key=key, fair_by=fair_by)
        cls.__event_type__ = declare(class_name, name, version, key, keep, fair_by)
        return cls

    __event_type__: EventType


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, metaclass=EventMeta, abstract=True, frozen=True):
    """A past fact. Subclass it with class keywords and typed fields::

        class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
            order_id: str
            amount_cents: int

    Keywords: `name` (wire name: dotted, lower-case), `version` (1 or "1.2"), `key` (field that order is kept
    by), `keep` ("forever" or a timedelta of whole seconds), `fair_by` (field whose values take turns),
    `abstract=True` (holds shared fields only). `key` and `fair_by` name fields of type str, int or UUID.
    Fields have types that JSON can carry; `Any` is allowed, and then nothing checks the value.
    """

    __event_type__: ClassVar[EventType]


def event_type(event: Event | type[Event]) -> EventType:
    """Return the declaration of an event or event class; raises EventDefinitionError for an abstract class."""
    try:
        return event.__event_type__
    except AttributeError:
        cls = event if isinstance(event, type) else type(event)
        raise EventDefinitionError(
            f"Event class {cls.__qualname__} is abstract and has no wire name; publish and subscribe to a subclass."
        ) from None


@cache
def reader(cls: type[Event]) -> msgspec.json.Decoder[Event]:
    """Return the strict JSON decoder of an event class, made once.

    Checks then what needs resolved type hints, and raises EventDefinitionError.
    """
    declared = event_type(cls)
    try:
        described = inspect.type_info(cls)
    except (NameError, TypeError) as error:
        raise EventDefinitionError(
            f"Event class {cls.__qualname__}: a field's type cannot be used: {error}. "
            "Import it at module level (not under TYPE_CHECKING) and use types that JSON can carry."
        ) from error
    if (found := unreadable(described)) is not None:
        raise EventDefinitionError(
            f"Event class {cls.__qualname__}: type {found.__qualname__} cannot be read from JSON; "
            "use str, int, float, bool, datetime, UUID, Decimal, Enum, list, dict, or a msgspec Struct."
        )
    for keyword, field in (("key", declared.key), ("fair_by", declared.fair_by)):
        _check_text_field(cls, described, keyword, field)
    return msgspec.json.Decoder(cls)


def unreadable(described: inspect.Type) -> type | None:
    """Return a type that JSON cannot carry, of those that a described type is made of; None if there is none."""
    return next((found.cls for found in _walk(described, set()) if isinstance(found, inspect.CustomType)), None)


def _walk(node: object, seen: set[int]) -> Iterator[inspect.Type]:
    """Yield every type that a described type is made of, each once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, inspect.Type):
        yield node
    if isinstance(node, tuple):
        for item in node:
            yield from _walk(item, seen)
    elif isinstance(node, inspect.Type | inspect.Field):
        for name in node.__struct_fields__:
            yield from _walk(getattr(node, name), seen)


def _check_text_field(cls: type[Event], described: inspect.Type, keyword: str, field: str | None) -> None:
    if field is None:
        return
    fields = {item.name: item.type for item in described.fields} if isinstance(described, inspect.StructType) else {}
    if not isinstance(fields[field], inspect.StrType | inspect.IntType | inspect.UUIDType):
        raise EventDefinitionError(
            f"Event class {cls.__qualname__}: {keyword}={field!r} must be a field of type str, int or UUID, "
            "never None; change its type or name another field."
        )


def key_of(event: Event) -> str | None:
    """Return the text that order is kept by, or None if the class has no key; raises EventEncodeError."""
    return _routing_text(event, event_type(event).key, MAX_LENGTHS["key"])


def share_of(event: Event) -> str | None:
    """Return the text whose values take turns, or None if the class has no fair_by; raises EventEncodeError."""
    return _routing_text(event, event_type(event).fair_by, MAX_LENGTHS["share"])


def _routing_text(event: Event, field: str | None, limit: int) -> str | None:
    """Return a field as text that an envelope may carry."""
    if field is None:
        return None
    text = str(getattr(event, field))
    if len(text) > limit or not (text.isprintable() or is_clean(text)):
        raise EventEncodeError(
            f"Event {type(event).__qualname__} cannot be published: {field} is {text!r:.80}; "
            f"a key or fair_by value has at most {limit} characters, none of them a control character."
        )
    return text
