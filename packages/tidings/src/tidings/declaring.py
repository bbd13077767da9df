"""What a service declares: its subscriptions, sagas and projections, its events and its own tables."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from tidings.consuming.executor import Executor
from tidings.consuming.inline import InlineProjections
from tidings.consuming.retry import RetryPolicy
from tidings.consuming.subscription import Start, Subscription, check_options, shape_of
from tidings.errors import ServiceError
from tidings.events import INTERNAL, Event, Registry, UpcastFunction, event_type
from tidings.publishing.undelivered import Undelivered, original
from tidings.sagas.coordinator import Coordinator
from tidings.sagas.saga import Saga
from tidings.sourcing.asking import Asking
from tidings.sourcing.command import Command
from tidings.sourcing.obeying import CommandHandler
from tidings.sourcing.projection import Projection
from tidings.sourcing.query import Query, QueryHandler

H = TypeVar("H", bound=Callable[..., Any])


class Declaring(Asking):
    """Takes what the user declares, and keeps it until the service runs. `Service` is one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.registry = Registry()
        self._subscriptions: dict[str, Subscription] = {}
        self._sagas: list[type[Saga[Any]]] = []
        self._projections: dict[str, Projection] = {}
        self._handlers: dict[type[Command], CommandHandler] = {}
        self._queries: dict[type[Query[Any]], QueryHandler] = {}
        self._schemas: list[str] = []
        self._carried: set[str] = set()

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Every subscription declared so far, those that keep projections included."""
        return (*self._subscriptions.values(), *(one.subscription() for one in self._projections.values()))

    def subscribe(
        self,
        *events: type[Event],
        name: str | None = None,
        ordered: bool | Literal["log"] = False,
        concurrency: int = 20,
        retry: RetryPolicy | None = None,
        time_limit: timedelta | None = None,
        after_dead: Literal["block", "continue"] = "block",
        pause_after: int | None = 20,
        start: Start = "now",
        renamed_from: str | None = None,
        executor: Executor | None = None,
    ) -> Callable[[H], H]:
        """Subscribe a handler to events; the function is returned unchanged.

        The second parameter tells the shape: `Transaction` (or `SyncTransaction`) for effects inside the settling
        transaction, `Work` (or `SyncWork`, or none) for slow or outside work. `name`: in the store, by default the
        function's. `ordered`: an unsettled event holds its key; "log" says that the order of this log will do where a
        transport keeps none. `concurrency`: Work handlers at a time in a process. `time_limit`: of one attempt.
        `after_dead`: whether a dead event goes on to hold its key. `pause_after`: events failing in a row that count
        as an outage. `start`: which events are its own at first registration. `executor`: of an integration, through
        whose library the handler writes. Raises ServiceError and HandlerError.
        """

        def declare(handler: H) -> H:
            self._declare(
                handler, events, name=name or str(getattr(handler, "__name__", "")), ordered=bool(ordered),
                as_logged=ordered == "log", concurrency=concurrency, retry=retry or RetryPolicy(),
                time_limit=time_limit, after_dead=after_dead, pause_after=pause_after, start=start,
                renamed_from=renamed_from, executor=executor,
            )  # fmt: skip
            self.register(*events)
            return handler

        return declare

    def _declare(
        self, handler: Callable[..., Any], events: Sequence[type[Event]], *, name: str, **options: Any
    ) -> None:
        if not events or not all(issubclass(cls, Event) for cls in events):
            raise ServiceError(f"subscribe() of {name} needs event classes: @service.subscribe(OrderPlaced).")
        check_options(name, options["concurrency"], options["start"], options["after_dead"], options["pause_after"])
        if name in self._subscriptions or name in self._projections:
            raise ServiceError(f"Two subscriptions are named {name!r}: give one of them name=….")
        for cls in events:
            self.registry.register(cls)
        # The shape is read at start-up, when every name of the module is there.
        self._subscriptions[name] = Subscription(
            name=name, events=tuple(events), handler=handler, kind="", is_async=True, takes_second=True, **options
        )

    def saga(
        self,
        saga: type[Saga[Any]],
        *,
        ordered: bool | Literal["log"] = "log",
        retry: RetryPolicy | None = None,
        after_dead: Literal["block", "continue"] = "block",
        pause_after: int | None = 20,
        start: Start = "now",
        keep: timedelta = timedelta(days=30),
    ) -> None:
        """Run sagas of a class here: a subscription of the saga's name, with a state.

        `keep`: how long a finished saga is kept, so that late answers find it. The other options are those of
        `subscribe`. Raises SagaDefinitionError, ServiceError.
        """
        declared = saga.__saga__
        self.register(*declared.events)
        self.registry.register(declared.signal)
        self._sagas.append(saga)
        self._declare(
            Coordinator(saga, self.registry, self.name, keep), (*declared.events, declared.signal), name=declared.name,
            ordered=bool(ordered), as_logged=ordered == "log", concurrency=1, retry=retry or RetryPolicy(),
            time_limit=None, after_dead=after_dead, pause_after=pause_after, start=start, renamed_from=None,
            executor=None,
        )  # fmt: skip

    def projection(
        self,
        name: str,
        *,
        version: int = 1,
        schema: str,
        start: Start = "beginning",
        inline: bool = False,
        on_poison: Literal["park", "stop"] = "park",
        retry: RetryPolicy | None = None,
        swap_when_built: bool = False,
    ) -> Projection:
        """Declare a version of a projection; `on` of what is returned declares its handlers.

        `schema`: SQL that makes its tables, named in braces: `CREATE TABLE IF NOT EXISTS {balances} (…)`. `inline`:
        handle what is published here in its transaction. `on_poison`: what given-up events hold. `swap_when_built`: let
        queries read this version once it has caught up with an older one, without being asked. Raises ServiceError.
        """
        declared = Projection(
            self, name, version=version, schema=schema, start=start, inline=inline, on_poison=on_poison,
            retry=retry or RetryPolicy(), swap_when_built=swap_when_built,
        )  # fmt: skip
        if (own := declared.subscription_name) in {*self._projections, *self._subscriptions}:
            raise ServiceError(f"Version {version} of the projection {name} is declared twice: count it up.")
        self._projections[own] = declared
        return declared

    def _swapped_when_built(self) -> list[tuple[str, int]]:
        return [(one.name, one.version) for one in self._projections.values() if one.swap_when_built]

    def register(self, *events: type[Event]) -> None:
        """Make event classes known that are published or upcast here, without subscribing to them."""
        for cls in events:
            if event_type(cls).name.startswith(INTERNAL) and cls is not Undelivered:
                raise ServiceError(f"{cls.__name__} cannot begin its name with {INTERNAL}: that is the library's own.")
            self.registry.register(cls)

    def carry(self, *events: type[Event]) -> None:
        """Let the transport carry only events of these classes; without a call it carries all that is published here.

        What is not carried stays between this service and those on its log.
        """
        self.register(*events)
        self._carried.update(event_type(cls).name for cls in events)

    def upcaster(self, name: str, from_version: int) -> Callable[[UpcastFunction], UpcastFunction]:
        """Register the pure function that turns an event's data from one major version into the next."""
        return self.registry.upcaster(name, from_version)

    def original(self, told: Undelivered) -> Event:
        """Return the event that was not delivered, as this release reads it.

        Raises ParkedEventError (then the handling waits for a release that can) and EventDecodeError.
        """
        return original(told, self.registry)

    def schema(self, sql: str | Path) -> None:
        """Add SQL for the service's own tables, run at every start before anything else: write statements that may
        run again (`CREATE TABLE IF NOT EXISTS …`)."""
        self._schemas.append(sql.read_text("utf-8") if isinstance(sql, Path) else sql)

    def resolve(self) -> None:
        """Read the handlers' hints; raises HandlerError, and ServiceError for a projection without any handler."""
        self.resolve_commands()
        kept = [one.subscription() for one in self._projections.values()]
        self.register(*(event for one in kept for event in one.events))
        for name, declared in self._subscriptions.items():
            kind, is_async, takes_second = shape_of(name, declared.handler, declared.events, declared.executor)
            self._subscriptions[name] = Subscription(
                **{**vars(declared), "kind": kind, "is_async": is_async, "takes_second": takes_second}
            )
        if inline := [one for one in kept if one.projection is not None and one.projection.inline]:
            self._producer.inline = InlineProjections(inline, self.registry, self._producer, self.store, self.world)
