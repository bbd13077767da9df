"""Given these events, when this is asked for, then that happens: tests of deciders and aggregates without a store."""

import re
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from tidings.events import Event
from tidings.sourcing.aggregate import Aggregate
from tidings.sourcing.decider import Decider

A = TypeVar("A", bound=Aggregate)
C = TypeVar("C")
E = TypeVar("E", bound=Event)
S = TypeVar("S")


def given(what: "Decider[C, S, E] | type[A]", *events: Event) -> "Given":
    """Begin with what has happened: `given(account, AccountCreated()).when(Withdraw(50)).then_raises(RefusedError)`.

    `what` is a decider, whose commands follow in `when`, or an aggregate class, of which a method is called there:
    `given(Account, AccountCreated()).when(lambda account: account.withdraw(50))`.
    """
    decider: Decider[Any, Any, Any] = what.decider() if isinstance(what, type) else what
    return Given(decider, events)


class Given:
    """What has happened so far."""

    def __init__(self, decider: Decider[Any, Any, Any], events: Sequence[Event]) -> None:
        self._decider = decider
        self._events = events

    @property
    def state(self) -> Any:
        """The state that the events add up to."""
        return self._decider.after(self._decider.initial(), self._events)

    def when(self, command: Any) -> "Outcome[Any]":
        """Ask for something; whatever `decide` raises is kept for `then_raises`."""
        try:
            events = list(self._decider.decide(command, self.state))
        except Exception as error:
            return Outcome(self._decider, self._events, [], error)
        return Outcome(self._decider, self._events, events, None)


class Outcome(Generic[S]):
    """What came of it. Each `then` raises AssertionError with what happened instead."""

    def __init__(
        self,
        decider: Decider[Any, S, Any],
        before: Sequence[Event],
        events: Sequence[Event],
        error: Exception | None,
    ) -> None:
        self._decider = decider
        self._before = before
        self._events = events
        self._error = error

    def then(self, *events: Event) -> "Outcome[S]":
        """Expect exactly these events, in this order."""
        if self._error is not None:
            raise AssertionError(f"expected {_told(events)}, but decide() raised {self._error!r}") from self._error
        if list(events) != list(self._events):
            raise AssertionError(f"expected {_told(events)}, but it decided {_told(self._events)}")
        return self

    def then_nothing_happened(self) -> "Outcome[S]":
        """Expect that the command is fine, and changes nothing."""
        return self.then()

    def then_raises(self, error: type[Exception], match: str = "") -> None:
        """Expect that the command is refused with an error, in whose text `match` (a pattern) is found."""
        if self._error is None:
            raise AssertionError(f"expected {error.__name__}, but it decided {_told(self._events)}")
        if not isinstance(self._error, error) or not re.search(match, str(self._error)):
            expected = f"{error.__name__} with {match!r}" if match else error.__name__
            raise AssertionError(f"expected {expected}, but decide() raised {self._error!r}") from self._error

    def then_state(self, state: S) -> "Outcome[S]":
        """Expect the state after what was decided."""
        found = self._decider.after(self._decider.initial(), [*self._before, *self._events])
        if found != state:
            raise AssertionError(f"expected the state {state!r}, but it is {found!r}")
        return self


def _told(events: Sequence[Event]) -> str:
    return ", ".join(map(repr, events)) or "no events"
