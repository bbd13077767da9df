"""User-style code that passes mypy --strict: streams, a decider, an aggregate, given/when/then."""

from collections.abc import Sequence

from msgspec import Struct

from tidings import (
    ANY,
    NO_STREAM,
    Aggregate,
    Command,
    Decider,
    Decision,
    Envelope,
    Event,
    Executed,
    Query,
    ReadOnly,
    Service,
    Snapshots,
    Transaction,
)
from tidings.testing import given


class Opened(Event, name="door.opened"):
    """A door was opened."""


class Closed(Event, name="door.closed"):
    """A door was closed."""


DoorEvent = Opened | Closed


class Door(Struct, frozen=True):
    """The state."""

    is_open: bool = False


def decide(command: bool, state: Door) -> Sequence[DoorEvent]:
    """Open (True) or close."""
    if command is state.is_open:
        return []
    return [Opened() if command else Closed()]


def evolve(state: Door, event: DoorEvent) -> Door:
    """Say whether it is open after an event."""
    return Door(is_open=isinstance(event, Opened))


door: Decider[bool, Door, DoorEvent] = Decider(
    name="door",
    initial=Door,
    decide=decide,
    evolve=evolve,
    events=(Opened, Closed),
    stream=lambda command: "door-1",
    snapshots=Snapshots(Door, every=50),
)


class Counter(Aggregate):
    """Counts how often it was opened."""

    events = (Opened,)
    count: int = 0

    def open(self) -> None:
        """Open it."""
        self.record(Opened())

    def apply(self, event: Event) -> None:
        """Count."""
        self.count += 1


service = Service("doors", store="sqlite:///doors.db")


@service.subscribe(Opened)
async def close_again(event: Opened, tx: Transaction) -> None:
    """Append in the transaction that settles."""
    await tx.append("door-2", [Closed()], expected=ANY)
    decided: Decision[Door, DoorEvent] = await service.decide(door, False, tx=tx)
    assert not decided.state.is_open


async def use() -> int:
    """Append, decide, read."""
    written: list[Envelope] = await service.append("door-1", [Opened(), Closed()], expected=NO_STREAM)
    state: Door = (await service.load(door, "door-1")).state
    counted = await service.act(Counter, "counter-1", lambda counter: counter.open())
    async for recorded in service.read_all(prefix="door-"):
        event: Event = recorded.event
        print(event, recorded.time, state.is_open)
    given(door, Opened()).when(True).then_nothing_happened()
    given(Counter).when(lambda counter: counter.open()).then(Opened()).then_state(Counter(count=1))
    return counted.state.count + len(written)


class OpenDoor(Command, stream="door-{door}"):
    """Open a door."""

    door: int


class CountUp(Command, stream="counter-{counter}"):
    """Count."""

    counter: str


class Knock(Command):
    """Knock: no stream tells of it."""

    times: int = 1


def decide_command(command: OpenDoor, state: Door) -> Sequence[DoorEvent]:
    """Open it."""
    return [] if state.is_open else [Opened()]


commanded: Decider[OpenDoor, Door, DoorEvent] = Decider(
    name="commanded", initial=Door, decide=decide_command, evolve=evolve, events=(Opened, Closed)
)
house = Service("house", store="sqlite:///:memory:")
house.handle(OpenDoor, by=commanded, retries=3)
house.handle(Knock, by=commanded)  # type: ignore[misc]  # this decider knows no knocking


@house.handle(CountUp)
def count_up(command: CountUp, counter: Counter) -> None:
    """Call a method."""
    counter.open()


@house.handle(Knock)
async def knock(command: Knock, tx: Transaction) -> None:
    """Publish and write."""
    tx.publish(Closed())
    knocked: int = command.times
    command.times = 2  # type: ignore[misc]  # a command never changes
    assert knocked


opened = house.projection("opened", schema="CREATE TABLE IF NOT EXISTS {opened} (times BIGINT)")


class TimesOpened(Query[int]):
    """How often was it opened?"""

    door: int


class Bell(Struct, frozen=True):
    """An answer with a version."""

    version: int


class BellOf(Query[Bell | None]):
    """Which bell?"""

    door: int


@house.query(TimesOpened, opened)
async def times_opened(query: TimesOpened, read: ReadOnly) -> int:
    """Read."""
    return int(await read.fetch_value("SELECT times FROM {opened}") or 0)


@house.query(TimesOpened, opened)  # type: ignore[arg-type]  # the answer is a number
async def in_words(query: TimesOpened, read: ReadOnly) -> str:
    """Answer something else."""
    await read.execute("DELETE FROM {opened}")  # type: ignore[attr-defined]  # it only reads
    return "often"


@house.query(BellOf)
async def bell_of(query: BellOf) -> Bell | None:
    """Ask elsewhere."""
    return None


async def ask_it(done: Executed) -> int:
    """Ask, after one's own command; look a reference up."""
    times: int = await house.ask(TimesOpened(door=1), after=done)
    bell: Bell | None = await house.ask(BellOf(door=1))
    found: Bell = await house.look_up(BellOf(door=1), version=3)
    await house.look_up(TimesOpened(door=1), version=3)  # type: ignore[type-var]  # a number has no version
    direct: Bell | None = await bell_of(BellOf(door=1))
    assert bell is direct
    return times + found.version


async def command_it(tx: Transaction) -> Executed:
    """Execute commands, alone, once, and in a transaction."""
    done = await house.execute(OpenDoor(door=1), id="request-1")
    events: tuple[Event, ...] = done.events
    version: int = done.version
    assert events or version or done.repeated
    OpenDoor()  # type: ignore[call-arg]
    OpenDoor(1)  # type: ignore[call-arg]
    read: OpenDoor = OpenDoor.from_json(b'{"door": 1}')
    return await house.execute(read, tx=tx, correlation="chain")
