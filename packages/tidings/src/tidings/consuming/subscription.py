"""Which handler wants which events: what a subscription declares, and the shape its parameters tell."""

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from tidings.consuming.executor import Executor
from tidings.consuming.retry import RetryPolicy
from tidings.consuming.work import SyncWork, Work
from tidings.errors import HandlerError, ServiceError
from tidings.events import Event, event_type
from tidings.publishing.transaction import SyncTransaction, Transaction

Handler = Callable[..., Any]
Start = Literal["now", "beginning"] | datetime

TRANSACTION, WORK, RELAY, PROJECTION = "transaction", "work", "relay", "projection"
"""Kinds of subscriptions: effects inside the settling transaction, outside it, carried to a transport, or a version of
a projection's read model."""

_SHAPES: dict[Any, tuple[str, bool]] = {
    Transaction: (TRANSACTION, True),
    SyncTransaction: (TRANSACTION, False),
    Work: (WORK, True),
    SyncWork: (WORK, False),
}


class Projected(Protocol):
    """The version of a projection that a subscription keeps."""

    name: str
    version: int
    inline: bool
    stops: bool

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of its tables, as the database has them."""

    async def apply(self, events: Sequence[Event], transaction: Transaction, times: Sequence[int]) -> None:
        """Hand events, in order, to their handlers; `times` of publishing in microseconds. Raises what they raise."""


@dataclass(frozen=True)
class Subscription:
    """A named consumer of some events. Made by `Service.subscribe`; `kind` and `is_async` follow from the handler.

    `as_logged`: ordered, and content with the order in which a transport's messages have landed. `version` is the
    store's: another one for each time that the name was forgotten and declared again.
    """

    name: str
    events: tuple[type[Event], ...]
    handler: Handler
    kind: str
    is_async: bool
    takes_second: bool
    ordered: bool = False
    as_logged: bool = False
    concurrency: int = 20
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    time_limit: timedelta | None = None
    after_dead: Literal["block", "continue"] = "block"
    pause_after: int | None = 20
    start: Start = "now"
    renamed_from: str | None = None
    executor: Executor | None = None
    version: int = 1
    projection: Projected | None = None

    @property
    def author(self) -> str:
        """What the ids of its outgoing events derive from: a name that comes again publishes other facts."""
        return self.name if self.version == 1 else f"{self.name}\n{self.version}"  # no name holds a line's end

    @property
    def types(self) -> tuple[str, ...]:
        """Wire names of the events, sorted."""
        return tuple(sorted({event_type(cls).name for cls in self.events}))


def check_options(name: str, concurrency: int, start: Start, after_dead: str, pause_after: int | None) -> None:
    """Raise ServiceError for options that make no sense."""
    if not name or name.startswith("*") or not name.isprintable() or len(name) > 200:
        raise ServiceError(f"A subscription cannot be named {name!r}: use up to 200 printable characters.")
    if concurrency < 1:
        raise ServiceError(f"Subscription {name}: concurrency={concurrency}; at least one handler runs at a time.")
    if start not in ("now", "beginning") and not isinstance(start, datetime):
        raise ServiceError(f'Subscription {name}: start={start!r}; use "now", "beginning" or an aware datetime.')
    if isinstance(start, datetime) and start.utcoffset() is None:
        raise ServiceError(f"Subscription {name}: start={start!r} has no time zone; pass an aware datetime.")
    if after_dead not in ("block", "continue"):
        raise ServiceError(f'Subscription {name}: after_dead={after_dead!r}; use "block" or "continue".')
    if pause_after is not None and pause_after < 1:
        raise ServiceError(f"Subscription {name}: pause_after={pause_after}; use a number from 1, or None for never.")


def shape_of(
    name: str, handler: Handler, events: tuple[type[Event], ...], executor: Executor | None = None
) -> tuple[str, bool, bool]:
    """Return a handler's kind, whether it is async, and whether it takes a second parameter.

    With an executor a handler of the event alone, or of the event and the executor's hand, is a Transaction handler.
    Raises HandlerError when its parameters do not fit, or a hint cannot be resolved.
    """
    parameters = list(inspect.signature(handler).parameters.values())
    if not 1 <= len(parameters) <= 2:
        raise HandlerError(
            f"{_place(name, handler)} takes {len(parameters)} parameters: (event) or (event, tx or work)."
        )
    is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
    if executor is not None and executor.is_async != is_async:
        raise HandlerError(
            f"{_place(name, handler)} is {'async' if is_async else 'a plain function'}, which its executor does not "
            f"run: write it as {'a plain function' if is_async else 'async def'}."
        )
    hints = _hints(name, handler)
    _check_event_hint(name, handler, hints.get(parameters[0].name), events)
    if len(parameters) == 1:
        return WORK if executor is None else TRANSACTION, is_async, False
    hint: Any = hints.get(parameters[1].name)
    if executor is not None and _class_of(hint) in executor.hands:
        return TRANSACTION, is_async, True
    if hint not in _SHAPES:
        raise HandlerError(
            f"{_place(name, handler)}: parameter {parameters[1].name!r} has the hint {hint!r}; annotate it with "
            f"Transaction (database work inside the transaction) or Work (slow or outside work){_or_hand(executor)}."
        )
    kind, wants_async = _SHAPES[hint]
    if wants_async != is_async:
        right = {TRANSACTION: ("SyncTransaction", "Transaction"), WORK: ("SyncWork", "Work")}[kind][is_async]
        raise HandlerError(
            f"{_place(name, handler)} is {'async' if is_async else 'a plain function'}, so its second parameter is "
            f"a {right}, not a {hint.__name__}."
        )
    return kind, is_async, True


def second_hint(name: str, handler: Handler) -> Any:
    """Return the class by which a handler's second parameter is hinted."""
    second = list(inspect.signature(handler).parameters.values())[1]
    return _class_of(_hints(name, handler).get(second.name))


def _class_of(hint: Any) -> Any:
    return typing.get_origin(hint) or hint  # Connection[Any] asks for a Connection


def _or_hand(executor: Executor | None) -> str:
    return f", or with {executor.hands[0].__name__} of its executor" if executor is not None and executor.hands else ""


def _hints(name: str, handler: Handler) -> dict[str, Any]:
    target = handler if inspect.isroutine(handler) else getattr(handler, "func", None) or type(handler).__call__
    try:
        return typing.get_type_hints(target)
    except NameError as error:
        raise HandlerError(
            f"{_place(name, handler)}: the hint {error.name!r} is not there at run time. Import it outside "
            "`if TYPE_CHECKING:`, because the shape of a handler is read from its hints."
        ) from error


def _check_event_hint(name: str, handler: Handler, hint: Any, events: tuple[type[Event], ...]) -> None:
    hinted = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if not all(isinstance(one, type) and issubclass(one, Event) for one in hinted):
        return  # no hint, or one that is not about events: nothing to compare
    for event in events:
        if not issubclass(event, tuple(hinted)):
            raise HandlerError(
                f"{_place(name, handler)} subscribes to {event.__name__}, but its event parameter is hinted as "
                f"{' | '.join(one.__name__ for one in hinted)}: let the two agree."
            )


def _place(name: str, handler: Handler) -> str:
    return f"Subscription {name} ({getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', handler)})"
