"""Tables belong to one version of one projection, over both stores."""

import pytest
from accounts import BALANCES, Deposited, balances, bank, table

from tidings import ReadModel, Service, ServiceError

pytestmark = pytest.mark.timeout(60)


def counts(service: Service, schema: str = BALANCES) -> None:
    """Declare a projection of the same tables as the balances, under another name."""
    projection = service.projection("counts", schema=schema)

    @projection.on(Deposited)
    async def count(event: Deposited, model: ReadModel) -> None:
        await model.execute("UPDATE {balances} SET moves = moves + 1")


async def test_two_projections_of_a_service_do_not_share_a_table(store_url: str) -> None:
    service = bank(store_url)
    balances(service)
    counts(service)
    with pytest.raises(ServiceError, match="balances and counts would both keep the table balances_v1, and a rebuild"):
        async with service:
            pass


async def test_nor_do_those_of_two_services_on_a_store(store_url: str) -> None:
    first = bank(store_url)
    view = balances(first)
    async with first:
        await view.wait_until_caught_up(await first.publish(Deposited(account="ann", cents=1)))
        second = Service("office", store=store_url)
        counts(second)
        with pytest.raises(ServiceError, match="balances and counts would both keep the table balances_v1"):
            async with second:
                pass
        assert await table(first, 1) == [("ann", 1, 1)]


def test_a_name_that_leaves_no_room_for_a_version_is_refused() -> None:
    long = "b" * 51
    with pytest.raises(ServiceError, match=r"has 51 characters, and its versions need room"):
        counts(bank("sqlite:///:memory:"), f"CREATE TABLE IF NOT EXISTS {{{long}}} (a INT)")
    counts(bank("sqlite:///:memory:"), f"CREATE TABLE IF NOT EXISTS {{{long[1:]}}} (a INT)")
