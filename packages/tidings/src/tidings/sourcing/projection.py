"""A projection: handlers that keep a read model, version by version, and the queries over the live one."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal, TypeVar

from msgspec import Struct

from tidings.consuming.retry import RetryPolicy
from tidings.consuming.subscription import PROJECTION, Start, Subscription, check_options
from tidings.errors import HandlerError, ProjectionError, ProjectionLagError, ServiceError, StatementError
from tidings.events import Envelope, Event, event_type
from tidings.publishing.publisher import Publisher
from tidings.publishing.transaction import Queries, Reading, Told, Transaction
from tidings.rows import DEAD, DISCARDED, PARKED, RETRY
from tidings.sourcing.tables import Tables
from tidings.statements import Value
from tidings.store import HELD_CHANGED, PROGRESS_CHANGED, SUBSCRIPTION_CHANGED
from tidings.world import microseconds, moment

H = TypeVar("H", bound=Callable[..., Awaitable[None]])

LOOK_SECONDS = 0.02
"""Seconds between looks for the progress of other processes, of which nobody tells this one."""

PATIENCE = timedelta(seconds=10)
"""How long `wait_until_caught_up` waits unless it is told."""


class Lag(Struct, frozen=True):
    """How far a version is behind the log: events that it has not reached, and the age of the oldest in seconds."""

    events: int
    seconds: float


class ReadModel(Queries):
    """The tables of the version that a handler keeps, within the transaction that also commits its progress.

    SQL names a table in braces: `INSERT INTO {balances} …`. There is no `publish` here: a rebuild handles every event
    again, and facts are said once. `times`: when each of the events at hand was published.
    """

    __slots__ = ("_tables", "_times", "_transaction", "_version")

    def __init__(self, tables: Tables, version: int, transaction: Transaction, times: Sequence[int]) -> None:
        self._tables = tables
        self._version = version
        self._transaction = transaction
        self._times = times

    @property
    def time(self) -> datetime:
        """When the event at hand was published; of a batch its first."""
        return moment(self._times[0])

    @property
    def times(self) -> list[datetime]:
        """When each event of a batch was published."""
        return [moment(time) for time in self._times]

    async def execute(self, sql: str, *args: Value) -> int:
        """Execute a statement; return how many rows it changed. Raises ConstraintError and StatementError."""
        return await self._transaction.execute(self._tables.write(sql, self._version), *args)

    async def _query(self, sql: str, args: tuple[Value, ...]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        return await self._transaction._query(self._tables.write(sql, self._version), args)


class _Handler(Struct, frozen=True):
    call: Callable[..., Awaitable[None]]
    batched: bool


class Projection(Queries):
    """One version of a projection, made by `Service.projection`; its queries read the version that is live.

    Implements consuming.subscription.Projected.
    """

    def __init__(
        self,
        publisher: Publisher,
        name: str,
        *,
        version: int,
        schema: str,
        start: Start,
        inline: bool,
        on_poison: Literal["park", "stop"],
        retry: RetryPolicy,
        swap_when_built: bool = False,
    ) -> None:
        if version < 1:
            raise ServiceError(f"Projection {name}: version={version}; versions count from 1.")
        if on_poison not in ("park", "stop"):
            raise ServiceError(f'Projection {name}: on_poison={on_poison!r}; use "park" or "stop".')
        check_options(f"{name}@{version}", 1, start, "block", None)
        self.name = name
        self.version = version
        self.inline = inline
        self.swap_when_built = swap_when_built
        self.stops = on_poison == "stop"
        self._publisher = publisher
        self._tables = Tables(name, schema)
        self._start = start
        self._retry = retry
        self._handlers: dict[type[Event], _Handler] = {}

    # Declared.

    @property
    def subscription_name(self) -> str:
        """The name of the subscription that keeps this version: `balances@2`."""
        return f"{self.name}@{self.version}"

    @property
    def named(self) -> Tables:
        """The tables of this projection, as SQL names them in braces."""
        return self._tables

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of this version's tables, as the database has them."""
        return self._tables.of(self.version)

    @property
    def schema(self) -> str:
        """The SQL that makes this version's tables."""
        return self._tables.schema(self.version)

    def on(self, *events: type[Event], batched: bool = False) -> Callable[[H], H]:
        """Declare the handler of some events: `async def handler(event, model: ReadModel)`; returned unchanged.

        A batched one gets a sequence of events, in order: all that follow one another in a transaction. Raises
        ServiceError, HandlerError.
        """
        if not events or not all(issubclass(cls, Event) for cls in events):
            raise ServiceError(f"Projection {self.name}: on() needs event classes: @{self.name}.on(MoneyDeposited).")

        def declare(handler: H) -> H:
            is_async: bool = inspect.iscoroutinefunction(handler)
            if not is_async or len(inspect.signature(handler).parameters) != 2:
                what = "events" if batched else "event"
                raise HandlerError(
                    f"Projection {self.name}: {getattr(handler, '__qualname__', handler)} must be "
                    f"`async def …({what}, model)`."
                )
            for cls in events:
                if cls in self._handlers:
                    raise ServiceError(f"Projection {self.name}: {event_type(cls).name} has a handler already.")
                self._handlers[cls] = _Handler(handler, batched)
            return handler

        return declare

    def subscription(self) -> Subscription:
        """Return the subscription that keeps this version; raises ServiceError if it has no handler."""
        if not self._handlers:
            raise ServiceError(f"Projection {self.name} handles no event: declare @{self.name}.on(SomeEvent).")
        return Subscription(
            name=self.subscription_name,
            events=tuple(self._handlers),
            handler=self._apply_one,
            kind=PROJECTION,
            is_async=True,
            takes_second=True,
            ordered=True,
            as_logged=True,
            retry=self._retry,
            start=self._start,
            projection=self,
        )

    # Handling.

    async def _apply_one(self, event: Event, transaction: Transaction) -> None:
        assert transaction.envelope is not None  # of a handler's transaction
        await self.apply([event], transaction, [microseconds(transaction.envelope.time)])

    async def apply(self, events: Sequence[Event], transaction: Transaction, times: Sequence[int]) -> None:
        """Hand events, in order, to their handlers. For the library's own use; raises what they raise."""
        of_types = {self._handlers[cls] for cls in set(map(type, events))}
        if len(of_types) == 1:
            await self._call(of_types.pop(), events, transaction, times)
            return
        start = 0
        for handler, run in groupby(events, lambda event: self._handlers[type(event)]):
            some = list(run)
            until = start + len(some)
            await self._call(handler, some, transaction, times[start:until])
            start = until

    async def _call(
        self, handler: _Handler, events: Sequence[Event], transaction: Transaction, times: Sequence[int]
    ) -> None:
        if handler.batched:
            await handler.call(events, self._model(transaction, times))
            return
        for event, time in zip(events, times, strict=True):
            await handler.call(event, self._model(transaction, (time,)))

    def _model(self, transaction: Transaction, times: Sequence[int]) -> ReadModel:
        return ReadModel(self._tables, self.version, transaction, times)

    # Asking.

    async def live_version(self) -> int:
        """Return the version that queries read; raises ProjectionError before the service has first started."""
        version = await self._publisher.store.reading.live_version(self.name)
        if version is None:
            raise ProjectionError(f"No version of the projection {self.name} is live: start its service first.")
        return version

    async def _query(self, sql: str, args: tuple[Value, ...]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Ask the live version. If it was swapped out meanwhile and is gone, ask its successor."""
        with Told(self._publisher.store):
            reading = Reading(self._publisher.store.reading)
            version = await self.live_version()
            while True:
                try:
                    return await reading._query(self._tables.write(sql, version), args)
                except StatementError:
                    before, version = version, await self.live_version()
                    if before == version:
                        raise

    async def lag(self) -> Lag:
        """Return how far the live version is behind the log."""
        reading, name = self._publisher.store.reading, await self._live_subscription()
        types = next((row.types for row in await reading.subscriptions() if row.name == name), ())
        pending, oldest = await reading.pending(name, types)
        now = self._publisher.world.now()
        return Lag(pending, 0.0 if oldest is None else max(0.0, (now - oldest) / 1e6))

    async def wait_until_caught_up(
        self, position: int | Envelope | None = None, *, patience: timedelta = PATIENCE
    ) -> None:
        """Wait until the live version has handled an event, or every event up to a position; None: all there are now.

        Pass what `publish` returned to read your own write. What is retried is waited for; what was given up before
        is not. Raises ProjectionError if the event (at the position) is parked or a dead letter for the projection,
        or (retryable) if it is not handled in time.
        """
        store = self._publisher.store
        found = position if isinstance(position, int) else await self._position(position)
        changed = asyncio.Event()
        stop = store.listen([PROGRESS_CHANGED, HELD_CHANGED, SUBSCRIPTION_CHANGED], changed.set)
        try:
            async with asyncio.timeout(patience.total_seconds()):
                while not await self._has_handled(found, asked=position):
                    await _soon(changed)
        except TimeoutError:
            lag = await self.lag()
            raise ProjectionLagError(
                f"Projection {self.name} has not handled position {found} within "
                f"{round(patience.total_seconds(), 2):g} s: it is "
                f"{lag.events} events behind. Look at `tidings projection status {self.name}`, or wait for longer."
            ) from None
        finally:
            stop()

    async def _position(self, envelope: Envelope | None) -> int:
        reading = self._publisher.store.reading
        if envelope is None:
            return await reading.head()
        found = [one for one in await reading.find(envelope.id) if one.envelope.source == envelope.source]
        if not found:
            raise ProjectionError(
                f"Event {envelope.id} is not in the log: its transaction has not committed, or it is still scheduled."
            )
        return found[0].position

    async def _has_handled(self, position: int, *, asked: int | Envelope | None) -> bool:
        reading, name = self._publisher.store.reading, await self._live_subscription()
        if not await reading.reached(name, position):
            return False
        # Afterwards: an exception is written by the commit that passes its event.
        held = await reading.held(name, [position]) if asked is not None else []
        if held and held[0].state in (DEAD, PARKED, DISCARDED):
            raise ProjectionError(
                f"Projection {self.name} could not handle the event at position {position}, which is {held[0].state}: "
                f"{held[0].reason}. See `tidings dlq list --subscription {name}`."
            )
        if isinstance(asked, Envelope):
            return not held
        retried = await reading.letters([RETRY], name, 0, 1)
        return not held and (not retried or retried[0].position > position)

    async def _live_subscription(self) -> str:
        return f"{self.name}@{await self.live_version()}"


async def _soon(changed: asyncio.Event) -> None:
    """Wait for the next change, but not for long: of another process's progress nobody tells."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await changed.wait()
    except TimeoutError:
        pass
    changed.clear()
