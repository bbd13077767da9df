"""The service: what the user declares and starts. The only place that wires ports to backends."""

import importlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakSet

from tidings.backends import BLOBS, STORES, TRANSPORTS
from tidings.blobs import Blobs
from tidings.changes import changes
from tidings.consuming.executor import Executor
from tidings.consuming.inline import InlineProjections
from tidings.consuming.landing import check_order
from tidings.consuming.retry import RetryPolicy
from tidings.consuming.subscription import Start, Subscription, check_options, shape_of
from tidings.consuming.worker import CONSUMERS, RELAYS, Worker, handles
from tidings.errors import ServiceError
from tidings.events import INTERNAL, Event, Registry, UpcastFunction, event_type, uuid7
from tidings.publishing.producer import Producer
from tidings.rows import WorkerRow
from tidings.sagas.coordinator import Coordinator, check_running
from tidings.sagas.saga import Saga
from tidings.sourcing.projection import Projection
from tidings.sourcing.remembering import Remembering
from tidings.store import Store
from tidings.telemetry import told
from tidings.transport import Topology, Transport
from tidings.world import Clock, Ids, World

H = TypeVar("H", bound=Callable[..., Any])


def system_clock() -> datetime:
    """Return the operating system's time, in UTC."""
    return datetime.now(UTC)


def uuid7_ids(moment: datetime, random: Random) -> str:
    """Return a fresh UUIDv7."""
    return uuid7(int(moment.timestamp() * 1000), random.getrandbits(74))


_services: "WeakSet[Service]" = WeakSet()


def only_service() -> "Service":
    """Return the one Service of this process; raises ServiceError if there are none or several."""
    found = list(_services)
    if len(found) != 1:
        names = ", ".join(sorted(service.name for service in found)) or "none"
        raise ServiceError(
            f"Which service publishes? This process has {names}: say so with publish(…, service=service)."
        )
    return found[0]


class Service(Remembering):
    """A named service: its store, its subscriptions, and the process that runs them.

    `name` is the source of everything it publishes. `store` is a URL: `sqlite:///file.db` (one process),
    `sqlite+apsw:///file.db` (several processes; needs tidings[apsw]), `sqlite:///:memory:` (tests). `transport`
    carries events to and from other services' logs; `landing`, where given, is the one that they come from instead.
    `blobs` is where data waits that is too large for a broker (`s3://…`, `file:///…`), the same at both ends.
    `migrate=False` refuses a store that lacks migrations instead of applying them. `grace` is how long handlers may go
    on after a stop. `horizon` is the age up to which duplicates from a transport are recognised. `clock`, `random` and
    `ids` are for tests. Raises ServiceError for URLs it does not know.
    """

    def __init__(
        self,
        name: str,
        *,
        store: str,
        transport: str | None = None,
        landing: str | None = None,
        blobs: str | None = None,
        migrate: bool = True,
        grace: timedelta = timedelta(seconds=10),
        horizon: timedelta = timedelta(days=14),
        clock: Clock = system_clock,
        random: Random | None = None,
        ids: Ids = uuid7_ids,
    ) -> None:
        if not name or not name.isprintable() or len(name) > 100:
            raise ServiceError(f"A service cannot be named {name!r}: use up to 100 printable characters.")
        self.name = name
        self.registry = Registry()
        self.process_id: Callable[[], int] = os.getpid
        self.wire(World(clock, random or Random(secrets.randbits(64)), ids), store, transport, landing, blobs)
        self.worker: Worker | None = None
        self._migrate = migrate
        self.grace = grace
        self._horizon = horizon
        self._subscriptions: dict[str, Subscription] = {}
        self._sagas: list[type[Saga[Any]]] = []
        self._projections: dict[str, Projection] = {}
        self._schemas: list[str] = []
        self._carried: set[str] = set()
        self._entered: AbstractAsyncContextManager[Service] | None = None
        _services.add(self)

    def wire(
        self, world: World, store: str, transport: str | None, landing: str | None = None, blobs: str | None = None
    ) -> None:
        """Tie the service to a world, a store and transports. For tests, which call it again with their own.

        Raises ServiceError for URLs that are not known. Call it only while the service does not run.
        """
        self.world = world
        self.store_url = store
        self.transport_url, self.landing_url, self.blobs_url = transport, landing, blobs
        self.store: Store = _backend(STORES, store, "store").open_store(store, world)
        self.transport = _transport(transport, world)
        self.inward = _transport(landing, world) if landing else self.transport
        self.blobs = open_blobs(blobs, world) if blobs else None
        self._producer = Producer(self.name, self.registry, world)

    # What is declared.

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
    ) -> Projection:
        """Declare a version of a projection; `on` of what is returned declares its handlers.

        `schema`: SQL that makes its tables, named in braces: `CREATE TABLE IF NOT EXISTS {balances} (…)`. `inline`:
        handle what is published here in its transaction. `on_poison`: what given-up events hold. Raises ServiceError.
        """
        declared = Projection(
            self, name, version=version, schema=schema, start=start, inline=inline, on_poison=on_poison,
            retry=retry or RetryPolicy(),
        )  # fmt: skip
        if (own := declared.subscription_name) in {*self._projections, *self._subscriptions}:
            raise ServiceError(f"Version {version} of the projection {name} is declared twice: count it up.")
        self._projections[own] = declared
        return declared

    def register(self, *events: type[Event]) -> None:
        """Make event classes known that are published or upcast here, without subscribing to them."""
        for cls in events:
            if event_type(cls).name.startswith(INTERNAL):
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

    def schema(self, sql: str | Path) -> None:
        """Add SQL for the service's own tables, run at every start before anything else: write statements that may
        run again (`CREATE TABLE IF NOT EXISTS …`)."""
        self._schemas.append(sql.read_text("utf-8") if isinstance(sql, Path) else sql)

    # Running.

    async def __aenter__(self) -> Self:
        self._entered = self.running()
        await self._entered.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def running(self, *, consumers: bool = True, relay: bool = True) -> "AsyncIterator[Service]":
        """Open the store and run the service in this process; with neither role it only publishes and reads.

        At the end: stops receiving, lets handlers finish within the grace time, releases leases, closes the store.
        """
        if self.worker is not None:
            raise ServiceError(f"The service {self.name} runs already: enter it once, and share it.")
        self.resolve()
        if consumers:
            check_order(self.subscriptions, self.inward)
        await self.store.open(migrate=self._migrate)
        try:
            for script in (*self._schemas, *(one.schema for one in self._projections.values())):
                await self.store.script(script)
            for saga in self._sagas if consumers else ():
                await check_running(self.store.reading, saga)
            async with AsyncExitStack() as opened:
                inward = self.inward if consumers else None  # else nobody lands here
                for place in {one: None for one in (self.blobs, self.transport, inward) if one is not None}:
                    await place.open()
                    opened.push_async_callback(place.close)
                opened.enter_context(told(self.name, self.store, self.world))
                self.worker = self._make_worker(consumers, relay)
                try:
                    await self.worker.start()
                    yield self
                finally:
                    try:
                        await self.worker.stop(self.grace.total_seconds())
                    finally:
                        self.worker = None
        finally:
            await self.store.close()

    def resolve(self) -> None:
        """Read the handlers' hints; raises HandlerError, and ServiceError for a projection without any handler."""
        kept = [one.subscription() for one in self._projections.values()]
        self.register(*(event for one in kept for event in one.events))
        for name, declared in self._subscriptions.items():
            kind, is_async, takes_second = shape_of(name, declared.handler, declared.events, declared.executor)
            self._subscriptions[name] = Subscription(
                **{**vars(declared), "kind": kind, "is_async": is_async, "takes_second": takes_second}
            )
        if inline := [one for one in kept if one.projection is not None and one.projection.inline]:
            self._producer.inline = InlineProjections(inline, self.registry, self._producer, self.store, self.world)

    def _make_worker(self, consumers: bool, relay: bool) -> Worker:
        now = self.world.now()
        roles: list[str] = []
        if consumers:
            # By name too: of two releases side by side, each takes lanes of the subscriptions that it declares.
            roles += [CONSUMERS, *(handles(subscription.name) for subscription in self.subscriptions)]
        if relay and self.transport is not None:
            roles.append(RELAYS)
        row = WorkerRow(
            id=f"{self.name}/{self.world.fresh_id()}",
            service=self.name,
            host=self.store.host,
            pid=self.process_id(),
            started=now,
            expires=now,
            roles=tuple(roles),
        )
        return Worker(
            row,
            self.subscriptions,
            self.registry,
            self._producer,
            self.store,
            self.world,
            self.transport,
            self.inward,
            sorted(self._carried),
            self._horizon.total_seconds(),
            self.blobs,
        )

    def topologies(self) -> list[Topology]:
        """Return what must be there before this service's transports can be opened: queues, topics, rights."""
        urls = dict.fromkeys(url for url in (self.transport_url, self.landing_url) if url)
        modules = [(url, _backend(TRANSPORTS, url, "transport")) for url in urls]
        return [module.open_topology(url, self.world) for url, module in modules if hasattr(module, "open_topology")]

    # Reading.

    def changes(self, *events: type[Event]) -> AsyncIterator[None]:
        """Yield at once, and again whenever events of these types were committed: read what you show after each."""
        return changes(self.store, [event_type(cls).name for cls in events])

    def health(self) -> dict[str, Any]:
        """Return whether this process is at work: `status` is "ok", "degraded" (an outage, a pause) or "stopped"."""
        if self.worker is None:
            return {"status": "stopped", "service": self.name}
        outages = {part.name for part in self.worker.lanes if part.outage.on}
        outages |= {part.name for part in self.worker.work if part.outage.on}
        return {
            "status": "degraded" if outages else "ok",
            "service": self.name,
            "worker": self.worker.id,
            "workers": len(self.worker.heartbeat.alive),
            "subscriptions": sorted(self._subscriptions),
            "outages": sorted(outages),
        }


def _transport(url: str | None, world: World) -> Transport | None:
    if not url:
        return None
    transport: Transport = _backend(TRANSPORTS, url, "transport").open_transport(url, world)
    return transport


def open_blobs(url: str, world: World) -> Blobs:
    """Return the place for large bodies and outcomes that a URL names, not connected; raises ServiceError."""
    blobs: Blobs = _backend(BLOBS, url, "place for blobs").open_blobs(url, world)
    return blobs


def _backend(known: dict[str, str], url: str, what: str) -> Any:
    scheme = url.partition("://")[0]
    if scheme not in known:
        shown = f"{scheme}://…" if "@" in url else url  # without a password
        is_file = what == "store" and "://" not in url
        do = f"for a file write sqlite:///{url}" if is_file else f"use one of {', '.join(sorted(known))}"
        raise ServiceError(f"{shown!r} is not a {what} this version knows: {do}.")
    return importlib.import_module(known[scheme])
