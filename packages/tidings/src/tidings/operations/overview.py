"""The state of a store at one moment, and its new events as they come."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from msgspec import Struct

from tidings.rows import LANDING, Followed, Record, SubscriptionRow, WorkerRow
from tidings.statements import Statements
from tidings.store import Store

SCHEDULED_SHOWN = 1000
"""Scheduled publishes that are counted at most."""

TAIL_PAUSE = 0.2
"""Seconds between looks for new events."""


class SubscriptionStatus(Struct, frozen=True):
    """How far one subscription is. `pending` events it has not reached; `oldest` of them (microseconds) makes the lag.

    `counts`: work and exceptions by state (`ready` includes what runs). `lanes`: how many lanes live workers own.
    """

    name: str
    service: str
    kind: str
    ordered: bool
    types: tuple[str, ...]
    start: int
    paused_by: str | None
    paused_because: str | None
    pending: int
    oldest: int | None
    lag_seconds: float
    running: int
    counts: Mapping[str, int]
    lanes: int


class WorkerStatus(Struct, frozen=True):
    """A worker that has not retired; one that is not `alive` has died, and loses its leases."""

    id: str
    service: str
    host: str
    pid: int
    started: int
    roles: tuple[str, ...]
    alive: bool


class Status(Struct, frozen=True):
    """A store at one moment. `head` is the newest position; `scheduled` counts to 1000 at most.

    `next_due`: when the first of those is due. `landing`: what landing holds by itself, by state.
    `followed`: by their places, how far other services' logs were read.
    """

    store: Mapping[str, object]
    head: int
    scheduled: int
    next_due: int | None
    landing: Mapping[str, int]
    subscriptions: tuple[SubscriptionStatus, ...]
    workers: tuple[WorkerStatus, ...]
    followed: Mapping[str, Followed]


async def status(store: Store, *, now: int) -> Status:
    """Return the state of a store."""
    async with store.snapshot() as said:
        workers = tuple(_worker(row, store.is_alive(row, now)) for row in await said.workers())
        alive = {worker.id for worker in workers if worker.alive}
        counts = await said.counts()
        rows = await said.subscriptions()
        return Status(
            store=dict(await store.status()),
            head=await said.head(),
            scheduled=len(await said.all_scheduled(SCHEDULED_SHOWN)),
            next_due=await said.next_scheduled(),
            landing=_by_state(counts, LANDING),
            subscriptions=tuple(
                [await _subscription(said, row, _by_state(counts, row.name), alive, now) for row in rows]
            ),
            workers=workers,
            followed=await said.followed_logs(),
        )


def _by_state(counts: Mapping[tuple[str, str], int], name: str) -> dict[str, int]:
    return {state: number for (subscription, state), number in counts.items() if subscription == name}


def _worker(row: WorkerRow, alive: bool) -> WorkerStatus:
    return WorkerStatus(
        row.id, row.service, row.host, row.pid, row.started, tuple(role for role in row.roles if ":" not in role), alive
    )


async def _subscription(
    said: Statements, row: SubscriptionRow, counts: Mapping[str, int], alive: set[str], now: int
) -> SubscriptionStatus:
    pending, oldest = await said.pending(row.name, row.types or None)
    return SubscriptionStatus(
        name=row.name,
        service=row.service,
        kind=row.kind,
        ordered=row.ordered,
        types=row.types,
        start=row.start,
        paused_by=row.paused_by,
        paused_because=row.paused_because,
        pending=pending,
        oldest=oldest,
        lag_seconds=0.0 if oldest is None else max(0.0, (now - oldest) / 1e6),
        running=sum(work.owner in alive for work in await said.running(row.name)),
        counts=counts,
        lanes=sum(step.owner in alive for step in await said.steps(row.name)),
    )


async def tail(
    store: Store, *, after: int | None = None, types: Sequence[str] | None = None, pause: float = TAIL_PAUSE
) -> AsyncIterator[Record]:
    """Yield events as they are committed, for ever: those after a position, or from now on; of some types, or all."""
    said = store.reading
    lanes = range(store.lanes)
    position = await said.head() if after is None else after
    while True:
        page = await said.read(position, types, lanes, 500)
        for record in page.records:
            yield record
        if page.scanned == position:
            await asyncio.sleep(pause)
        position = page.scanned
