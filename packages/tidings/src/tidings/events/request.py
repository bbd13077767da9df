"""Request: what a command and a query share. Frozen, typed, checked, and read strictly from outside."""

from functools import cache
from typing import Any, Literal, Self, dataclass_transform

import msgspec
from msgspec import inspect

from tidings.errors import RequestError, ServiceError
from tidings.events.event import unreadable
from tidings.events.strict_json import MAX_BYTES, parse_json

_encoder = msgspec.json.Encoder()


class RequestMeta(msgspec.StructMeta):
    """Makes every class of requests frozen, built by keyword, and closed to fields that it does not have."""

    def __new__(
        mcls,
        class_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        frozen: Literal[True] = True,
        **unknown: object,
    ) -> "RequestMeta":
        """Create the class; raises ServiceError. `frozen` is there for type checkers: no request is mutable."""
        if unknown:
            raise ServiceError(f"{class_name}: unknown class keyword {', '.join(sorted(unknown))}: leave it out.")
        return super().__new__(
            mcls, class_name, bases, namespace, frozen=True, kw_only=True, forbid_unknown_fields=True
        )


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Request(msgspec.Struct, metaclass=RequestMeta, frozen=True):
    """What is asked of a service: `Command` and `Query` are such. Fields have types that JSON can carry."""

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Return the request in a JSON document that an outsider wrote.

        Raises StrictJSONError for what is malformed or ambiguous, RequestError for what does not fit the class: a
        wrong type, a value out of bounds (`Annotated[int, msgspec.Meta(gt=0)]`), a field that it does not have.
        """
        parse_json(data)
        try:
            return _reader(cls).decode(data)  # type: ignore[return-value]
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise RequestError(f"{cls.__qualname__} cannot be read: {error}; correct what is sent.") from error

    def to_json(self) -> bytes:
        """Return the request as JSON, checked to be readable by its own class; raises RequestError naming the field."""
        try:
            data = _encoder.encode(self)
            _reader(type(self)).decode(data)
        except (msgspec.MsgspecError, UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
            raise RequestError(
                f"{type(self).__qualname__} does not fit its class: {error}; fix the value where it is built."
            ) from error
        if len(data) > MAX_BYTES:
            raise RequestError(f"{type(self).__qualname__} is {len(data)} bytes, more than {MAX_BYTES}.")
        return data


@cache
def _reader(cls: type[Request]) -> msgspec.json.Decoder[Request]:
    try:
        described = inspect.type_info(cls)
    except (NameError, TypeError) as error:
        raise ServiceError(
            f"{cls.__qualname__}: a field's type cannot be used: {error}. Import it at module level (not under "
            "TYPE_CHECKING) and use types that JSON can carry."
        ) from error
    if (found := unreadable(described)) is not None:
        raise ServiceError(f"{cls.__qualname__}: type {found.__qualname__} cannot be read from JSON.")
    return msgspec.json.Decoder(cls)
