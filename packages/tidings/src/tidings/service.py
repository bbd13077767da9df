"""The service: what the user starts. The only place that wires ports to backends; what is declared: declaring.py."""

import importlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from weakref import WeakSet

from tidings.backends import BLOBS, STORES, TRANSPORTS
from tidings.blobs import Blobs
from tidings.changes import changes
from tidings.consuming.following import FollowedLog
from tidings.consuming.landing import check_order
from tidings.consuming.opening import Openings, opened
from tidings.consuming.worker import CONSUMERS, RELAYS, Worker, handles
from tidings.declaring import Declaring
from tidings.errors import ServiceError
from tidings.events import Event, event_type, uuid7
from tidings.publishing.producer import Producer
from tidings.rows import WorkerRow
from tidings.sagas.coordinator import check_running
from tidings.sourcing.replay import swapping
from tidings.store import Store
from tidings.telemetry import told
from tidings.transport import Topology, Transport
from tidings.world import Clock, Ids, World


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


class Service(Declaring):
    """A named service: its store, its subscriptions, and the process that runs them.

    `name` is the source of everything it publishes. `store` is a URL: `sqlite:///file.db` (one process),
    `sqlite+apsw:///file.db` (several processes; needs tidings[apsw]), `sqlite:///:memory:` (tests). `transport`
    carries events to and from other services' logs; `landing`, where given, is the one that they come from instead, or
    the URL of another service's store, whose log is followed then, from its beginning.
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
        super().__init__(name)
        self.process_id: Callable[[], int] = os.getpid
        self.wire(World(clock, random or Random(secrets.randbits(64)), ids), store, transport, landing, blobs)
        self.worker: Worker | None = None
        self._migrate = migrate
        self.grace = grace
        self._horizon = horizon
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
        self.followed = _followed_log(landing, world)
        self.inward = None if self.followed else _transport(landing, world) if landing else self.transport
        self.blobs = open_blobs(blobs, world) if blobs else None
        self._producer = Producer(self.name, self.registry, world)

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
            # Who only publishes talks to no broker, and who handles nothing lands nothing.
            inward = (self.inward, self.followed) if consumers else ()
            needed = (self.blobs, self.transport, *inward) if consumers or relay else ()
            async with opened([one for one in needed if one is not None], self.world) as openings:
                with told(self.name, self.store, self.world):
                    self.worker = self._make_worker(consumers, relay, openings)
                    try:
                        await self.worker.start()
                        async with swapping(self.store, self._swapped_when_built() if consumers else ()):
                            yield self
                    finally:
                        try:
                            await self.worker.stop(self.grace.total_seconds())
                        finally:
                            self.worker = None
        finally:
            await self.store.close()

    def _make_worker(self, consumers: bool, relay: bool, openings: Openings) -> Worker:
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
            openings,
            self.followed,
        )

    def topologies(self) -> list[Topology]:
        """Return what must be there before this service's transports can be opened: queues, topics, rights."""
        urls = dict.fromkeys(url for url in (self.transport_url, self.landing_url) if url and not _is_store(url))
        modules = [(url, _backend(TRANSPORTS, url, "transport")) for url in urls]
        return [module.open_topology(url, self.world) for url, module in modules if hasattr(module, "open_topology")]

    # Reading.

    def changes(self, *events: type[Event]) -> AsyncIterator[None]:
        """Yield at once, and again whenever events of these types were committed: read what you show after each."""
        return changes(self.store, [event_type(cls).name for cls in events])

    async def wait_until_followed(self) -> None:
        """Wait until all that the followed log has at this moment is in this service's own; as long as it takes.

        Raises ServiceError if this process follows none, StoreError if the other database does not answer.
        """
        if self.followed is None or self.worker is None or self.worker.following is None:
            raise ServiceError(f"{self.name} follows no log here: give landing= the URL of a store, and run consumers.")
        await self.worker.following.reached(await self.followed.store.reading.head())

    def health(self) -> dict[str, Any]:
        """Return whether this process is at work: `status` is "ok", "degraded" (an outage, a pause) or "stopped"."""
        if self.worker is None:
            return {"status": "stopped", "service": self.name}
        outages = {part.name for part in self.worker.lanes if part.outage.on}
        outages |= {part.name for part in self.worker.work if part.outage.on} | self.worker.openings.waiting
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


def _is_store(url: str) -> bool:
    return url.partition("://")[0] in STORES


def _followed_log(url: str | None, world: World) -> FollowedLog | None:
    if not url or not _is_store(url):
        return None
    parts = urlsplit(url)
    name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
    return FollowedLog(name, _backend(STORES, url, "store").open_store(url, world))


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
