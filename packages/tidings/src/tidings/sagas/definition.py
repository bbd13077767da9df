"""What a saga's class declares, collected once: which event concerns which method, its timers, its state."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from tidings.errors import SagaDefinitionError
from tidings.events import INTERNAL, Event, event_type

SIGNALS = f"{INTERNAL}saga."
"""How the wire names of signals begin."""

CORRELATION = "*correlation"
"""`by=CORRELATION`: the envelope's correlation tells which saga is meant."""

MARK = "__tidings_saga__"
"""Attribute of a method that says what it reacts to."""

TIMER, RESUME, SKIP, CANCEL = "timer", "resume", "skip", "cancel"
"""Kinds of signals: a timer that is due, and what an operator asks."""

StateUpcast = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the JSON object of a state in version n, returns that in n + 1."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)*")


class Mark(Struct, frozen=True):
    """What one method reacts to."""

    events: tuple[type[Event], ...] = ()
    by: str | None = None
    starts: bool = False
    timer: str | None = None
    upcasts: int | None = None


class Signal(Event, abstract=True):
    """What a saga tells itself later (a timer), or an operator tells it. It stays on its log."""

    saga_id: str
    kind: str
    name: str = ""
    actor: str = ""
    reason: str = ""


class Route(Struct, frozen=True):
    """Where an event goes: the method, the field that tells which saga is meant, and whether it begins one."""

    method: str
    by: str
    starts: bool


class Definition(Struct, frozen=True):
    """A saga as the library sees it. `routes`: by event type; `timers`: by name."""

    name: str
    version: int
    state: type[Struct]
    reader: msgspec.json.Decoder[Any]
    events: tuple[type[Event], ...]
    routes: Mapping[str, Route]
    timers: Mapping[str, str]
    signal: type[Signal]
    upcasts: Mapping[int, StateUpcast] = field(default_factory=dict)


def define(
    name: str,
    version: int,
    state: type[Struct],
    routes: Mapping[type[Event], Route],
    timers: Mapping[str, str],
    upcasts: Mapping[int, StateUpcast],
) -> Definition:
    """Check and return a definition; raises SagaDefinitionError."""
    if not _NAME.fullmatch(name) or len(name) > 100:
        raise SagaDefinitionError(
            f'A saga cannot be named {name!r}: use lower-case words joined by dots, such as "shop.order".'
        )
    if not any(route.starts for route in routes.values()):
        raise SagaDefinitionError(f"Saga {name} never begins: mark one of its methods with @starts(TheFirstEvent).")
    for version_to_be in range(1, version):
        if version_to_be not in upcasts:
            raise SagaDefinitionError(
                f"Saga {name} is at version {version}, and a state of version {version_to_be} cannot be read: add a "
                f"function with @upcasts({version_to_be})."
            )
    for cls, route in routes.items():
        if route.by != CORRELATION and route.by not in cls.__struct_fields__:
            raise SagaDefinitionError(
                f"Saga {name} finds itself by the field {route.by!r}, which {cls.__name__} does not have: give the "
                'field of this event, @on(…, by="…").'
            )
    return Definition(
        name=name,
        version=version,
        state=state,
        reader=msgspec.json.Decoder(state),
        events=tuple(routes),
        routes={event_type(cls).name: route for cls, route in routes.items()},
        timers=dict(timers),
        signal=_signal(name),
        upcasts=dict(upcasts),
    )


def _signal(name: str) -> type[Signal]:
    """Return the event class of one saga's signals: a type of its own, so that only this saga reads them."""
    make: Any = type(Event)
    fields = {"__module__": __name__, "__doc__": f"A signal to a saga {name}."}
    signal: type[Signal] = make("SagaSignal", (Signal,), fields, name=SIGNALS + name, version=1, key="saga_id")
    return signal


def collect(cls: type, name: str, by: str | None, version: int, state: type[Struct]) -> Definition:
    """Return what the marks on a class's methods declare; raises SagaDefinitionError."""
    routes: dict[type[Event], Route] = {}
    timers: dict[str, str] = {}
    upcasts: dict[int, StateUpcast] = {}
    for method in dir(cls):
        mark = getattr(getattr(cls, method), MARK, None)
        if not isinstance(mark, Mark):
            continue
        if mark.timer is not None:
            _once(name, timers, mark.timer, method, f"timer {mark.timer!r}")
        elif mark.upcasts is not None:
            upcasts[mark.upcasts] = getattr(cls, method)
        for event in mark.events:
            where = mark.by or by
            if where is None:
                raise SagaDefinitionError(f'Saga {name} does not say which saga an event is for: add by="order_id".')
            _once(name, routes, event, Route(method, where, mark.starts), event.__name__)
    return define(name, version, state, routes, timers, upcasts)


def _once(saga: str, found: dict[Any, Any], key: Any, value: Any, what: str) -> None:
    if key in found:
        raise SagaDefinitionError(f"Two methods of saga {saga} react to {what}: let one of them do so.")
    found[key] = value
