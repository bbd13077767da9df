"""What a running service tells OpenTelemetry: who keeps readers of the log waiting, and how far its subscriptions are.

The only importer of OpenTelemetry. Without its package nothing is done; without an SDK nobody asks, and nothing is
measured. An SDK asks from a thread of its own: the measurement is made on the service's loop, and waited for. Asked on
that loop, which must not wait, it is told what was measured last.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msgspec import Struct

from tidings.rows import BEHIND, DEAD, PARKED, RETRY, Holder
from tidings.store import Store
from tidings.world import World

try:
    from opentelemetry import metrics
except ModuleNotFoundError:  # tidings[otel] is not installed
    metrics = None  # type: ignore[assignment]

FRESH_SECONDS = 0.5
"""One collection asks for each metric by itself; within this time they get the same measurement."""

PATIENCE_SECONDS = 3.0
"""How long a collection waits for a measurement. A store that is away has no metrics, which is what an alarm sees."""

NAMED_SECONDS = 10.0
"""A holder is named once it holds for longer than a service's own transactions may: so there are few names."""

STATES = (RETRY, BEHIND, PARKED, DEAD)
"""Exceptions that are told, each also where there are none: an alarm needs the zero."""

Labels = dict[str, str | int]
Point = tuple[float, Labels]


class _Progress(Struct, frozen=True):
    """How far one subscription is; `lag` in seconds."""

    name: str
    pending: int
    lag: float
    ready: int
    held: dict[str, int]


class _Measured(Struct, frozen=True):
    """One measurement, and when it was made by the loop's clock. `held_up`: None where readers never wait."""

    at: float
    held_up: Holder | None
    progress: list[_Progress]


class _Source:
    """One running service, measured when somebody asks."""

    def __init__(self, service: str, store: Store, world: World) -> None:
        self._service = service
        self._store = store
        self._world = world
        self._loop = asyncio.get_running_loop()
        self._last: _Measured | None = None
        self._task: asyncio.Task[None] | None = None

    def measured(self) -> _Measured | None:
        """Return a measurement, from any thread; None if there is none."""
        if self._is_here():
            self._begin()
            return self._last
        if self._last is None or self._loop.time() - self._last.at > FRESH_SECONDS:
            self._last = None
            with suppress(RuntimeError, TimeoutError):  # the loop has ended, or is busy
                self._wait(self._finish())
        return self._last

    def _is_here(self) -> bool:
        with suppress(RuntimeError):
            return asyncio.get_running_loop() is self._loop
        return False

    def _wait(self, measuring: Any) -> None:
        try:
            asyncio.run_coroutine_threadsafe(measuring, self._loop).result(PATIENCE_SECONDS)
        finally:
            measuring.close()

    async def _finish(self) -> None:
        await asyncio.wait([self._begin()])

    def _begin(self) -> "asyncio.Task[None]":
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._measure())
        return self._task

    async def _measure(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                self._last = _Measured(self._loop.time(), await self._store.holder(), await self._progress())
        except Exception:  # the store says in the log why it is away
            self._last = None

    async def _progress(self) -> list[_Progress]:
        said, now = self._store.reading, self._world.now()
        counts = await said.counts()
        found = []
        for row in await said.subscriptions():
            if row.service == self._service:
                pending, oldest = await said.pending(row.name, row.types or None)
                lag = 0.0 if oldest is None else max(0.0, (now - oldest) / 1e6)
                held = {state: counts.get((row.name, state), 0) for state in STATES}
                found.append(_Progress(row.name, pending, lag, counts.get((row.name, "ready"), 0), held))
        return found

    def stop(self) -> None:
        """Measure no more."""
        if self._task is not None:
            self._task.cancel()

    def fence_age(self, measured: _Measured) -> Iterator[Point]:
        """How long readers have waited for a transaction; 0 while there is none."""
        holder = measured.held_up
        if holder is None:
            return
        labels: Labels = {"db.namespace": holder.database}
        if holder.seconds > NAMED_SECONDS:
            labels["tidings.holder.application"] = holder.application or "unnamed"
            labels |= {} if holder.pid is None else {"tidings.holder.pid": holder.pid}
        yield holder.seconds, labels

    def of_subscriptions(self, value: Callable[[_Progress], float]) -> Callable[[_Measured], Iterator[Point]]:
        """Return what tells one number of each subscription."""
        return lambda measured: ((value(one), self._labels(one)) for one in measured.progress)

    def exceptions(self, measured: _Measured) -> Iterator[Point]:
        """How many exceptions each subscription has, by state."""
        for one in measured.progress:
            for state, number in one.held.items():
                yield number, {**self._labels(one), "state": state}

    def _labels(self, one: _Progress) -> Labels:
        return {"tidings.service": self._service, "tidings.subscription": one.name}


Tell = Callable[[_Source, _Measured], Iterable[Point]]

_GAUGES: tuple[tuple[str, str, str, Tell], ...] = (
    ("tidings.fence.age", "s", "How long readers of the log have waited for an open transaction", _Source.fence_age),
    (
        "tidings.subscription.pending", "{event}", "Events that a subscription has not reached yet",
        lambda source, measured: source.of_subscriptions(lambda one: one.pending)(measured),
    ),
    (
        "tidings.subscription.lag", "s", "Age of the oldest event that a subscription has not reached yet",
        lambda source, measured: source.of_subscriptions(lambda one: one.lag)(measured),
    ),
    (
        "tidings.subscription.ready", "{event}", "Work that waits or runs",
        lambda source, measured: source.of_subscriptions(lambda one: one.ready)(measured),
    ),
    ("tidings.subscription.held", "{event}", "Events that could not be handled, by state", _Source.exceptions),
)  # fmt: skip
"""Name, unit, description, and what tells it."""

_sources: list[_Source] = []
_instruments: list[Any] = []  # made once: a second of the same name would be told twice


def _observed_by(tell: Tell) -> Any:
    def observe(_options: object) -> Iterator[Any]:
        for source in tuple(_sources):
            measured = source.measured()
            if measured is not None:
                yield from (metrics.Observation(value, labels) for value, labels in tell(source, measured))

    return observe


@contextmanager
def told(service: str, store: Store, world: World) -> Iterator[None]:
    """Let OpenTelemetry ask about a service, whose store is open, within this block."""
    if metrics is None:
        yield
        return
    if not _instruments:
        meter = metrics.get_meter("tidings")
        for name, unit, description, tell in _GAUGES:
            _instruments.append(meter.create_observable_gauge(name, [_observed_by(tell)], unit, description))
    source = _Source(service, store, world)
    _sources.append(source)
    try:
        yield
    finally:
        _sources.remove(source)
        source.stop()
