"""Step 1 of consuming: one process at work. It takes from lanes and the ready queue, and stops gracefully."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from tidings.blobs import Blobs
from tidings.changes import changes
from tidings.consuming.draining import Draining
from tidings.consuming.effects import Effects
from tidings.consuming.following import FollowedLog, Following
from tidings.consuming.landing import Landing
from tidings.consuming.leases import LEASE_SECONDS, Heartbeat
from tidings.consuming.opening import Openings, Place
from tidings.consuming.outage import Outage
from tidings.consuming.pipeline import Pipeline
from tidings.consuming.projecting import Projecting
from tidings.consuming.ready import Filling, WorkRunner
from tidings.consuming.registration import register, register_relay, unpark
from tidings.consuming.relaying import Relaying
from tidings.consuming.runner import LaneRunner, Use
from tidings.consuming.scheduled import Timers
from tidings.consuming.subscription import PROJECTION, WORK, Subscription
from tidings.consuming.upkeep import maintain
from tidings.errors import StoreError
from tidings.events import Registry, event_type
from tidings.publishing.producer import Producer
from tidings.publishing.relay import Relay
from tidings.rows import WorkerRow
from tidings.statements import Statements
from tidings.store import SUBSCRIPTION_CHANGED, Store
from tidings.transport import Transport
from tidings.world import World

log = logging.getLogger("tidings")

SWEEP_SECONDS = 60.0
"""Seconds between sweeps of what is parked."""

UPKEEP_SECONDS = 300.0
"""Seconds from one upkeep of a log to the next, by whichever worker sweeps first."""

FIRST_LOOK, LONGEST_LOOK = 0.005, 0.1
"""Seconds between looks for other processes' commits: short after one was seen, doubled while nothing comes."""

CANCEL_SECONDS = 5.0
"""Seconds that what was cancelled, and the release of leases, may take."""

REFUSALS = 20
"""Events that a broker refuses in a row for now, after which the relay only probes it."""

CONSUMERS, RELAYS = "consumers", "relay"
"""Roles of a worker: it handles subscriptions, it carries the log to the transport."""


def handles(subscription: str) -> str:
    """Return the role of a worker that handles a subscription."""
    return f"{CONSUMERS}:{subscription}"


class Worker:
    """Everything that one process runs for a service."""

    def __init__(
        self,
        row: WorkerRow,
        subscriptions: Sequence[Subscription],
        registry: Registry,
        producer: Producer,
        store: Store,
        world: World,
        transport: Transport | None,
        landing: Transport | None,
        carried: Sequence[str],
        horizon_seconds: float,
        blobs: Blobs | None,
        openings: Openings,
        followed: FollowedLog | None = None,
    ) -> None:
        self._row = row
        self._subscriptions = subscriptions
        self._registry = registry
        self._producer = producer
        self._store = store
        self._world = world
        self._transport, self._inward = transport, landing
        self._carried = carried
        self._horizon = horizon_seconds
        self._blobs = blobs
        self.following = self._follow(followed) if followed is not None and CONSUMERS in row.roles else None
        self.openings = openings
        self._pipelines = {s.name: Pipeline(s, registry) for s in subscriptions}
        self.heartbeat = Heartbeat(row, store, world, self._membership_changed)
        # In a process, one event at a time that may kill it: so its death is counted for nothing else.
        self._one_careful, self._one_suspect = asyncio.Lock(), asyncio.Lock()
        self.lanes: list[LaneRunner] = []
        self.work: list[WorkRunner] = []
        self._timers = Timers(store, world)
        self._landing: Landing | None = None
        self._tasks, self._arriving, self._background = [list[asyncio.Task[None]]() for _ in range(3)]
        self._hurry = asyncio.Event()

    @property
    def id(self) -> str:
        """The worker's id, on which its leases hang."""
        return self._row.id

    @property
    def _relay_name(self) -> str:
        return f"{self._row.service}:relay"

    async def start(self) -> None:
        """Register the subscriptions, and start what the worker's roles ask for. Raises what registration raises."""
        await self._store.run(self._register)
        await self.heartbeat.beat()
        self._start(self.heartbeat.run())
        self._background = [
            asyncio.create_task(self._look_elsewhere()),
            asyncio.create_task(self._watch_membership()),
        ]
        if CONSUMERS in self._row.roles:
            self._start_consumers()
        if RELAYS in self._row.roles and self._transport is not None:
            self._when_open(self._transport, self._relay_name, self._start_relay)
        await self._membership_changed()  # the first beat may have buried a worker whose work nobody took back

    async def _register(self, statements: Statements) -> None:
        self._subscriptions = await register(statements, self._row.service, self._subscriptions)
        if self._transport is not None:
            self._carried = await register_relay(statements, self._relay_name, self._row.service, self._carried)
        await unpark(statements, self._subscriptions, self._pipelines, self._world)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.append(task)
        return task

    def _start_consumers(self) -> None:
        for subscription in self._subscriptions:
            self._start_subscription(subscription)
        self._start(self._timers.run())
        if self._inward is not None:
            source, horizon = self._producer.source, self._horizon
            self._landing = Landing(self._inward, self._store, self._world, source, horizon, self._blobs)
            if self._inward.capabilities.receives:
                self._when_open(self._inward, "landing", self._start_landing)
            given_up = [one for one in (self._transport, self._inward) if one is not None and one.dead is not None]
            for transport in dict.fromkeys(given_up):
                self._when_open(transport, "draining", self._start_draining)
        if self.following is not None:
            self._arriving.append(asyncio.create_task(self.following.run()))
        self._background.append(asyncio.create_task(self._sweep()))

    def _follow(self, followed: FollowedLog) -> Following:
        types = {name for subscription in self._subscriptions for name in subscription.types}
        return Following(followed, self._store, self._world, self._producer.source, types)

    def _when_open(self, transport: Transport, name: str, start: Callable[[Transport], None]) -> None:
        """Start a part of this worker: now, or once its transport and the place of large bodies are open."""
        places = [place for place in (transport, self._blobs) if place is not None]
        if self.openings.are_open(places):
            start(transport)
        else:
            self.openings.waiting.add(name)
            self._arriving.append(asyncio.create_task(self._start_later(transport, places, name, start)))

    async def _start_later(
        self, transport: Transport, places: Sequence[Place], name: str, start: Callable[[Transport], None]
    ) -> None:
        await self.openings.wait(places)
        self.openings.waiting.discard(name)
        start(transport)

    def _start_landing(self, transport: Transport) -> None:
        assert self._landing is not None
        self._arriving.append(asyncio.create_task(self._landing.run()))

    def _start_draining(self, transport: Transport) -> None:
        assert self._landing is not None
        assert transport.dead is not None
        service = self._row.service
        draining = Draining(transport.dead, self._landing, self._store, self._world, service, self._relay_name)
        self._arriving.append(asyncio.create_task(draining.run()))

    def _start_subscription(self, subscription: Subscription) -> None:
        pipeline = self._pipelines[subscription.name]
        outage = Outage(subscription.pause_after)
        if subscription.kind == WORK:
            work = WorkRunner(
                subscription,
                pipeline,
                self._producer,
                self._store,
                self._world,
                self.id,
                outage,
                self._one_suspect,
                self._is_calm,
            )
            self.work.append(work)
            self._start(work.run())
            use: Use = Filling(subscription, self._store, self._world)
            self._start_lanes(
                subscription.name, subscription.types, use, Outage(None), version=subscription.version, work=work
            )
        else:
            of = Projecting if subscription.kind == PROJECTION else Effects
            use = of(subscription, pipeline, self._producer, self._store, self._world, self._one_careful)
            self._start_lanes(subscription.name, subscription.types, use, outage, version=subscription.version)

    def _start_lanes(
        self,
        name: str,
        types: Sequence[str] | None,
        use: Use,
        outage: Outage,
        *,
        version: int | None = None,
        role: str | None = None,
        work: WorkRunner | None = None,
    ) -> None:
        runner = LaneRunner(
            name,
            types,
            self._store,
            self._world,
            self.id,
            use,
            outage,
            lambda: self.heartbeat.alive_as(role or handles(name)),
            work.pause if work is not None else lambda paused: None,
            version,
        )
        self.lanes.append(runner)
        self._start(runner.run())

    def _start_relay(self, transport: Transport) -> None:
        relay = Relay(self._relay_name, self._producer.source, transport, self._store, self._world, self._blobs)
        use = Relaying(relay, self._store, self._world)
        self._start_lanes(self._relay_name, self._carried or None, use, Outage(REFUSALS), role=RELAYS)

    def _is_calm(self) -> bool:
        return all(lane.lanes.calm_everywhere for lane in self.lanes)

    async def _membership_changed(self) -> None:
        for lane in self.lanes:
            lane.rebalance()
        for work in self.work:
            await work.reclaim(self.heartbeat.alive_in)

    def wake(self) -> None:
        """Let every part look again: a test has moved the clock."""
        parts: list[LaneRunner | WorkRunner | Timers] = [*self.lanes, *self.work, self._timers]
        for part in parts:
            part.wake()

    async def _look_elsewhere(self) -> None:
        pause = FIRST_LOOK
        while True:
            try:
                changed = await self._store.look_elsewhere()
            except StoreError as error:
                log.warning("Looking for other processes' commits failed and is tried again: %s", error)
                changed = False
            if changed is None:
                return
            pause = FIRST_LOOK if changed else min(pause * 2, LONGEST_LOOK)
            await asyncio.sleep(pause)

    async def _watch_membership(self) -> None:
        async for _ in changes(self._store, [SUBSCRIPTION_CHANGED]):
            try:
                await self.heartbeat.look()
            except StoreError as error:
                log.warning("Looking who is alive failed; the next heartbeat looks again: %s", error)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self._store.run(self._unpark_all)
            except Exception as error:
                log.warning("The sweep of parked events failed and is tried again: %s", error)
            try:
                await self._keep_up()
            except Exception as error:
                log.warning("The upkeep of the log failed and is tried again: %s", error)

    async def _keep_up(self) -> None:
        horizon, now = int(self._horizon * 1e6), self._world.now()
        if not await self._store.take_turn(self._row.service, horizon, now, int(UPKEEP_SECONDS * 1e6)):
            return
        keeps = sorted({event_type(cls).keep for cls in self._registry.classes()})
        done = await maintain(self._store, now=now, horizon=horizon, keeps=keeps)
        if done.admitted or any(done.dropped.values()):
            log.info("Upkeep let go of %s events and %d admissions.", sum(done.dropped.values()), done.admitted)

    async def _unpark_all(self, statements: Statements) -> None:
        await unpark(statements, self._subscriptions, self._pipelines, self._world)

    async def stop(self, grace_seconds: float) -> None:
        """Receive nothing more, let handlers finish within the grace time, release every lease.

        A cancellation ends the grace time, and is raised once nothing is left half-done. What the store refuses
        meanwhile is logged: leases that were not released end by themselves.
        """
        ending = asyncio.get_running_loop().create_task(self._stop(grace_seconds))
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                cancelled = error
                self._hurry.set()
        if cancelled is not None:
            raise cancelled
        ending.result()

    async def _stop(self, grace_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_seconds
        await self._end_landing()
        parts: list[LaneRunner | WorkRunner | Timers] = [*self.lanes, *self.work, self._timers]
        for part in parts:
            part.stop()
        self.heartbeat.stop()
        late = await self._ended_within(grace_seconds)
        if late:
            log.warning(
                "%d parts did not end within the grace time of %g s; they are cancelled.", len(late), grace_seconds
            )
            for work in self.work:
                await work.abandon()
            await _cancel(late, max(0.5, until - loop.time()))
        await _cancel(self._background, CANCEL_SECONDS)
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                log.error("A part of the worker has failed.", exc_info=task.exception())
        what = "The lanes of {} could not be released"
        await asyncio.gather(*[self._told(lane.lanes.release, what.format(lane.name)) for lane in self.lanes])
        await self._told(self.heartbeat.retire, "The worker could not be retired")

    async def _ended_within(self, seconds: float) -> list[asyncio.Task[None]]:
        """Wait until every part has ended, the time is over, or there is no time; return those that have not."""
        hurry: asyncio.Future[Any] = asyncio.create_task(self._hurry.wait())
        ended: asyncio.Future[Any] = asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await asyncio.wait([ended, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
        return [task for task in self._tasks if not task.done()]

    async def _told(self, end: Callable[[], Awaitable[None]], what: str) -> None:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await end()
        except Exception as error:  # its leases end by themselves
            log.warning("%s; others take over within %g s: %s", what, LEASE_SECONDS, error)

    async def _end_landing(self) -> None:
        for arriving in (self._landing, self.following):
            if arriving is not None:
                arriving.stop()
        await _cancel(self._arriving, CANCEL_SECONDS)


async def _cancel(tasks: Collection[asyncio.Task[None]], seconds: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
