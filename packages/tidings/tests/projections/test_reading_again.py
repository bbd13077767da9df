"""What a replay and "caught up" promise while workers run and events are retried, over both stores."""

import asyncio
from datetime import timedelta

import pytest
from accounts import Deposited, Troubles, balances, bank, table

from tidings import ProjectionLagError, RetryPolicy, Transaction
from tidings.consuming.lanes import Lanes
from tidings.errors import LeaseLostError
from tidings.sourcing import replay

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("exact", [False, True])
async def test_what_is_retried_is_not_handled_yet(store_url: str, exact: bool) -> None:
    troubles = Troubles()
    service = bank(store_url)
    view = balances(service, troubles=troubles, retry=RetryPolicy(attempts=500, backoff=timedelta(milliseconds=20)))
    async with service:
        said = await service.publish(Deposited(account="ann", cents=1, poison=True))
        (record,) = await service.store.reading.find(said.id)
        position = record.position if exact else None
        with pytest.raises(ProjectionLagError):
            await view.wait_until_caught_up(position, patience=timedelta(milliseconds=500))
        troubles.mended = True
        await view.wait_until_caught_up(position, patience=timedelta(seconds=30))
        assert await table(service, 1) == [("ann", 1, 1)]


async def test_a_worker_that_has_not_heard_of_a_replay_does_not_move_its_lanes(store_url: str) -> None:
    service = bank(store_url)

    @service.subscribe(Deposited, start="beginning")
    async def look(event: Deposited, tx: Transaction) -> None: ...

    async with service:
        await asyncio.sleep(0)
    async with service.running(consumers=False, relay=False):
        store = service.store
        head = await store.reading.head()
        first, second = (Lanes("look", None, store, worker) for worker in ("first", "second"))
        await first.rebalance(["first"])
        await replay.replay(store, "look", 0)
        owned = len(first.owned)

        async def is_refused() -> None:
            with pytest.raises(LeaseLostError):
                await store.run(lambda statements: first.insert(statements, first.moves(first.owned, head + 5)))

        await is_refused()
        await second.rebalance(["second"])  # carries the new chain on, past the step that the first one knows
        for _ in range(3):
            await is_refused()
            steps = second.fences(second.owned)
            await store.run(lambda statements, steps=steps: second.insert(statements, steps))  # type: ignore[misc]
            second.confirm(steps)
        assert owned == store.lanes
        assert {step.position for step in await store.reading.steps("look")} == {0}
