"""Projections over both stores: read model and progress in one transaction, versions, swaps, inline, poison."""

import asyncio
from datetime import timedelta

import pytest
from accounts import Deposited, Troubles, Withdrawn, balances, bank, table

from tidings import Event, ProjectionError, ProjectionLagError, ReadModel, RetryPolicy, Service, ServiceError
from tidings import SubscriptionVanishedError as Vanished
from tidings.errors import OperationError, StatementError, StreamConflictError
from tidings.operations import resume
from tidings.sourcing import replay

AT_ONCE = RetryPolicy(attempts=2, backoff=timedelta(0))
OLD = timedelta(milliseconds=300)

pytestmark = pytest.mark.timeout(60)


async def fill(service: object, events: int, accounts: int = 7) -> None:
    outcomes = [
        service.publish(Deposited(account=f"a{n % accounts}", cents=n))  # type: ignore[attr-defined]
        for n in range(events)
    ]
    await asyncio.gather(*outcomes)


def sums(events: int, accounts: int = 7) -> list[tuple[str, int, int]]:
    of = {f"a{one}": range(one, events, accounts) for one in range(min(accounts, events))}
    return [(account, sum(numbers), len(numbers)) for account, numbers in sorted(of.items())]


async def test_a_projection_follows_and_its_publisher_reads_what_it_wrote(store_url: str) -> None:
    service = bank(store_url)
    view = balances(service)
    async with service:
        await service.publish(Deposited(account="ann", cents=100))
        said = await service.publish(Withdrawn(account="ann", cents=30))
        await view.wait_until_caught_up(said)
        assert await view.fetch_value("SELECT cents FROM {balances} WHERE account = $1", "ann") == 70
        assert await view.fetch_one("SELECT account, cents FROM {balances}") == ("ann", 70)
        assert (await view.lag()).events == 0
        await fill(service, 20)
        await view.wait_until_caught_up()
        assert await view.fetch_value("SELECT sum(moves) FROM {balances}") == 22


@pytest.mark.parametrize("batched", [False, True])
async def test_a_late_projection_reads_from_the_beginning_many_at_a_time(store_url: str, batched: bool) -> None:
    async with bank(store_url) as early:
        await fill(early, 2500)
    troubles = Troubles()
    service = bank(store_url)
    view = balances(service, batched=batched, troubles=troubles)
    async with service:
        await view.wait_until_caught_up(patience=timedelta(seconds=30))
        assert await table(service, 1) == sums(2500)
    if batched:
        assert max(troubles.calls) > 500
        assert sum(troubles.calls) == 2500


async def test_a_projection_may_begin_now_or_at_a_time(store_url: str) -> None:
    async with bank(store_url) as early:
        await fill(early, 3)
    service = bank(store_url)
    fresh = service.projection("fresh", schema="CREATE TABLE IF NOT EXISTS {fresh} (cents BIGINT)", start="now")

    @fresh.on(Deposited)
    async def note(event: Deposited, model: ReadModel) -> None:
        await model.execute("INSERT INTO {fresh} (cents) VALUES ($1)", event.cents)
        assert abs((model.time - service.world.clock()).total_seconds()) < 60

    later = service.projection(
        "later", schema="CREATE TABLE IF NOT EXISTS {later} (cents BIGINT)", start=service.world.clock()
    )
    later.on(Deposited)(_noting("later"))
    async with service:
        said = await service.publish(Deposited(account="a", cents=77))
        for view in (fresh, later):
            await view.wait_until_caught_up(said)
            assert await view.fetch_all(f"SELECT cents FROM {{{view.name}}}") == [(77,)]


def _noting(name: str) -> object:
    async def note(event: Deposited, model: ReadModel) -> None:
        await model.execute(f"INSERT INTO {{{name}}} (cents) VALUES ($1)", event.cents)

    return note


async def test_a_new_version_is_built_beside_the_old_and_swapped_in(store_url: str) -> None:
    service = bank(store_url)
    balances(service, 1)
    async with service:
        await fill(service, 300)
    service = bank(store_url)
    old, new = balances(service, 1), balances(service, 2, batched=True)
    async with service:
        assert await new.live_version() == 1
        await service.publish(Deposited(account="a0", cents=1))
        assert await replay.swap(service.store, "balances", patience=20) == (1, 2)
        assert await old.live_version() == 2
        await new.wait_until_caught_up()
        assert await new.fetch_all("SELECT account, cents, moves FROM {balances} ORDER BY account") == await table(
            service, 2
        )
        while await table(service, 1) != await table(service, 2):  # noqa: ASYNC110 - the old one follows, too
            await asyncio.sleep(0.01)
        assert await replay.swap(service.store, "balances", 1, patience=20) == (2, 1)  # back again
        assert await replay.swap(service.store, "balances", 2, patience=20) == (1, 2)
    service = bank(store_url)
    new = balances(service, 2)
    async with service:  # the old release is gone
        row = await replay.drop(service.store, "balances", 1)
        assert row.tables == ("balances_v1",)
        with pytest.raises(StatementError):
            await table(service, 1)
        assert [one.name for one in await service.store.reading.subscriptions()] == ["balances@2"]
        assert (await new.fetch_value("SELECT sum(moves) FROM {balances}")) == 301


async def test_a_version_that_is_behind_is_not_swapped_in(store_url: str) -> None:
    troubles, mended = Troubles(), Troubles()
    mended.mended = True
    service = bank(store_url)
    old = balances(service, 1, troubles=mended)
    async with service:
        await fill(service, 5)
        await service.publish(Deposited(account="a1", cents=5, poison=True))
        await old.wait_until_caught_up()
    service = bank(store_url)
    balances(service, 1, troubles=mended)
    balances(service, 2, troubles=troubles, retry=AT_ONCE)
    async with service:
        with pytest.raises(ProjectionLagError, match=r"1 dead|has not handled"):
            await replay.swap(service.store, "balances", 2, patience=0.5)
        with pytest.raises(OperationError, match="is live already"):
            await replay.swap(service.store, "balances", 1)
        with pytest.raises(OperationError, match="has no version 9"):
            await replay.swap(service.store, "balances", 9)
        with pytest.raises(OperationError, match="knows no projection"):
            await replay.swap(service.store, "nobody")


async def test_a_version_that_has_read_nothing_is_not_swapped_in(store_url: str) -> None:
    first = bank(store_url)
    view = balances(first, 1)
    async with first:
        await fill(first, 5)
        await view.wait_until_caught_up()
    second = bank(store_url)
    balances(second, 1)
    balances(second, 2)
    async with second.running(consumers=False):  # declared, and nobody builds it
        with pytest.raises(ProjectionLagError, match="5 events"):
            await replay.swap(second.store, "balances", 2)
        assert await second.store.reading.live_version("balances") == 1


async def test_the_live_version_must_be_declared_and_others_need_not(store_url: str) -> None:
    service = bank(store_url)
    balances(service, 1)
    async with service:
        await fill(service, 3)
    only_new = bank(store_url)
    balances(only_new, 2)
    with pytest.raises(Vanished, match="Declare it beside the next version"):
        await only_new.__aenter__()
    both = bank(store_url)
    balances(both, 1)
    balances(both, 2)
    async with both:
        pass
    rolled_back = bank(store_url)
    view = balances(rolled_back, 1)
    async with rolled_back:
        await view.wait_until_caught_up()
    other = Service("other", store=store_url)
    balances(other, 3)
    with pytest.raises(ServiceError, match="belongs to the service bank"):
        await other.__aenter__()


async def test_of_a_new_projection_the_highest_version_is_live(store_url: str) -> None:
    service = bank(store_url)
    view = balances(service, 1)
    balances(service, 2)
    async with service:
        assert await view.live_version() == 2


async def test_poison_parks_its_key_alone(store_url: str) -> None:
    troubles = Troubles()
    service = bank(store_url)
    view = balances(service, troubles=troubles, retry=AT_ONCE)
    async with service:
        bad = await service.publish(Deposited(account="bad", cents=1, poison=True))
        await service.publish(Deposited(account="bad", cents=2))
        good = await service.publish(Deposited(account="good", cents=3))
        await view.wait_until_caught_up(good)
        with pytest.raises(ProjectionError, match="could not handle the event at position 1, which is dead: poison"):
            await view.wait_until_caught_up(bad)
        behind = await service.publish(Deposited(account="bad", cents=9))
        with pytest.raises(ProjectionLagError):
            await view.wait_until_caught_up(behind, patience=OLD)
        assert await table(service, 1) == [("good", 3, 1)]
        counts = await service.store.reading.counts()
        assert counts["balances@1", "dead"] == 1


async def test_poison_stops_the_projection_if_so_chosen(store_url: str) -> None:
    troubles = Troubles()
    service = bank(store_url)
    view = balances(service, troubles=troubles, retry=RetryPolicy(attempts=1), on_poison="stop")
    async with service:
        bad = await service.publish(Deposited(account="bad", cents=1, poison=True))
        with pytest.raises(ProjectionError):
            await view.wait_until_caught_up(bad)
        (row,) = await service.store.reading.subscriptions()
        assert row.paused_by == "projection"
        assert "position 1 cannot be handled: poison" in str(row.paused_because)
        good = await service.publish(Deposited(account="good", cents=3))
        with pytest.raises(ProjectionLagError, match="1 events behind"):
            await view.wait_until_caught_up(good, patience=OLD)
        await resume(service.store, "balances@1")
        await view.wait_until_caught_up(good)


async def test_poison_in_a_long_replay_is_found_and_the_rest_is_handled(store_url: str) -> None:
    async with bank(store_url) as early:
        await fill(early, 600)
        await early.publish(Deposited(account="bad", cents=1, poison=True))
        await fill(early, 600)
    service = bank(store_url)
    view = balances(service, batched=True, retry=RetryPolicy(attempts=1), troubles=Troubles())
    async with service:
        await view.wait_until_caught_up(patience=timedelta(seconds=30))
        twice = [(account, 2 * cents, 2 * moves) for account, cents, moves in sums(600)]
        assert await table(service, 1) == twice
        assert (await service.store.reading.counts())["balances@1", "dead"] == 1


async def test_a_rebuild_empties_the_tables_and_begins_again(store_url: str) -> None:
    service = bank(store_url)
    balances(service, 1)
    async with service:
        await fill(service, 50)
    service = bank(store_url)
    balances(service, 1)
    balances(service, 2)
    async with service:
        await replay.swap(service.store, "balances", 2, patience=20)
        await service.store.run(_damage)
        with pytest.raises(OperationError, match="is live"):
            await replay.rebuild(service.store, "balances", 2)
        await replay.rebuild(service.store, "balances", 1)
        await replay.rebuild(service.store, "balances", 2, in_place=True)
        for version in (1, 2):
            while await table(service, version) != sums(50):  # noqa: ASYNC110 - rows
                await asyncio.sleep(0.01)
        await service.publish(Deposited(account="a0", cents=5))
        await asyncio.sleep(0.1)
        assert await table(service, 1) == await table(service, 2) != sums(50)


async def _damage(statements: object) -> None:
    await statements.execute("UPDATE balances_v1 SET cents = 0", ())  # type: ignore[attr-defined]
    await statements.execute("UPDATE balances_v2 SET cents = 0", ())  # type: ignore[attr-defined]


async def test_inline_is_there_when_publish_returns(store_url: str) -> None:
    service = bank(store_url)
    view = balances(service, inline=True)
    async with service.running(consumers=False):  # no lane runs
        await service.publish(Deposited(account="ann", cents=100))
        assert await view.fetch_value("SELECT cents FROM {balances}") == 100
        async with service.transaction() as tx:
            tx.publish(Withdrawn(account="ann", cents=30))
            tx.publish(Deposited(account="bob", cents=1))
        assert await table(service, 1) == [("ann", 70, 2), ("bob", 1, 1)]
        with pytest.raises(RuntimeError, match="changed my mind"):  # noqa: PT012 - the end of the block undoes it
            async with service.transaction() as tx:
                tx.publish(Deposited(account="ann", cents=1))
                raise RuntimeError("changed my mind")
        assert await table(service, 1) == [("ann", 70, 2), ("bob", 1, 1)]
    service = bank(store_url)
    view = balances(service, inline=True)
    async with service:  # now lanes pass what was handled, and handle nothing twice
        await service.publish(Deposited(account="ann", cents=5), delay=timedelta(0))  # a timer's: its lane's
        while await table(service, 1) != [("ann", 75, 3), ("bob", 1, 1)]:  # noqa: ASYNC110 - rows
            await asyncio.sleep(0.01)
        said = await service.publish(Deposited(account="bob", cents=1))
        assert await table(service, 1) == [("ann", 75, 3), ("bob", 2, 2)]
        await view.wait_until_caught_up(said)
        await fill(service, 300)
        await view.wait_until_caught_up()
        while await service.store.reading.any_inline("balances@1"):  # noqa: ASYNC110 - rows
            await asyncio.sleep(0.01)
        assert (await table(service, 1))[:-2] == sums(300)


async def test_inline_is_there_when_append_returns(store_url: str) -> None:
    service = bank(store_url)
    balances(service, inline=True)
    async with service.running(consumers=False):  # no lane runs
        await service.append("account-ann", [Deposited(account="ann", cents=9)], expected=0)
        assert await table(service, 1) == [("ann", 9, 1)]
        async with service.transaction() as tx:
            await tx.append("account-ann", [Withdrawn(account="ann", cents=2)], expected=1)
        assert await table(service, 1) == [("ann", 7, 2)]
        with pytest.raises(StreamConflictError):
            await service.append("account-ann", [Deposited(account="ann", cents=9)], expected=1)
        assert await table(service, 1) == [("ann", 7, 2)]


async def test_inline_leaves_to_the_lane_what_it_cannot_handle(store_url: str) -> None:
    troubles = Troubles()
    service = bank(store_url)
    view = balances(service, inline=True, troubles=troubles, retry=RetryPolicy(attempts=1))
    async with service:
        bad = await service.publish(Deposited(account="bad", cents=1, poison=True))  # the fact stays
        with pytest.raises(ProjectionError, match="dead: poison"):
            await view.wait_until_caught_up(bad)
        await service.publish(Deposited(account="bad", cents=2))  # behind it
        await service.publish(Deposited(account="good", cents=3))
        assert await table(service, 1) == [("good", 3, 1)]


async def test_a_new_inline_version_catches_up_then_is_inline(store_url: str) -> None:
    service = bank(store_url)
    balances(service, 1)
    async with service:
        await fill(service, 400)
    service = bank(store_url)
    balances(service, 1)
    view = balances(service, 2, inline=True)
    async with service:
        await replay.swap(service.store, "balances", 2, patience=20)
        await view.wait_until_caught_up()
        await service.publish(Deposited(account="zed", cents=1))
        assert (await table(service, 2))[-1] == ("zed", 1, 1)


@pytest.mark.parametrize(
    ("schema", "said"),
    [("CREATE TABLE balances (a INT)", "makes no table of its own"), ("", "makes no table")],
)
def test_a_schema_without_a_table_in_braces_is_refused(schema: str, said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        bank("sqlite:///:memory:").projection("balances", schema=schema)


async def test_declarations_that_make_no_sense_are_refused() -> None:
    service = bank("sqlite:///:memory:")
    view = balances(service)
    with pytest.raises(ServiceError, match="declared twice"):
        balances(service)
    with pytest.raises(ServiceError, match="has a handler already"):
        view.on(Deposited)(_noting("balances"))  # type: ignore[type-var]
    with pytest.raises(ServiceError, match="versions count from 1"):
        balances(service, 0)
    with pytest.raises(ServiceError, match='use "park" or "stop"'):
        balances(service, 7, on_poison="skip")
    with pytest.raises(ServiceError, match="needs event classes"):
        view.on()
    with pytest.raises(ServiceError, match="must be `async def"):
        view.on(Event)(lambda event, model: None)  # type: ignore[arg-type,return-value]
    service.projection("empty", schema="CREATE TABLE {empty} (a INT)")
    with pytest.raises(ServiceError, match="handles no event"):
        service.resolve()


async def test_a_name_in_braces_that_the_schema_lacks_is_refused(store_url: str) -> None:
    service = bank(store_url)
    view = balances(service)
    async with service.running(consumers=False):
        with pytest.raises(ServiceError, match=r"\{balance\} is none of its tables, which are balances, balances_by"):
            await view.fetch_all("SELECT * FROM {balance}")
