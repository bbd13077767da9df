"""Aggregate: a decider for those who like methods. They check and record; `apply` alone changes the state."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

from msgspec import Struct

from tidings.events import Event
from tidings.sourcing.decider import Decider
from tidings.sourcing.snapshot import Snapshots

A = TypeVar("A", bound="Aggregate")


class Aggregate(Struct, dict=True):
    """One entity: fields with defaults (the state before any event), methods that `record` events, and `apply`::

        class Account(Aggregate):
            events = (AccountCreated, MoneyDeposited)
            balance: int = 0

            def deposit(self, cents: int) -> None:
                self.record(MoneyDeposited(cents=cents))

            def apply(self, event: Event) -> None:
                match event:
                    case MoneyDeposited():
                        self.balance += event.cents

    `events` are the classes that its streams hold. `snapshot_every`: so often the state is kept; `state_version` is
    counted up when the fields, or what `apply` does, change.
    """

    events: ClassVar[tuple[type[Event], ...]] = ()
    snapshot_every: ClassVar[int | None] = None
    state_version: ClassVar[int] = 1

    def apply(self, event: Event) -> None:
        """Change the state by what has happened; never refuse it. Subclasses say how."""
        raise NotImplementedError(f"{type(self).__qualname__} needs apply(self, event).")

    def record(self, event: Event) -> None:
        """Say that something happens: it is applied at once, and appended when the method's caller is done."""
        self.apply(event)
        self.__dict__.setdefault("recorded", []).append(event)

    @classmethod
    def decider(cls) -> Decider[Callable[[Self], object], Self, Event]:
        """Return the decider that this class is: its commands are calls of its methods."""
        return _decider_of(cls)


@cache
def _decider_of(cls: type[A]) -> Decider[Callable[[A], object], A, Event]:
    every = cls.snapshot_every
    return Decider(
        name=cls.__name__,
        initial=cls,
        decide=_recorded_by,
        evolve=_applied,
        events=cls.events,
        snapshots=Snapshots(cls, every, cls.state_version) if every is not None else None,
    )


def _recorded_by(command: Callable[[A], object], aggregate: A) -> list[Event]:
    # On a copy: what is decided becomes state only once it is appended.
    copy = deepcopy(aggregate)
    command(copy)
    recorded: list[Any] = copy.__dict__.get("recorded", [])
    return recorded


def _applied(aggregate: A, event: Event) -> A:
    aggregate.apply(event)
    return aggregate
