"""A saga as a list of steps: each asks, is confirmed or fails, and can be taken back. It becomes a class of sagas."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Struct, field

from tidings.errors import SagaDefinitionError
from tidings.events import UNDATED, Envelope, Event, Registry, decode_event, encode_event, event_type
from tidings.rows import COMPENSATING, RUNNING
from tidings.sagas.definition import Route, define
from tidings.sagas.saga import Saga

E = TypeVar("E", bound=Event)

UNDO = "undo "
"""The timer of a compensation has this and the step's name as its name."""

_TYPES = ("confirmed_by", "failed_by", "compensated_by", "compensation_failed_by")


class Fact(Struct, frozen=True):
    """An event that a saga was told, as it stands in the state: its version and its data."""

    version: str
    data: msgspec.Raw


class Facts:
    """What a saga was told so far: `facts[OrderPlaced]` is the event, in the version that this release knows."""

    def __init__(self, found: dict[str, Fact], registry: Registry) -> None:
        self._found = found
        self._registry = registry

    def get(self, cls: type[E]) -> E | None:
        """Return the event of a class, None if it has not come."""
        name = event_type(cls).name
        fact = self._found.get(name)
        if fact is None:
            return None
        envelope = Envelope(
            id="fact", source="", type=name, version=fact.version, time=UNDATED, correlation="", data=bytes(fact.data)
        )
        event = decode_event(envelope, self._registry, cls)
        assert isinstance(event, cls)
        return event

    def __getitem__(self, cls: type[E]) -> E:
        """Return the event of a class; raises KeyError if it has not come."""
        event = self.get(cls)
        if event is None:
            raise KeyError(f"this saga was not told {cls.__name__} yet; use get() for what may be missing")
        return event


Make = Callable[[Facts], Event]
"""Makes the event that asks for something, from what the saga was told."""


class Step(Struct, frozen=True, kw_only=True):
    """One step of a saga. `name` stands in the states of running sagas: keep it.

    `ask` makes the event that asks for it; `confirmed_by` and `failed_by` are the answers: it was done, or it was not
    and never will be. `within` it must be answered: after that nobody knows whether it was done, and the step itself
    is taken back too. `compensate` makes the event that takes it back (None: there is nothing to take back);
    `compensated_by` says that it was, and `compensation_failed_by` that it cannot be; without `compensated_by` the
    asking is enough. `compensate_within`: as `within`, for the answer to that; by default the same. `retired=True`: no
    saga does it any more, and those that have done it can still take it back.
    """

    name: str
    ask: Make
    confirmed_by: type[Event]
    failed_by: type[Event] | None = None
    within: timedelta | None = None
    compensate: Make | None = None
    compensated_by: type[Event] | None = None
    compensation_failed_by: type[Event] | None = None
    compensate_within: timedelta | None = None
    retired: bool = False


class Progress(Struct):
    """The state of a saga of steps. `asked`: the step under way; `undo`: the steps to take back, the first one asked.

    `done` are in the order in which they were confirmed.
    """

    facts: dict[str, Fact] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    asked: str | None = None
    undo: list[str] = field(default_factory=list)


class Plan(Struct, frozen=True):
    """What `steps` was given."""

    steps: dict[str, Step]
    completed: Make | None
    compensated: Make | None


class StepSaga(Saga[Progress]):
    """What every saga of steps does. Made by `steps`."""

    plan: ClassVar[Plan]

    @property
    def facts(self) -> Facts:
        """What the saga was told so far."""
        return Facts(self.state.facts, self._registry)

    # Reactions.

    def began(self, event: Event) -> None:
        """React to the first event: ask for the first step."""
        self._remember(event)
        self._ask_next()

    def answered(self, event: Event) -> None:
        """React to an answer, if it is the one that is waited for."""
        step = self._step(self.state.asked)
        undone = self._step(self.state.undo[0] if self.state.undo else None)
        kind = type(event)
        if self.status == RUNNING and step is not None and kind is step.confirmed_by:
            self._confirmed(step, event)
        elif self.status == RUNNING and step is not None and kind is step.failed_by:
            self._remember(event)
            self.note(f"{step.name} failed")
            self._take_back(f"{step.name} failed: {event_type(event).name}", in_doubt=False)
        elif undone is not None and kind is undone.compensated_by:
            self._remember(event)
            self._undone(undone.name)
        elif self.status == COMPENSATING and undone is not None and kind is undone.compensation_failed_by:
            self.cancel_timer(UNDO + undone.name)
            self.stuck(f"the compensation of {undone.name} failed: {event_type(event).name}")
        else:
            self.note("ignored: nobody waits for this answer any more")

    def called_off(self, event: Event) -> None:
        """React to an event that calls the whole saga off."""
        if self.status == RUNNING:
            self._remember(event)
            self._take_back(f"called off: {event_type(event).name}", in_doubt=True)
        else:
            self.note(f"ignored: the saga is {self.status}")

    def late(self, step: str) -> None:
        """React to the end of a step's time: nobody knows whether it was done."""
        self._take_back(f"{step} was not answered in time", in_doubt=True)

    def late_to_undo(self, step: str) -> None:
        """React to the end of a compensation's time."""
        self.stuck(f"the compensation of {step} was not answered in time")

    def resumed(self) -> None:
        """Ask again for the compensation on which the saga is stuck."""
        self._ask_to_undo()

    def skipped(self) -> None:
        """Go on with the next compensation: this one was done by hand."""
        self._undone(self.state.undo[0])

    def cancelled(self, reason: str) -> None:
        """Take back what was done, and what is under way."""
        if self.status == RUNNING:
            self._take_back(f"cancelled: {reason}", in_doubt=True)
        else:
            self.note(f"ignored: the saga is {self.status}")

    # Forward.

    def _confirmed(self, step: Step, event: Event) -> None:
        self._remember(event)
        self.note(f"{step.name} is done")
        self.cancel_timer(step.name)
        self.state.done.append(step.name)
        self._ask_next()

    def _ask_next(self) -> None:
        """Ask for the first step, in the order of the code, that this saga has not done."""
        done = self.state.done
        step = next((one for one in self.plan.steps.values() if not one.retired and one.name not in done), None)
        self.state.asked = step.name if step is not None else None
        if step is None:
            self._tell(self.plan.completed)
            self.complete()
            return
        self.note(f"asks for {step.name}")
        self.publish(step.ask(self.facts))
        if step.within is not None:
            self.start_timer(step.name, step.within)

    # Back.

    def _take_back(self, reason: str, *, in_doubt: bool) -> None:
        """Begin to take back what was done, the newest first; and before that the step that is in doubt."""
        asked = self.state.asked
        if asked is not None:
            self.cancel_timer(asked)
        names = [*self.state.done, *([asked] if asked is not None and in_doubt else [])]
        self.state.asked = None
        self.state.undo = [name for name in reversed(names) if self.plan.steps[name].compensate is not None]
        self.compensate(reason)
        self._ask_to_undo()

    def _ask_to_undo(self) -> None:
        """Ask for the next compensation; the saga ends where there is none."""
        self.status = COMPENSATING
        while self.state.undo:
            step = self.plan.steps[self.state.undo[0]]
            assert step.compensate is not None  # only such steps are in it
            self.note(f"takes {step.name} back")
            self.publish(step.compensate(self.facts))
            if step.compensated_by is not None:
                if (within := step.compensate_within or step.within) is not None:
                    self.start_timer(UNDO + step.name, within)
                return
            self.state.undo.pop(0)
        self._tell(self.plan.compensated)
        self.compensated()

    def _undone(self, step: str) -> None:
        self.note(f"{step} was taken back")
        self.cancel_timer(UNDO + step)
        self.state.undo.pop(0)
        self._ask_to_undo()

    # What it stands on.

    def _step(self, name: str | None) -> Step | None:
        return self.plan.steps[name] if name is not None else None

    def _remember(self, event: Event) -> None:
        declared = event_type(event)
        self.state.facts[declared.name] = Fact(declared.version, msgspec.Raw(encode_event(event)))

    def _tell(self, make: Make | None) -> None:
        if make is not None:
            self.publish(make(self.facts))

    def needs(self) -> tuple[str, ...]:
        """Return the steps that the code must have: what is under way, and what may have to be taken back."""
        asked = [self.state.asked] if self.state.asked is not None else []
        return tuple(dict.fromkeys([*self.state.undo, *self.state.done, *asked]))

    @classmethod
    def lacks(cls, needs: tuple[str, ...]) -> tuple[str, ...]:
        """Return which of these steps this release does not have."""
        return tuple(name for name in needs if name not in cls.plan.steps)


def steps(
    name: str,
    *,
    starts: type[Event],
    by: str,
    steps: Sequence[Step],
    called_off_by: Sequence[type[Event]] = (),
    completed: Make | None = None,
    compensated: Make | None = None,
) -> type[Saga[Progress]]:
    """Return a class of sagas that do the steps one after the other, and take them back in reverse when one fails.

    `starts` begins one; `by` is the field of every event that tells which saga is meant (or CORRELATION).
    `called_off_by`: events that let it take back what it has done. `completed` and `compensated` make the event that
    tells how it ended. Raises SagaDefinitionError.
    """
    plan = Plan({step.name: step for step in steps}, completed, compensated)
    _check(name, steps)
    routes: dict[type[Event], Route] = {}
    roles = [(starts, "began"), *((event, "called_off") for event in called_off_by)]
    roles += [(event, "answered") for step in steps for event in _answers(step)]
    for event, method in roles:
        if event in routes:
            raise SagaDefinitionError(
                f"Saga {name} has two uses for {event.__name__}, and could not tell which is meant: let each answer be "
                "an event of its own."
            )
        routes[event] = Route(method, by, method == "began")
    body: dict[str, Any] = {"plan": plan, "__doc__": f"The saga {name}, of steps."}
    timers: dict[str, str] = {}
    for number, step in enumerate(steps):
        timers[step.name], timers[UNDO + step.name] = f"late_{number}", f"late_to_undo_{number}"
        body[f"late_{number}"] = lambda self, step=step: self.late(step.name)
        body[f"late_to_undo_{number}"] = lambda self, step=step: self.late_to_undo(step.name)
    cls: Any = type("".join(word.title() for word in name.replace("-", ".").split(".")) + "Saga", (StepSaga,), body)
    cls.__saga__ = define(name, 1, Progress, routes, timers, {})
    found: type[Saga[Progress]] = cls
    return found


def _answers(step: Step) -> list[type[Event]]:
    return [event for event in (getattr(step, name) for name in _TYPES) if event is not None]


def _check(saga: str, steps: Sequence[Step]) -> None:
    """Raise SagaDefinitionError for steps that cannot work."""
    names = [step.name for step in steps]
    if not steps:
        raise SagaDefinitionError(f"Saga {saga} has no steps: give it at least one Step(…).")
    for step in steps:
        if not step.name.isprintable() or not step.name or step.name.startswith(UNDO) or names.count(step.name) > 1:
            raise SagaDefinitionError(f"Saga {saga}: a step cannot be named {step.name!r}, or two are: rename one.")
        if step.compensate is None and (step.compensated_by or step.compensation_failed_by):
            raise SagaDefinitionError(f"Step {step.name} of saga {saga} is never taken back: give it compensate=…")
        if step.compensation_failed_by is not None and step.compensated_by is None:
            raise SagaDefinitionError(
                f"Step {step.name} of saga {saga} waits for a failed compensation only: give compensated_by=… too."
            )
        for limit in (step.within, step.compensate_within):
            if limit is not None and limit <= timedelta(0):
                raise SagaDefinitionError(
                    f"Step {step.name} of saga {saga} has no time: give within a positive length."
                )


__all__ = ["Facts", "Progress", "Step", "StepSaga", "steps"]
