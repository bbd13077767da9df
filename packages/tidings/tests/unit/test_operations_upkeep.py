"""Retention drops only what everybody has settled; status counts what is there; tail shows what comes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidings import Event, OperationError, RetryPolicy, Service, StoreVersionError, Transaction, Work, operations
from tidings.events import Envelope
from tidings.operations import DAY, Filter
from tidings.rows import LaneStep, Record, WorkerRow
from tidings.statements import Statements
from tidings.world import microseconds


class Kept(Event, name="upkeep.kept"):
    number: int


class Hourly(Event, name="upkeep.hourly", key="number", keep=timedelta(hours=1)):
    number: int


def now() -> int:
    return microseconds(datetime.now(UTC))


LATER = 2 * 3600 * 1_000_000


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true within 10 s")


def service_on(folder: Path) -> Service:
    return Service("shop", store=f"sqlite+apsw:///{folder}/log.db")


def all_settled(service: Service) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        state = await operations.status(service.store, now=now())
        return all(one.pending == 0 and not one.counts.get("ready") for one in state.subscriptions)

    return look


async def types_left(service: Service) -> list[str]:
    return [record.envelope.type for record in await service.store.reading.recent(0, 100)]


async def test_retention_drops_what_is_old_and_settled_only(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Hourly, Kept)
    async def count(event: Hourly | Kept, tx: Transaction) -> None: ...

    async with service:
        for number in range(3):
            await service.publish(Hourly(number=number))
            await service.publish(Kept(number=number))
        await until(all_settled(service))
        assert (await operations.maintain(service.store, now=now())).dropped == {"3600": 0}
        done = await operations.maintain(service.store, now=now() + LATER)
        assert done.dropped == {"3600": 3}
        assert await types_left(service) == ["upkeep.kept"] * 3
        again = await service.publish(Kept(number=9))
        (found,) = await operations.where(service.store, again.id, now=now())
        assert found.position == 7  # positions are never given twice


async def test_what_is_pending_outlives_its_retention(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Hourly)
    async def count(event: Hourly, tx: Transaction) -> None: ...

    async with service.running(consumers=False):
        for number in range(3):
            await service.publish(Hourly(number=number))
        assert (await operations.maintain(service.store, now=now() + LATER)).dropped == {"3600": 0}
        assert len(await types_left(service)) == 3


async def test_one_slow_subscription_keeps_the_events_of_all(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Hourly)
    async def quick(event: Hourly, tx: Transaction) -> None: ...

    @service.subscribe(Hourly)
    async def paused(event: Hourly, tx: Transaction) -> None: ...

    async with service.running(consumers=False):
        await operations.pause(service.store, "paused", actor="ann", reason="slow")
    async with service:
        event = await service.publish(Hourly(number=1))

        async def handled() -> bool:
            (found,) = await operations.where(service.store, event.id, now=now())
            return {one.subscription: one.state for one in found.places}["quick"] == "handled"

        await until(handled)
        assert (await operations.maintain(service.store, now=now() + LATER)).dropped == {"3600": 0}
        await operations.resume(service.store, "paused")
        await until(all_settled(service))
        assert (await operations.maintain(service.store, now=now() + LATER)).dropped == {"3600": 1}


async def test_dead_letters_outlive_their_retention_and_can_still_be_redriven(tmp_path: Path) -> None:
    service = service_on(tmp_path)
    broken, handled = True, []

    @service.subscribe(Hourly, ordered=True, retry=RetryPolicy(attempts=1), after_dead="continue")
    async def by_effect(event: Hourly, tx: Transaction) -> None:
        if event.number == 1 and broken:
            raise ValueError("no")
        handled.append(("effect", event.number))

    @service.subscribe(Hourly, retry=RetryPolicy(attempts=1))
    async def by_work(event: Hourly, work: Work) -> None:
        if event.number == 1 and broken:
            raise ValueError("no")
        handled.append(("work", event.number))

    async with service:
        dead = await service.publish(Hourly(number=1))
        for number in range(2, 6):
            await service.publish(Hourly(number=number))
        await until(all_settled(service))
        assert (await operations.maintain(service.store, now=now() + LATER)).dropped == {"3600": 4}
        letters = await operations.letters(service.store, Filter())
        assert [letter.event for letter in letters] == [dead, dead]
        broken = False
        await operations.redrive(service.store, Filter(), actor="ann", now=now())

        async def both() -> bool:
            return {("effect", 1), ("work", 1)} <= set(handled)

        await until(both)
        await until(all_settled(service))

        async def gone() -> bool:
            return (await operations.maintain(service.store, now=now() + LATER)).dropped == {"3600": 1}

        await until(gone)


async def test_admissions_past_the_horizon_are_forgotten_in_chunks(tmp_path: Path) -> None:
    service = service_on(tmp_path)
    async with service:
        old = datetime.now(UTC) - timedelta(days=20)
        copies = [
            Envelope(id=str(n), source="x", type="a.b", time=old, correlation=str(n), data=b"{}") for n in range(12_000)
        ]
        fresh = Envelope(id="f", source="x", type="a.b", time=datetime.now(UTC), correlation="f", data=b"{}")
        for start in range(0, len(copies), 4000):
            chunk = copies[start : start + 4000]
            await service.store.run(lambda statements, chunk=chunk: statements.admit(chunk))
        await service.store.run(lambda statements: statements.admit([fresh]))
        assert (await operations.maintain(service.store, now=now(), horizon=30 * DAY)).admitted == 0
        assert (await operations.maintain(service.store, now=now(), horizon=14 * DAY)).admitted == 12_000
        assert await service.store.run(lambda statements: statements.admit([fresh])) == []


async def test_migrations_are_listed_and_applied_once(tmp_path: Path) -> None:
    service = service_on(tmp_path)
    names = [one.name for one in await operations.migrations(service.store)]
    assert names[0] == "0001_log"
    assert not any(one.applied for one in await operations.migrations(service.store))
    assert not (tmp_path / "log.db").exists()  # looking makes no file
    assert await operations.migrate(service.store) == names
    assert all(one.applied for one in await operations.migrations(service.store))
    assert await operations.migrate(service.store) == []


async def test_a_store_without_migrations_says_how_to_apply_them(tmp_path: Path) -> None:
    (tmp_path / "log.db").touch()
    with pytest.raises(StoreVersionError, match="tidings store migrate"):
        await service_on(tmp_path).store.open(migrate=False, read_only=True)


async def test_status_counts_the_lag_exactly_and_names_the_worker(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Hourly)
    async def count(event: Hourly, tx: Transaction) -> None: ...

    async with service.running(consumers=False):
        for number in range(5):
            await service.publish(Hourly(number=number))
            await service.publish(Kept(number=number))
        await service.publish(Kept(number=9), delay=timedelta(hours=1))
        state = await operations.status(service.store, now=now() + 60_000_000)
        (one,) = state.subscriptions
        assert (one.name, one.pending, one.lanes, state.head, state.scheduled) == ("count", 5, 0, 10, 1)
        assert 60 <= one.lag_seconds < 70
    async with service:
        await until(all_settled(service))
        state = await operations.status(service.store, now=now())
        (one,) = state.subscriptions
        (worker,) = state.workers
        assert service.worker is not None
        assert (worker.id, worker.alive, worker.roles) == (service.worker.id, True, ("consumers",))
        assert (one.lanes, one.lag_seconds, one.oldest) == (service.store.lanes, 0.0, None)


async def test_status_tells_a_dead_worker_from_one_at_work(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Hourly)
    async def count(event: Hourly, tx: Transaction) -> None: ...

    async with service.running(consumers=False):
        ghost = WorkerRow("ghost", "shop", "another host", 1, now(), now() - 1, ("consumers",))

        async def haunt(statements: Statements) -> None:
            (step,) = [one for one in await statements.steps("count") if one.lane == 0]
            await statements.advance("count", [LaneStep(0, step.step + 1, step.position, "ghost")])
            await statements.beat(ghost, now())

        await service.store.run(haunt)
        state = await operations.status(service.store, now=now())
        assert {worker.id: worker.alive for worker in state.workers}["ghost"] is False
        assert state.subscriptions[0].lanes == 0


async def test_forget_gives_up_and_says_what_it_knows_instead(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Hourly)
    async def count(event: Hourly, tx: Transaction) -> None: ...

    async with service.running(consumers=False):
        await operations.forget(service.store, "count")
        assert (await operations.status(service.store, now=now())).subscriptions == ()
        with pytest.raises(OperationError, match="no subscription 'count': it knows none"):
            await operations.forget(service.store, "count")
        with pytest.raises(OperationError, match="no subscription 'count'"):
            await operations.resume(service.store, "count")
        with pytest.raises(OperationError, match="give both"):
            await operations.pause(service.store, "count", actor="ann", reason=" ")


async def test_tail_yields_what_is_committed_by_any_process(tmp_path: Path) -> None:
    writer, reader = service_on(tmp_path), service_on(tmp_path)
    async with writer:
        await writer.publish(Kept(number=0))
        await reader.store.open(migrate=False, read_only=True)
        try:
            seen: list[Record] = []

            async def follow() -> None:
                async for record in operations.tail(reader.store, after=0, types=["upkeep.kept"], pause=0.01):
                    seen.append(record)
                    if len(seen) == 3:
                        return

            following = asyncio.create_task(follow())
            await asyncio.sleep(0.05)
            await writer.publish(Hourly(number=1))
            await writer.publish(Kept(number=1))
            await writer.publish(Kept(number=2))
            async with asyncio.timeout(5):
                await following
            assert [record.position for record in seen] == [1, 3, 4]
        finally:
            await reader.store.close()
