"""The simulated service: its events, and handlers of every shape whose troubles are written into the events."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from msgspec import Struct, field

from tidings.consuming.retry import RetryPolicy
from tidings.consuming.work import Work
from tidings.events import Event
from tidings.publishing.transaction import Transaction
from tidings.service import Service
from tidings.testing.simulation.loop import GROUP
from tidings.testing.simulation.process import Crash, Process

SOURCE = "sim"
"""Name of the simulated service."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, subscription TEXT, id TEXT, source TEXT, attempt INTEGER);
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS seen_log (
  position INTEGER PRIMARY KEY, lane INTEGER, type TEXT, id TEXT, source TEXT, key TEXT, causation TEXT, data BLOB);
CREATE TRIGGER IF NOT EXISTS seen AFTER INSERT ON tidings_log BEGIN
  INSERT INTO seen_log SELECT new.position, new.lane, new.type, new.id, new.source, new.key, new.causation, new.data;
END;
CREATE TABLE IF NOT EXISTS seen_landing (position INTEGER PRIMARY KEY);
CREATE TRIGGER IF NOT EXISTS landed AFTER INSERT ON tidings_held WHEN new.subscription = '*' BEGIN
  INSERT OR IGNORE INTO seen_landing VALUES (new.position);
END;
CREATE TRIGGER IF NOT EXISTS unchanged BEFORE UPDATE ON tidings_log BEGIN
  SELECT raise(ABORT, 'an event was changed');
END;
"""
"""The service's tables, a copy of the log that no retention drops, what landing has ever held, and a guard against
changing events."""

EFFECT = "INSERT INTO effects (subscription, id, source, attempt) VALUES ($1, $2, $3, $4)"

Troubles = dict[str, int]
"""Subscription -> number of attempts that meet the trouble."""


class Placed(Event, name="sim.placed", version=1, key="key", fair_by="tenant"):
    """The first event of a flow. `fails` and `kills` say in which attempts a subscription meets trouble."""

    key: str
    tenant: str
    fails: Troubles = field(default_factory=dict)
    kills: Troubles = field(default_factory=dict)
    children: int = 0
    later: float | None = None
    slow: float = 0.0


class Child(Event, name="sim.child", version=1, key="key", keep=timedelta(seconds=1)):
    """What followed from a Placed; kept only for a short while."""

    key: str
    fails: Troubles = field(default_factory=dict)
    kills: Troubles = field(default_factory=dict)


class Timer(Event, name="sim.timer", version=1, key="key"):
    """A delayed publish."""

    key: str
    fails: Troubles = field(default_factory=dict)
    kills: Troubles = field(default_factory=dict)


class Foreign(Event, name="sim.foreign", version=1, key="key"):
    """Comes from another service."""

    key: str
    fails: Troubles = field(default_factory=dict)
    kills: Troubles = field(default_factory=dict)


class Novel(Event, name="sim.novel", version=1, key="key"):
    """Comes from another service, and only the second release knows it."""

    key: str
    fails: Troubles = field(default_factory=dict)
    kills: Troubles = field(default_factory=dict)


class Waning(Event, name="sim.waning", version=1, key="key"):
    """Only the first release takes it."""

    key: str
    fails: Troubles = field(default_factory=dict)
    kills: Troubles = field(default_factory=dict)


Simulated = Placed | Child | Timer | Foreign | Novel | Waning


class Options(Struct, frozen=True):
    """What one seed chose for the whole service."""

    names: tuple[str, ...]
    after_dead: Any
    pause_after: int | None
    concurrency: int
    lengthy: float


class Witness:
    """What is known outside every process: calls to the outside world, and whether the troubles were mended."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.mended = False
        self.calls: dict[tuple[str, str, str], set[str]] = {}

    async def meet_trouble(self, name: str, event: Simulated, attempt: int) -> None:
        """Fail, or be killed, as the event says for this attempt."""
        if self.mended:
            return
        if attempt <= event.kills.get(name, 0):
            process = GROUP.get()
            assert isinstance(process, Process)
            process.kill(f"poison of {name}")
            raise Crash("poison")
        if attempt <= event.fails.get(name, 0):
            raise RuntimeError(f"attempt {attempt} of {name}")


def outgoing(name: str, event: Simulated) -> list[type[Event]]:
    """Return what a subscription publishes while handling an event, in order."""
    if not isinstance(event, Placed) or name not in ("tx_ordered", "work_ordered", "work_plain"):
        return []
    return [Child] * event.children + ([Timer] if event.later is not None and name == "tx_ordered" else [])


def _publish_all(name: str, event: Simulated, tx: Transaction) -> None:
    for cls in outgoing(name, event):
        if cls is Timer:
            assert isinstance(event, Placed)
            tx.publish(Timer(key=event.key), delay=timedelta(seconds=event.later or 0))
        else:
            # A child meets the troubles that its parent's event wrote down for the sink.
            tx.publish(Child(key=event.key, fails=_of("sink", event.fails), kills=_of("sink", event.kills)))


def _of(name: str, troubles: Troubles) -> Troubles:
    return {name: troubles[name]} if name in troubles else {}


def _transaction_handler(name: str, witness: Witness, options: Options) -> Callable[..., Any]:
    async def handle(event: Event, tx: Transaction) -> None:
        assert isinstance(event, Simulated)
        assert tx.envelope is not None
        await tx.execute(EFFECT, name, tx.envelope.id, tx.envelope.source, tx.attempt)
        if witness.random.random() < options.lengthy:
            await asyncio.sleep(witness.random.random() * 0.01)
        _publish_all(name, event, tx)
        await witness.meet_trouble(name, event, tx.attempt)

    return handle


def _work_handler(name: str, witness: Witness, options: Options) -> Callable[..., Any]:
    async def handle(event: Event, work: Work) -> None:
        assert isinstance(event, Simulated)
        envelope = work.envelope
        witness.calls.setdefault((name, envelope.source, envelope.id), set()).add(work.idempotency_key)
        await asyncio.sleep(event.slow if isinstance(event, Placed) else 0.001)
        if witness.random.random() < 0.5:
            await witness.meet_trouble(name, event, work.attempt)
        async with work.finish() as tx:
            await tx.execute(EFFECT, name, envelope.id, envelope.source, work.attempt)
            _publish_all(name, event, tx)
            if witness.random.random() < options.lengthy:
                await asyncio.sleep(witness.random.random() * 0.01)
            await witness.meet_trouble(name, event, work.attempt)

    return handle


def declare(service: Service, witness: Witness, options: Options, release: int) -> None:
    """Declare every subscription of the simulated service as one of its two releases has it."""
    service.schema(SCHEMA)
    service.register(Placed, Child, Timer, Foreign)
    both, changing = (Placed, Foreign), (Waning,) if release == 1 else (Novel,)
    retry = RetryPolicy(attempts=3, backoff=timedelta(seconds=0.5))
    shared: dict[str, Any] = {"start": "beginning", "retry": retry, "pause_after": options.pause_after}
    ordered = {**shared, "ordered": "log", "after_dead": options.after_dead}
    slots = {"concurrency": options.concurrency}

    def add(name: str, events: tuple[type[Event], ...], make: Callable[..., Any], declared: dict[str, Any]) -> None:
        if name in options.names:
            service.subscribe(*events, name=name, **declared)(make(name, witness, options))

    add("tx_ordered", (*both, *changing), _transaction_handler, ordered)
    add("tx_plain", (Placed,), _transaction_handler, shared)
    add("work_ordered", both, _work_handler, {**ordered, **slots})
    add("work_plain", (Placed,), _work_handler, {**shared, **slots})
    add("sink", (Child, Timer, Foreign, *changing), _transaction_handler, shared)


SUBSCRIPTIONS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "tx_ordered": (True, ("sim.placed", "sim.foreign", "sim.novel")),
    "tx_plain": (False, ("sim.placed",)),
    "work_ordered": (True, ("sim.placed", "sim.foreign")),
    "work_plain": (False, ("sim.placed",)),
    "sink": (False, ("sim.child", "sim.timer", "sim.foreign", "sim.novel")),
}
"""Name -> whether order is kept, and the event types of the second release."""


def subscribed(names: Sequence[str], first_release: int) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """Return what the checks go by: what a release has taken once stays a subscription's own."""
    return {
        name: (is_ordered, (*types, "sim.waning") if first_release == 1 and "sim.novel" in types else types)
        for name, (is_ordered, types) in SUBSCRIPTIONS.items()
        if name in names
    }
