"""A saga as its author declares it: a class with a state, and what it does when an event comes. It only decides."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar, get_args

import msgspec
from msgspec import Struct

from tidings.errors import SagaDefinitionError
from tidings.events import Event, Registry
from tidings.rows import COMPENSATED, COMPENSATING, COMPLETED, RUNNING, STUCK
from tidings.sagas.definition import CORRELATION, MARK, Definition, Mark, StateUpcast, collect
from tidings.world import microseconds

S = TypeVar("S", bound=Struct)
H = TypeVar("H", bound=Callable[..., Any])


def starts(*events: type[Event], by: str | None = None) -> Callable[[H], H]:
    """Let events begin a saga of this class; `by` names the field that tells which, else the class's does."""
    return _marking(Mark(events=events, by=by, starts=True))


def on(*events: type[Event], by: str | None = None) -> Callable[[H], H]:
    """Let a method react to events for a saga that has begun; `by` names the field that tells which one."""
    return _marking(Mark(events=events, by=by))


def on_timer(name: str) -> Callable[[H], H]:
    """Let a method react when the timer of this name is due."""
    return _marking(Mark(timer=name))


def upcasts(from_version: int) -> Callable[[StateUpcast], StateUpcast]:
    """Mark the pure function that turns the JSON of the state's version into that of the next one."""

    def mark(function: StateUpcast) -> StateUpcast:
        setattr(getattr(function, "__func__", function), MARK, Mark(upcasts=from_version))  # of a static method
        return function

    return mark


def _marking(mark: Mark) -> Callable[[H], H]:
    def apply(handler: H) -> H:
        setattr(handler, MARK, mark)
        return handler

    return apply


class Saga(Generic[S]):
    """One flow over several services. Subclass it with its state, and give it to `Service.saga`::

        class Trip(Saga[TripState], name="trip", by="trip_id"):
            @starts(TripAsked)
            def begin(self, event: TripAsked) -> None:
                self.publish(BookHotel(trip_id=event.trip_id))
                self.start_timer("hotel", timedelta(hours=1))

    Class keywords: `name` (lower-case words joined by dots), `by` (the field of its events that tells which saga is
    meant, or CORRELATION for the envelope's), `version` (of the state; an older one goes through `@upcasts`).
    Handlers are plain methods: they read `state`, `id` and `now`, and say what shall happen. They may run again when
    another process was faster, so they touch nothing else.
    """

    __saga__: ClassVar[Definition]

    def __init_subclass__(
        cls, *, name: str | None = None, by: str | None = None, version: int = 1, **options: Any
    ) -> None:
        """Read the declaration; raises SagaDefinitionError. A class without `name` is for subclassing."""
        super().__init_subclass__(**options)
        if name is not None:
            cls.__saga__ = collect(cls, name, by, version, _state_of(cls))

    def __init__(self, id: str, now: datetime, status: str, timers: dict[str, str], registry: Registry) -> None:
        self.id = id
        self.now = now
        self.state: S
        self.status = status
        self.reason: str | None = None
        self.published: list[tuple[Event, datetime | None]] = []
        self.timers: dict[str, str | int] = dict(timers)
        self.notes: list[str] = []
        self._registry = registry

    # What a handler may say.

    def publish(self, event: Event, *, delay: timedelta | None = None) -> None:
        """Publish an event when the state is saved, or `delay` later."""
        self.published.append((event, None if delay is None else self.now + delay))

    def start_timer(self, name: str, after: timedelta) -> None:
        """Let `@on_timer(name)` run after a time, once; one of this name that runs already is started anew.

        A timer ends with its saga.
        """
        if name not in self.__saga__.timers:
            raise SagaDefinitionError(
                f"Saga {self.__saga__.name} starts the timer {name!r}, and nothing reacts to it: add "
                f'@on_timer("{name}") to a method.'
            )
        self.timers[name] = microseconds(self.now + after)

    def cancel_timer(self, name: str) -> None:
        """End a timer, if it runs: it will not fire any more, also if it is due at this moment."""
        self.timers.pop(name, None)

    def complete(self) -> None:
        """End the saga: it has done what it was for."""
        self.status = COMPLETED

    def compensate(self, reason: str) -> None:
        """Say that the saga takes back what was done, and why."""
        self.status, self.reason = COMPENSATING, reason

    def compensated(self) -> None:
        """End the saga: what it had done is taken back."""
        self.status = COMPENSATED

    def stuck(self, reason: str) -> None:
        """Say that the saga cannot go on by itself; an operator sees it, and lets it go on."""
        self.status, self.reason = STUCK, reason

    def note(self, text: str) -> None:
        """Add a line to what `tidings saga show` tells of this event."""
        self.notes.append(text)

    # What an operator may ask. A subclass says what that means for it.

    def resumed(self) -> None:
        """React to `tidings saga resume`: go on where the saga was stuck."""
        self.status, self.reason = RUNNING, None

    def skipped(self) -> None:
        """React to `tidings saga skip`: what the saga is stuck on was done by hand."""
        self.resumed()

    def cancelled(self, reason: str) -> None:
        """React to `tidings saga cancel`: take back what was done. By default nothing happens."""
        self.note(f"ignored: this saga does not say how it is cancelled ({reason})")

    # What a subclass of the library says of itself.

    def needs(self) -> tuple[str, ...]:
        """Return the names of steps that the code must still have for this saga to go on."""
        return ()

    @classmethod
    def lacks(cls, needs: tuple[str, ...]) -> tuple[str, ...]:
        """Return which of the names this release does not have."""
        return ()


def _state_of(cls: type[Saga[Any]]) -> type[Struct]:
    """Return the class between the brackets of `Saga[…]`; raises SagaDefinitionError."""
    for one in cls.__mro__:
        for parent in getattr(one, "__orig_bases__", ()):
            found = get_args(parent)
            if found and isinstance(found[0], type) and issubclass(found[0], Struct):
                return found[0]
    raise SagaDefinitionError(
        f"Saga class {cls.__qualname__} does not say what its state is: write class {cls.__name__}(Saga[TripState], …) "
        "where TripState is a msgspec.Struct."
    )


def fresh_state(definition: Definition) -> Any:
    """Return the state of a new saga, or None where its fields have no defaults and the first handler sets it."""
    try:
        return definition.state()
    except TypeError:
        return None


def as_json(definition: Definition, state: Any) -> bytes:
    """Return a state as JSON; raises SagaDefinitionError for one that its own class could not read back."""
    try:
        data = msgspec.json.encode(state)
        definition.reader.decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise SagaDefinitionError(
            f"The state of saga {definition.name} cannot be saved: {error}. Set self.state to a "
            f"{definition.state.__name__} whose fields have the types that it declares."
        ) from error
    return data


__all__ = ["CORRELATION", "Saga", "as_json", "fresh_state", "on", "on_timer", "starts", "upcasts"]
