"""Command: what is asked for, with the stream that it is about; and what came of it."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, dataclass_transform

import msgspec

from tidings.errors import ServiceError
from tidings.events import Envelope, Event, Registry, Request, RequestMeta, decode_event

_FIELD = re.compile(r"\{(\w*)\}")


class CommandMeta(RequestMeta):
    """Reads the class keyword of commands."""

    def __new__(
        mcls,
        class_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        stream: str | None = None,
        frozen: Literal[True] = True,
        **unknown: object,
    ) -> "CommandMeta":
        """Create the class; raises ServiceError."""
        cls: Any = super().__new__(mcls, class_name, bases, namespace, frozen=frozen, **unknown)
        if stream is not None:
            for field in _FIELD.findall(stream):
                if field not in cls.__struct_fields__:
                    raise ServiceError(
                        f"Command {class_name}: stream={stream!r} names {{{field}}}, which is no field; there are "
                        f"{', '.join(cls.__struct_fields__) or 'none'}."
                    )
            cls.__stream__ = stream
        return cls  # type: ignore[no-any-return]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Command(Request, metaclass=CommandMeta, frozen=True):
    """A request to change something, which may be refused. Subclass it with typed fields::

        class Withdraw(Command, stream="account-{account}"):
            account: str
            amount: Annotated[int, Meta(gt=0)]

    `stream` names the stream that a command is about, with fields in braces; leave it out where there is none.
    """

    __stream__: ClassVar[str | None] = None

    @property
    def about(self) -> str | None:
        """The stream that this command is about, None if its class names none."""
        template = type(self).__stream__
        if template is None:
            return None
        return _FIELD.sub(lambda found: str(getattr(self, found[1])), template)


class Executed:
    """What came of a command: its events, and the version of its stream after them.

    `repeated`: a command with this `id` had been executed before, and these are the events that it made then.
    """

    def __init__(
        self,
        id: str,
        stream: str | None,
        version: int,
        envelopes: Sequence[Envelope],
        registry: Registry,
        *,
        repeated: bool = False,
    ) -> None:
        self.id = id
        self.stream = stream
        self.version = version
        self.envelopes = tuple(envelopes)
        self.repeated = repeated
        self._registry = registry

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """The events, none where nothing has changed; raises UnknownEventTypeError for one that is not registered."""
        return tuple(decode_event(envelope, self._registry) for envelope in self.envelopes)

    def __repr__(self) -> str:
        """Tell what was done."""
        types = ", ".join(envelope.type for envelope in self.envelopes) or "nothing"
        return f"Executed({self.id!r}, stream={self.stream!r}, version={self.version}, {types})"
