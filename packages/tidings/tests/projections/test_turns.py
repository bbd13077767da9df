"""Inline projections of transactions that come at once, over both stores."""

import asyncio

import pytest
from accounts import Deposited, balances, bank, table

from tidings.publishing.producer import Producer

pytestmark = pytest.mark.timeout(60)


async def test_transactions_that_publish_in_another_order_do_not_get_in_each_others_way(store_url: str) -> None:
    service = bank(store_url)
    balances(service, inline=True)
    names = ["a", "b", "c", "d"]

    async def deposit(order: list[str]) -> None:
        for _ in range(5):
            async with service.transaction() as tx:
                for name in order:
                    tx.publish(Deposited(account=name, cents=1))

    async with service.running(consumers=False):  # no lane runs: all of it is handled inline
        await asyncio.gather(*(deposit(names[n:] + names[:n]) for n in range(4)), deposit(names[::-1]))
        assert await table(service, 1) == [(name, 25, 25) for name in names]


async def test_none_of_a_key_is_handled_inline_before_an_earlier_one_that_was_left_to_its_lane(store_url: str) -> None:
    service = bank(store_url)
    view = balances(service, inline=True)
    async with service.running(consumers=False):
        async with service.store.transaction() as statements:  # a publish whose event could not be handled inline
            left = Producer("bank", service.registry, service.world).wrap(Deposited(account="ann", cents=1))
            await statements.wait_for_inline_turn("balances@1", [left])
            await statements.append([left])
            later = asyncio.create_task(service.publish(Deposited(account="ann", cents=2)))
            await asyncio.wait([later], timeout=0.3)
            assert not later.done()
        said = await later
        assert await table(service, 1) == []  # a lane's now, both of them
    async with service:
        await view.wait_until_caught_up(said)
        assert await table(service, 1) == [("ann", 3, 2)]
