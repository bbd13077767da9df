"""What the simulator found about lanes, as plain tests: nobody keeps a lane that he lost, and none is left alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidings.backends.sqlite import SqliteStore, open_store
from tidings.consuming.lanes import Lanes
from tidings.testing.conformance.samples import envelope, still_world, subscription


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = open_store(f"sqlite:///{tmp_path}/lanes.db", still_world())
    await store.open(migrate=True)
    await store.run(lambda statements: statements.register(subscription()))
    yield store
    await store.close()


def lanes_of(store: SqliteStore, worker: str) -> Lanes:
    return Lanes("sub", ["suite.happened"], store, worker)


async def test_a_worker_notices_that_its_lanes_were_taken(store: SqliteStore) -> None:
    ann, bob = lanes_of(store, "ann"), lanes_of(store, "bob")
    await ann.rebalance({"ann"})
    assert len(ann.owned) == store.lanes
    await bob.rebalance({"bob"})  # bob's clock is wrong: ann looks dead to him
    assert len(bob.owned) == store.lanes
    assert not await ann.is_short({"ann", "bob"})  # nothing is free
    assert ann.owned == []
    await bob.release()
    assert await ann.is_short({"ann"})
    await ann.rebalance({"ann"})
    assert len(ann.owned) == store.lanes


async def test_lanes_in_a_workers_own_name_are_taken_back_beyond_its_part(store: SqliteStore) -> None:
    ann = lanes_of(store, "ann")
    await ann.rebalance({"ann"})
    ann.lose_all()
    assert await ann.is_short({"ann", "bob"})
    await ann.rebalance({"ann", "bob"})
    assert len(ann.owned) == store.lanes
    assert ann.calm_everywhere  # ann has not died meanwhile
    assert await ann.is_short({"ann", "bob"})
    await ann.rebalance({"ann", "bob"})
    assert len(ann.owned) == store.lanes // 2  # the rest is handed on


async def test_what_was_read_ahead_comes_only_after_the_commit_that_it_was_to_follow(store: SqliteStore) -> None:
    await store.publish([envelope(str(number)) for number in range(6)])
    ann = lanes_of(store, "ann")
    await ann.rebalance({"ann"})
    records, seen, _ = await ann.read(2)
    ann.read_ahead(seen, 2)
    again, _, _ = await ann.read(2)  # the commit has failed: nothing was confirmed
    assert [record.position for record in again] == [record.position for record in records]
    ann.read_ahead(seen, 2)
    ann.confirm(ann.moves({record.lane for record in records}, seen), seen)
    following, _, _ = await ann.read(2)
    assert [record.position for record in following] == [seen + 1, seen + 2]
    ann.read_ahead(seen + 2, 2)
    ann.lose_all()
    assert await ann.read(2) == ([], 0, False)
    ann.forget_ahead()
