"""How careful a worker is with its lanes: after a death, and after it has only lost sight of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import pytest

from tidings.backends.sqlite import SqliteStore, open_store
from tidings.consuming.lanes import Lanes
from tidings.errors import StoreUnavailableError
from tidings.rows import LaneStep
from tidings.statements import Statements
from tidings.testing.conformance.samples import still_world, subscription


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    made = open_store("sqlite:///:memory:", still_world())
    await made.open(migrate=True)
    await made.run(lambda statements: statements.register(subscription()))
    yield made
    await made.close()


async def leave_all_to(store: SqliteStore, owner: str) -> None:
    """Leave every lane as a worker does that died."""

    async def unit(statements: Statements) -> None:
        steps = await statements.steps("sub")
        await statements.advance("sub", [LaneStep(s.lane, s.step + 1, s.position, owner) for s in steps])

    await store.run(unit)


async def taken(store: SqliteStore, *, alive: Collection[str] = ("me",)) -> Lanes:
    lanes = Lanes("sub", ("suite.happened",), store, "me")
    await lanes.rebalance(alive)
    assert len(lanes.owned) == store.lanes
    return lanes


async def test_lanes_that_were_released_are_calm_and_stay_so_when_they_were_only_lost_from_sight(
    store: SqliteStore,
) -> None:
    lanes = await taken(store)
    assert lanes.calm_everywhere
    lanes.lose_all()
    await lanes.rebalance({"me"})
    assert len(lanes.owned) == store.lanes
    assert lanes.calm_everywhere


async def test_the_lanes_of_a_dead_owner_stay_careful_until_a_batch_is_over(store: SqliteStore) -> None:
    await leave_all_to(store, "dead")
    lanes = await taken(store)
    lanes.calm(0, store.batch - 1)
    for _ in range(2):
        assert lanes.careful(0)
        assert lanes.careful(1)
        lanes.lose_all()
        assert await lanes.is_short({"me"})
        await lanes.rebalance({"me"})
    lanes.calm(1, 1)
    assert lanes.calm_everywhere


async def test_lanes_taken_from_a_dead_owner_by_a_commit_that_was_not_heard_of_are_careful(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = await taken(store)
    await leave_all_to(store, "dead")
    run = store.run

    async def run_unheard(unit: Callable[[Statements], Awaitable[Any]]) -> Any:
        await run(unit)
        raise StoreUnavailableError("The connection broke after the commit.")

    lanes.lose_all()
    monkeypatch.setattr(store, "run", run_unheard)
    with pytest.raises(StoreUnavailableError):
        await lanes.rebalance({"me"})
    monkeypatch.setattr(store, "run", run)
    await lanes.rebalance({"me"})
    assert len(lanes.owned) == store.lanes
    assert all(lanes.careful(lane) for lane in lanes.owned)


async def test_lanes_that_another_worker_had_meanwhile_are_as_that_one_left_them(store: SqliteStore) -> None:
    await leave_all_to(store, "dead")
    lanes = await taken(store)
    assert not lanes.calm_everywhere
    await leave_all_to(store, "other")
    assert not await lanes.is_short({"me", "other"})
    await store.run(lambda statements: release(statements))
    await lanes.rebalance({"me"})
    assert len(lanes.owned) == store.lanes
    assert lanes.calm_everywhere


async def release(statements: Statements) -> None:
    steps = await statements.steps("sub")
    await statements.advance("sub", [LaneStep(s.lane, s.step + 1, s.position, None) for s in steps])
