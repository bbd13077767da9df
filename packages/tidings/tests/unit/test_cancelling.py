"""A delayed publish is cancelled also where it was planned in the same transaction, or in the same batch of events."""

from datetime import timedelta

from tidings import Event, RetryPolicy, Service, Transaction
from tidings.testing import harness


class Planned(Event, name="t.planned", key="key"):
    key: str = "k"


class Later(Event, name="t.later", key="key"):
    key: str = "k"


class Withdrawn(Event, name="t.withdrawn", key="key"):
    key: str = "k"
    fails: bool = False


async def test_what_is_planned_and_cancelled_in_one_transaction_never_comes() -> None:
    service = Service("s", store="sqlite:///:memory:")
    service.register(Later)
    async with harness(service) as h:
        async with h.transaction() as tx:
            first = tx.publish(Later(), delay=timedelta(1))
            second = tx.publish(Later(), delay=timedelta(2))
            assert await tx.cancel(first.id)
            assert not await tx.cancel(first.id)
        assert len(h.scheduled(Later)) == 1
        assert await service.cancel(second.id)


async def test_a_handler_cancels_what_one_before_it_in_the_batch_has_planned() -> None:
    service = Service("s", store="sqlite:///:memory:")
    service.register(Later)
    service.schema("CREATE TABLE IF NOT EXISTS plans (id TEXT)")

    @service.subscribe(Planned, Withdrawn, retry=RetryPolicy(attempts=1))
    async def plan(event: Planned | Withdrawn, tx: Transaction) -> None:
        if isinstance(event, Planned):
            await tx.execute("INSERT INTO plans VALUES ($1)", tx.publish(Later(), delay=timedelta(1)).id)
            return
        assert await tx.cancel(await tx.fetch_value("SELECT id FROM plans LIMIT 1"))
        if event.fails:
            raise ValueError("what it cancelled stays planned")

    for fails in (False, True):
        async with harness(service) as h:
            async with h.transaction() as tx:
                tx.publish(Planned())
                tx.publish(Withdrawn(fails=fails))
            await h.settled()
            assert len(h.scheduled(Later)) == fails
            assert len(h.dead_letters()) == fails
