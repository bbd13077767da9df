"""Who obeys a command: a decider, a function on an aggregate, or one in a transaction, as its hints tell."""

import inspect
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from tidings.errors import HandlerError
from tidings.publishing.appending import check_stream
from tidings.publishing.transaction import Transaction
from tidings.sourcing.aggregate import Aggregate
from tidings.sourcing.command import Command
from tidings.sourcing.decider import Decider


class CommandHandler(Struct, frozen=True):
    """Who obeys some commands: a decider, a function on an aggregate (`decider` is its), or one in a transaction."""

    name: str
    retries: int
    call: Callable[..., Any] | None = None
    decider: Decider[Any, Any, Any] | None = None

    def stream_of(self, command: Command) -> str | None:
        """Return the stream that a command is about; raises ServiceError if neither says, and there must be one."""
        stream = command.about if self.decider is None else self.decider.stream_of(command)
        if stream is not None:
            check_stream(stream)
        return stream

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
