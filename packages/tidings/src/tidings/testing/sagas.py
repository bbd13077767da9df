"""Given, when, then for sagas: what a saga decides, without a store, a loop or a wait."""

from datetime import datetime, timedelta
from typing import Generic, Self, TypeVar

from msgspec import Struct

from tidings.events import Envelope, Event, Registry, derive_id, encode_event, event_type, key_of
from tidings.rows import SagaRow
from tidings.sagas.definition import CANCEL, RESUME, SKIP, TIMER
from tidings.sagas.reacting import Happening, Timer, react
from tidings.sagas.saga import Saga
from tidings.testing.harness import START

S = TypeVar("S", bound=Struct)

SOURCE = "test"
"""The service whose saga it is."""


class SagaTest(Generic[S]):
    """One saga in a test: `given` events, `when` one more comes (or time passes), look at what it said.

    After `when`, `wait` or `operator`: `published` holds the events it published by that, `timers` every timer that
    runs and how long until it is due, `state` and `status` what the saga is. `registry`: where older versions of
    events are to be upcast.
    """

    def __init__(self, saga: type[Saga[S]], *, start: datetime = START, registry: Registry | None = None) -> None:
        self._saga = saga
        self._registry = registry or Registry()
        for event in saga.__saga__.events:
            self._registry.register(event)
        self._row: SagaRow | None = None
        self._due: dict[str, Timer] = {}
        self._count = 0
        self.now = start
        self.published: list[Event] = []

    # Given, when.

    def given(self, *events: Event, correlation: str = "test") -> Self:
        """Let events have come before."""
        for event in events:
            self.when(event, correlation=correlation)
        return self

    def when(self, event: Event, *, correlation: str = "test") -> Self:
        """Let an event come."""
        self.published = []
        self._react(event, self._fresh_id(), correlation)
        return self

    def wait(self, by: timedelta) -> Self:
        """Let time pass; timers that are due meanwhile fire, the earliest first."""
        self.published = []
        until = self.now + by
        while due := [timer for timer in self._due.values() if timer.due <= until]:
            timer = min(due, key=lambda one: one.due)
            self.now = max(self.now, timer.due)
            self._signal(TIMER, timer.name, timer.id)
        self.now = until
        return self

    def resumed(self) -> Self:
        """Let an operator resume the saga."""
        return self._operate(RESUME)

    def skipped(self) -> Self:
        """Let an operator say that what the saga is stuck on was done by hand."""
        return self._operate(SKIP)

    def cancelled(self, reason: str = "test") -> Self:
        """Let an operator cancel the saga."""
        return self._operate(CANCEL, reason)

    # Then.

    @property
    def status(self) -> str | None:
        """What the saga is; None if none has begun."""
        return self._row.status if self._row is not None else None

    @property
    def reason(self) -> str | None:
        """Why the saga takes things back, or is stuck."""
        return self._row.reason if self._row is not None else None

    @property
    def state(self) -> S:
        """The state as it was saved: read back from its JSON."""
        assert self._row is not None, "no saga has begun"
        state: S = self._saga.__saga__.reader.decode(self._row.state)
        return state

    @property
    def timers(self) -> dict[str, timedelta]:
        """The timers that run, and how long until each is due."""
        return {timer.name: timer.due - self.now for timer in self._due.values()}

    @property
    def journal(self) -> list[str]:
        """What `tidings saga show` tells of each event so far."""
        return [note.text for note in self._row.journal] if self._row is not None else []

    # What it stands on.

    def _operate(self, kind: str, reason: str = "test") -> Self:
        self.published = []
        self._signal(kind, "", self._fresh_id(), reason)
        return self

    def _signal(self, kind: str, name: str, event_id: str, reason: str = "") -> None:
        assert self._row is not None, "no saga has begun"
        signal = self._saga.__saga__.signal
        event = signal(saga_id=self._row.id, kind=kind, name=name, actor="test", reason=reason)
        self._react(event, event_id, "test")

    def _react(self, event: Event, event_id: str, correlation: str) -> None:
        declared = event_type(event)
        envelope = Envelope(
            id=event_id, source=SOURCE, type=declared.name, version=declared.version, time=self.now,
            correlation=correlation, key=key_of(event) if declared.key else None, data=encode_event(event),
        )  # fmt: skip

        def signal_id(name: str) -> str:
            return derive_id(SOURCE, event_id, name, 0)

        happening = Happening(event, envelope, self.now, SOURCE, signal_id)
        reaction = react(self._saga, self._row, happening, self._registry, timedelta(days=30))
        if reaction is None:
            return
        self._row = reaction.row
        self.published += [published for published, _ in reaction.published]
        self._due = {id: timer for id, timer in self._due.items() if id not in reaction.cancelled and id != event_id}
        self._due |= {timer.id: timer for timer in reaction.timers}

    def _fresh_id(self) -> str:
        self._count += 1
        return f"event-{self._count}"
