"""Registry: which class reads which event type and version, and the upcasters between versions."""

from collections.abc import Callable

from tidings.errors import EventDefinitionError, NoUpcasterError
from tidings.events.event import Event, event_type, reader
from tidings.events.upcasting import Upcaster, UpcastFunction


class Registry:
    """The event classes and upcasters of one service."""

    def __init__(self) -> None:
        self._classes: dict[str, dict[int, type[Event]]] = {}
        self._upcasters: dict[tuple[str, int], Upcaster] = {}

    def register(self, cls: type[Event]) -> None:
        """Add an event class; the same class may come twice.

        Raises EventDefinitionError when another class has its name and major version, when another version
        has another key, or when a field's type cannot be read from JSON.
        """
        declared = event_type(cls)
        reader(cls)
        versions = self._classes.get(declared.name, {})
        known = versions.get(declared.major)
        if known is not None and known is not cls:
            raise EventDefinitionError(
                f"{_place(cls)} and {_place(known)} are both {declared.name} version {declared.major}; "
                "give one another name, or the next version with an upcaster."
            )
        for other in versions.values():
            if event_type(other).key != declared.key:
                raise EventDefinitionError(
                    f"{_place(cls)} has key {declared.key!r}, but {_place(other)} of the same event has "
                    f"{event_type(other).key!r}; keep the key, or publish under a new name."
                )
        self._classes.setdefault(declared.name, {})[declared.major] = cls

    def lookup(self, name: str, major: int) -> type[Event] | None:
        """Return the class of an event type and major version, or None."""
        return self._classes.get(name, {}).get(major)

    def newest(self, name: str) -> type[Event] | None:
        """Return the class with the highest major version of an event type, or None."""
        versions = self._classes.get(name)
        return versions[max(versions)] if versions else None

    def names(self) -> tuple[str, ...]:
        """Return the registered event types, sorted."""
        return tuple(sorted(self._classes))

    def classes(self) -> tuple[type[Event], ...]:
        """Return the registered classes, sorted by name and major version."""
        return tuple(self._classes[name][major] for name in self.names() for major in sorted(self._classes[name]))

    def upcaster(self, name: str, from_major: int) -> Callable[[UpcastFunction], UpcastFunction]:
        """Decorate the function that turns `name` from `from_major` into the next major version.

        Returns the function unchanged. Raises EventDefinitionError when that step has a function already.
        """

        def add(function: UpcastFunction) -> UpcastFunction:
            known = self._upcasters.get((name, from_major))
            if known is not None and known.function is not function:
                raise EventDefinitionError(f"{name} has {known.label} already; remove one of the two.")
            self._upcasters[name, from_major] = Upcaster(name, from_major, function)
            return function

        return add

    def upcasters(self) -> tuple[Upcaster, ...]:
        """Return the registered upcasters, sorted by name and version."""
        return tuple(self._upcasters[step] for step in sorted(self._upcasters))

    def chain(self, name: str, from_major: int, to_major: int) -> tuple[Upcaster, ...]:
        """Return the upcasters from one major version to another; raises NoUpcasterError naming the gap."""
        steps = [(name, major) for major in range(from_major, to_major)]
        for _, major in steps:
            if (name, major) not in self._upcasters:
                raise NoUpcasterError(
                    f"{name} version {from_major} cannot be read as version {to_major}: no upcaster from "
                    f'{major} to {major + 1}; write one and register it with upcaster("{name}", {major}).'
                )
        return tuple(self._upcasters[step] for step in steps)


def _place(cls: type[Event]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
