"""Command: what is asked for, with the stream that it is about; and what came of it."""

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, dataclass_transform

import msgspec
from msgspec import Struct

from tidings.errors import HandlerError, ServiceError
from tidings.events import Envelope, Event, Registry, Request, RequestMeta, decode_event
from tidings.publishing.appending import check_stream
from tidings.publishing.transaction import Transaction
from tidings.sourcing.aggregate import Aggregate
from tidings.sourcing.decider import Decider

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


class CommandHandler(Struct, frozen=True):
    """Who obeys some commands: a decider, a function on an aggregate (`decider` is its), or one in a transaction."""

    name: str
    retries: int
    call: Callable[..., Any] | None = None
    decider: Decider[Any, Any, Any] | None = None

    def stream_of(self, command: Command) -> str | None:
        """Return the stream that a command is about; raises ServiceError if neither says, and there must be one."""
        stream = command.about
        if stream is None and self.decider is not None:
            stream = self._named(self.decider, command)
        if stream is not None:
            check_stream(stream)
        return stream

    def _named(self, decider: Decider[Any, Any, Any], command: Command) -> str:
        if decider.stream is None:
            raise ServiceError(
                f"Which stream is {type(command).__name__} about? Declare it: class {type(command).__name__}(Command, "
                'stream="account-{account}"), with its fields in braces.'
            )
        return decider.stream_of(command)

    def asked(self, command: Command) -> Any:
        """Return what the decider decides on."""
        return command if self.call is None else partial(self.call, command)

    def resolved(self, commands: Sequence[type[Command]]) -> "CommandHandler":
        """Return it with the shape that the function's hints tell; raises HandlerError."""
        if self.call is None or self.decider is not None:
            return self
        second = self._second(self.call, commands)
        is_async = inspect.iscoroutinefunction(self.call)
        if second is Transaction and is_async:
            return self
        if isinstance(second, type) and issubclass(second, Aggregate) and not is_async:
            return msgspec.structs.replace(self, decider=second.decider())
        raise HandlerError(
            f"Command handler {self.name}: write `async def {self.name}(command, tx: Transaction)`, or a plain "
            f"`def {self.name}(command, account: Account)` whose second parameter is an Aggregate class."
        )

    def _second(self, call: Callable[..., Any], commands: Sequence[type[Command]]) -> Any:
        parameters = list(inspect.signature(call).parameters.values())
        try:
            hints = typing.get_type_hints(call)
        except NameError as error:
            raise HandlerError(
                f"Command handler {self.name}: the hint {error.name!r} is not there at run time. Import it outside "
                "`if TYPE_CHECKING:`."
            ) from error
        if len(parameters) != 2:
            return None
        hint = hints.get(parameters[0].name)
        hinted = typing.get_args(hint) or (hint,)
        if all(isinstance(one, type) and issubclass(one, Command) for one in hinted):
            for cls in commands:
                if not issubclass(cls, hinted):
                    raise HandlerError(
                        f"Command handler {self.name} handles {cls.__name__}, but its first parameter is hinted as "
                        f"{' | '.join(one.__name__ for one in hinted)}: let the two agree."
                    )
        return hints.get(parameters[1].name)
