"""Decider: a decision as two pure functions, and the load that they are taken on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tidings.errors import EventDefinitionError, ServiceError
from tidings.events import Envelope, Event, event_type
from tidings.sourcing.command import Command
from tidings.sourcing.snapshot import Snapshots
from tidings.sourcing.stream import Reader, pages_of_stream
from tidings.statements import StreamStatements

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, kw_only=True)
class Decider(Generic[C, S, E]):
    """What may happen to one kind of entity, and what becomes of it.

    `decide(command, state)` returns the events that a command makes, or raises the user's error; `evolve(state, event)`
    returns the state after an event; `initial()` the state before any. All three are pure: what they need from outside
    comes in the command. `events` are the classes that its streams hold. `stream(command)` names the stream of what is
    no Command, which names its own. `snapshots` keeps states of long streams; `name` is theirs in the store.
    """

    name: str
    initial: Callable[[], S]
    decide: Callable[[C, S], Iterable[E]]
    evolve: Callable[[S, E], S]
    events: Sequence[type[E]]
    stream: Callable[[C], str] | None = None
    snapshots: Snapshots[S] | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            raise EventDefinitionError(f"A decider cannot be named {self.name!r}: use printable characters.")
        for cls in self.events:
            event_type(cls)

    def stream_of(self, command: C) -> str:
        """Return the stream that a command is about; raises ServiceError if neither it nor the decider says."""
        if isinstance(command, Command) and command.about is not None:
            return command.about
        if self.stream is None:
            name = type(command).__name__
            raise ServiceError(
                f'Which stream is {name} about? Declare it: class {name}(Command, stream="account-{{account}}"), with '
                f"its fields in braces; or give the decider {self.name!r} a function stream=, or pass stream=…."
            )
        return self.stream(command)

    def after(self, state: S, events: Iterable[E]) -> S:
        """Return the state after some events more."""
        for event in events:
            state = self.evolve(state, event)
        return state


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """A stream's state at a version: 0 if there is no stream. `kept` is the version of the snapshot it began from."""

    state: S
    version: int
    kept: int = 0


@dataclass(frozen=True)
class Decision(Generic[S, E]):
    """What was decided: the events (none, where nothing changes), and the stream's state and version after them.

    `kept` is the version of the snapshot that the state began from.
    """

    stream: str
    state: S
    version: int
    events: Sequence[E]
    envelopes: Sequence[Envelope]
    kept: int = 0


async def load(
    statements: StreamStatements,
    reading: Reader,
    decider: Decider[C, S, E],
    stream: str,
    *,
    before: Sequence[E] = (),
) -> Loaded[S]:
    """Return the state of a stream: from the last snapshot that fits, then event by event.

    `before`: events that are appended by the transaction that is open, and not in the log yet.
    """
    state, version = decider.initial(), 0
    if decider.snapshots is not None:
        kept = decider.snapshots.read(await statements.snapshot_of(stream, decider.name))
        state, version = kept or (state, version)
    begun = version
    evolve: Callable[[S, Any], S] = decider.evolve
    async for rows in pages_of_stream(statements, stream, after=version):
        for event in reading.events(rows):
            state = evolve(state, event)
        version = rows[-1][2]
    return Loaded(decider.after(state, before), version + len(before), begun)
