"""Bugs that others have shipped, planted into what runs on Postgres: each is seen by what it leaves behind.

Every scenario runs twice, with the bug and without, so that it is the bug that makes the difference. Readers by
position and by the oldest running transaction are in test_fence.py.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from tidings import Event, Service, Transaction, Work, points
from tidings.backends.postgres import PostgresStore, open_store
from tidings.backends.postgres.statements import PostgresStatements
from tidings.consuming import ready
from tidings.consuming.ready import Filling
from tidings.errors import StoreUnavailableError
from tidings.events import Envelope
from tidings.operations import status
from tidings.rows import LaneStep, Ready
from tidings.statements import Statements
from tidings.store import READY_CHANGED
from tidings.testing.conformance import StoreSuite
from tidings.testing.conformance.samples import envelope, still_world
from tidings.testing.simulation.mutants import planted
from tidings.transport import Capabilities, Delivery, Refusal

with_and_without = pytest.mark.parametrize("bug", [False, True], ids=["without", "with"])


class Asked(Event, name="planted.asked", key="account"):
    account: str
    number: int


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 - other connections do it
            await asyncio.sleep(0.02)


def is_idle(service: Service) -> Callable[[], Awaitable[bool]]:
    """Return what says whether a service has handled everything."""

    async def look() -> bool:
        try:
            state = await status(service.store, now=service.world.now())
        except StoreUnavailableError:
            return False
        return all(not one.pending and not any(one.counts.values()) for one in state.subscriptions)

    return look


def cut_all(url: str) -> None:
    """End every other connection to the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


@contextmanager
def cutting_at(point: str, times: int, url: str) -> Iterator[None]:
    """Cut every connection at the first visits of a point."""
    left = times

    def visited(reached: str) -> None:
        nonlocal left
        if reached == point and left:
            left -= 1
            cut_all(url)

    points.watch(visited)
    try:
        yield
    finally:
        points.watch(None)
    assert not left, f"{point} was not reached so often"


@with_and_without
async def test_progress_outside_the_transaction_repeats_effects(bug: bool, postgres_url: str) -> None:
    service = Service("progress", store=postgres_url)
    service.schema("CREATE TABLE IF NOT EXISTS effect (number integer)")

    @service.subscribe(Asked, ordered=True)
    async def note(event: Asked, tx: Transaction) -> None:
        await tx.execute("INSERT INTO effect VALUES ($1)", event.number)

    with planted("progress_outside_the_transaction" if bug else None):
        async with service:
            with cutting_at("lane.after_commit", 2, postgres_url):
                for number in range(10):
                    await service.publish(Asked(account=f"a{number % 3}", number=number))
                    await until(is_idle(service))
            effects = await service.fetch_all("SELECT number FROM effect")
    seen = Counter(row[0] for row in effects)
    assert set(seen) == set(range(10))
    assert (max(seen.values()) > 1) is bug


@with_and_without
async def test_a_settlement_without_a_fence_doubles_the_effects_of_a_zombie(
    bug: bool, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unfenced(statements: Any, row: Ready) -> None:
        await statements.execute("DELETE FROM tidings.ready WHERE position = $1", (row.position,))

    if bug:
        monkeypatch.setattr(ready, "settle", unfenced)
    service = Service("zombie", store=postgres_url)
    service.schema("CREATE TABLE IF NOT EXISTS effect (attempt integer)")
    second_is_over = asyncio.Event()

    @service.subscribe(Asked)
    async def deliver(event: Asked, work: Work) -> None:
        if work.attempt == 1:
            await take_over(service)
            await second_is_over.wait()
        async with work.finish() as tx:
            await tx.execute("INSERT INTO effect VALUES ($1)", work.attempt)
        second_is_over.set()

    async with service:
        await service.publish(Asked(account="a", number=1))
        await second_is_over.wait()
        await until(is_idle(service))
    async with service.running(consumers=False):
        effects = await service.fetch_all("SELECT attempt FROM effect ORDER BY attempt")
    assert [row[0] for row in effects] == ([1, 2] if bug else [2])


async def take_over(service: Service) -> None:
    """Do what happens to a worker that was frozen too long: its work waits again, its attempt counted."""
    async with service.transaction() as tx:
        await tx.execute("UPDATE tidings.ready SET owner = NULL")
    assert isinstance(service.store, PostgresStore)
    service.store.notify({READY_CHANGED})


class AllOpen(set[str]):
    """Keys that are closed, of which nobody takes notice."""

    def __contains__(self, key: object) -> bool:
        return False


@with_and_without
async def test_claims_that_skip_locked_rows_break_the_order_of_a_key(
    bug: bool, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one row per key at a time, whoever comes first takes the next one: SKIP LOCKED alone keeps no order."""

    async def none_closed(self: Filling, statements: Statements, keys: Sequence[str | None]) -> set[str]:
        return AllOpen()

    if bug:
        monkeypatch.setattr(Filling, "_closed", none_closed)
        monkeypatch.setattr(Filling, "_row", _row_without_key)
    made = [Service("claims", store=postgres_url) for _ in range(2)]
    for service in made:
        service.schema("CREATE TABLE IF NOT EXISTS effect (seq bigserial, number integer)")

        @service.subscribe(Asked, ordered=True)
        async def deliver(event: Asked, work: Work) -> None:
            await asyncio.sleep(0.02 if event.number % 3 == 0 else 0)
            async with work.finish() as tx:
                await tx.execute("INSERT INTO effect (number) VALUES ($1)", event.number)

    async with made[0], made[1]:
        async with made[0].transaction() as tx:
            for number in range(12):
                tx.publish(Asked(account="a", number=number))
        await until(is_idle(made[0]))
        effects = await made[0].fetch_all("SELECT number FROM effect ORDER BY seq")
    numbers = [row[0] for row in effects]
    assert sorted(numbers) == list(range(12))
    assert (numbers != list(range(12))) is bug


def _row_without_key(self: Filling, record: Any) -> Ready:
    return Ready(self._subscription.name, "", record.position, record.lane, None)


class Broker:
    """A real transport to nowhere: each batch takes its time, and what was sent is kept in order."""

    capabilities = Capabilities(ordered_by_key=True, max_bytes=100_000, max_batch=5)
    dead = None

    def __init__(self, sent: list[Envelope], seed: int) -> None:
        self._sent = sent
        self._random = random.Random(seed)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        await asyncio.sleep(self._random.uniform(0, 0.01))
        self._sent.extend(envelopes)
        return []

    async def receive(self, limit: int) -> list[Delivery]:
        return await asyncio.Future()

    async def settle(self, deliveries: Sequence[Delivery]) -> None: ...


@with_and_without
async def test_relays_that_skip_locked_rows_break_the_order_of_a_key(bug: bool, postgres_url: str) -> None:
    sent: list[Envelope] = []
    made = [Service("relays", store=postgres_url, transport=f"memory://{number}") for number in range(3)]
    for number, service in enumerate(made):
        service.transport = Broker(sent, number)
    async with made[0].running(relay=False), made[1].running(relay=not bug), made[2].running(relay=not bug):
        for number in range(60):
            await made[0].publish(Asked(account=f"a{number % 2}", number=number))
        if bug:
            await made[0].store.script("CREATE TABLE unsent AS SELECT position FROM tidings.log")
            await asyncio.gather(*(relay_by_skip_locked(service) for service in made))

        async def all_sent() -> bool:
            return len({one.id for one in sent}) == 60

        await until(all_sent)
        log = [record.envelope for record in await made[0].store.reading.recent(0, 100)]
    in_order = [[one.id for one in log if one.key == key] for key in ("a0", "a1")]
    first_sent = list({one.id: one for one in sent}.values())
    assert ([[one.id for one in first_sent if one.key == key] for key in ("a0", "a1")] != in_order) is bug


async def relay_by_skip_locked(service: Service) -> None:
    """Send what nobody else is sending, as many outbox relays do."""
    assert service.transport is not None
    take = "SELECT position FROM unsent ORDER BY position LIMIT 5 FOR UPDATE SKIP LOCKED"
    while True:
        async with service.store.transaction() as statements:
            taken = [row[0] for row in (await statements.query(take, ()))[1]]
            if not taken:
                return
            records = await statements.records(taken)
            await service.transport.send([records[position].envelope for position in sorted(taken)])
            await statements.execute("DELETE FROM unsent WHERE position = ANY ($1)", (taken,))  # type: ignore[arg-type]


@with_and_without
async def test_admission_by_arrival_takes_a_late_copy_for_another_event(
    bug: bool, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has been handled and dropped, as its retention allows, when the broker delivers it again."""
    admit, arrivals = PostgresStatements.admit, iter(range(1, 100))

    async def admit_by_arrival(
        self: PostgresStatements, envelopes: Sequence[Envelope], *, undated_at: int | None = None
    ) -> list[Envelope]:
        arrived = timedelta(milliseconds=next(arrivals))
        return await admit(self, [replace(one, time=one.time + arrived) for one in envelopes], undated_at=undated_at)

    if bug:
        monkeypatch.setattr(PostgresStatements, "admit", admit_by_arrival)
    service = Service("landing", store=postgres_url)

    async def land(statements: Statements) -> int:
        fresh = await statements.admit([envelope("e", keep="60")])
        await statements.append(fresh)
        return len(fresh)

    async with service.running(consumers=False):
        assert await service.store.run(land) == 1
        assert await service.store.run(lambda statements: statements.drop("60", 0, 10, service.world.now())) == 1
        assert (await service.store.run(land) == 1) is bug


class Conformance(StoreSuite):
    def __init__(self, url: str) -> None:
        self._url = url

    def make(self, folder: Path) -> PostgresStore:
        return open_store(self._url, still_world())


@with_and_without
async def test_unfenced_progress_fails_the_conformance_suite(
    bug: bool, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def advance(self: PostgresStatements, subscription: str, steps: Sequence[LaneStep]) -> bool:
        for step in steps:
            await self._db.run(
                "INSERT INTO tidings.progress (subscription, lane, step, position, owner) "
                "SELECT $1, $2, max(step) + 1, $3, $4 FROM tidings.progress WHERE subscription = $1 AND lane = $2",
                subscription,
                step.lane,
                step.position,
                step.owner,
            )
        return True

    if bug:
        monkeypatch.setattr(PostgresStatements, "advance", advance)
    try:
        await Conformance(postgres_url).test_progress_is_fenced_by_its_steps(tmp_path)
    except AssertionError:
        assert bug
    else:
        assert not bug
