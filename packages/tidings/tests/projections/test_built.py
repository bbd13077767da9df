"""A version that goes live by itself: not before it is built, and then without being asked."""

import asyncio
from datetime import timedelta

import pytest
from accounts import Deposited, Troubles, balances, bank

from tidings import RetryPolicy
from tidings.operations import Filter, letters, redrive
from tidings.sourcing import replay

AT_ONCE = RetryPolicy(attempts=2, backoff=timedelta(0))

pytestmark = pytest.mark.timeout(60)


async def test_a_version_goes_live_by_itself_once_it_is_built(store_url: str) -> None:
    service = bank(store_url)
    old = balances(service, 1)
    async with service:
        await asyncio.gather(*(service.publish(Deposited(account=f"a{n % 7}", cents=n)) for n in range(50)))
        await old.wait_until_caught_up()
    troubles = Troubles()
    service = bank(store_url)
    view = balances(service, 1, troubles=_mended())
    balances(service, 2, troubles=troubles, retry=AT_ONCE, swap_when_built=True)
    async with service:
        await service.publish(Deposited(account="a1", cents=5, poison=True))
        async with asyncio.timeout(30):
            dead = Filter(subscription="balances@2")
            while not await letters(service.store, dead):  # noqa: ASYNC110 - a row
                await asyncio.sleep(0.01)
            await view.wait_until_caught_up()
            await asyncio.sleep(3 * replay.BUILT_PAUSE)  # the time in which it must not be swapped in
            assert await view.live_version() == 1
            troubles.mended = True
            await redrive(service.store, dead, actor="me", now=service.world.now())
            while await view.live_version() != 2:  # noqa: ASYNC110 - a row
                await asyncio.sleep(0.01)
        await view.wait_until_caught_up()
        assert await view.fetch_value("SELECT sum(moves) FROM {balances}") == 51
    async with service:  # and is live, whoever starts again
        assert await view.live_version() == 2


def _mended() -> Troubles:
    troubles = Troubles()
    troubles.mended = True
    return troubles
