"""Sagas in a running service: state, timers and events in one transaction; deploys; conflicts; upkeep; operators."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from saga_shop import (
    PAYMENT,
    SHIPPING,
    STOCK,
    Asked,
    Chosen,
    Offer,
    OrderPlaced,
    PaymentTaken,
    Quote,
    Refund,
    Release,
    Reserve,
    Reserved,
    Ship,
    Shipped,
    TakePayment,
    order_saga,
)

from tidings import Event, RetryPolicy, SagaDefinitionError, Service, ServiceError, Transaction
from tidings.consuming import upkeep
from tidings.rows import SagaRow
from tidings.sagas.coordinator import Coordinator
from tidings.testing import Harness, harness


def a_service(*sagas: Any, store: str = "sqlite:///:memory:", **options: Any) -> Service:
    service = Service("shop", store=store)
    for saga in sagas or (order_saga(),):
        service.saga(saga, **options)
    service.register(TakePayment, Refund, Release, Reserve, Ship, Chosen)
    return service


async def row(h: Harness, saga: str = "order", saga_id: str = "o-1") -> SagaRow:
    found = await h.service.store.reading.load_saga(saga, saga_id)
    assert found is not None
    return found


async def test_state_timers_and_events_are_in_the_store() -> None:
    async with harness(a_service()) as h:
        await h.publish(OrderPlaced(order_id="o-1"))
        await h.settled()
        assert h.published(TakePayment) == [TakePayment(order_id="o-1", cents=100)]
        [signal] = await h.service.store.reading.all_scheduled(10)
        assert (await row(h)).timers == {"payment": signal.envelope.id}
        await h.publish(PaymentTaken(order_id="o-1"))
        await h.settled()
        [signal] = await h.service.store.reading.all_scheduled(10)
        assert (await row(h)).timers == {"stock": signal.envelope.id}  # the other was cancelled
        await h.publish(Reserved(order_id="o-1"))
        await h.publish(Shipped(order_id="o-1"))
        await h.settled()
        assert ((await row(h)).status, await h.service.store.reading.all_scheduled(10)) == ("completed", [])


async def test_time_is_up_once_and_never_after_the_end() -> None:
    async with harness(a_service(order_saga(), Quote)) as h:
        await h.publish(OrderPlaced(order_id="o-1"))
        await h.publish(Asked(quote_id="q-1", suppliers=1))
        await h.settled()
        await h.publish(Offer(reference="q-1", supplier="a", cents=3))
        await h.settled()
        await h.advance(timedelta(days=1))
        assert len(h.published(Refund)) == len(h.published(Chosen)) == 1
        assert (await row(h, "quote", "q-1")).status == "completed"
        types = [envelope.type for envelope in h.envelopes()]
        assert types.count("tidings.saga.order") == 2  # the step's, and its compensation's
        assert types.count("tidings.saga.quote") == 0
        assert (await row(h)).status == "stuck"


async def test_a_timer_that_became_an_event_already_is_noted_and_ignored() -> None:
    async with harness(a_service()) as h:
        await h.publish(OrderPlaced(order_id="o-1"))
        await h.settled()
        [scheduled] = await h.service.store.reading.all_scheduled(10)
        await h.publish(PaymentTaken(order_id="o-1"))
        await h.settled()
        await h.service.store.publish([scheduled.envelope])  # as if it had been due in the same moment
        await h.settled()
        assert h.published(Refund) == []
        assert (await row(h)).journal[-1].text == "ignored: the timer 'payment' was cancelled, or started anew"


async def test_a_signal_of_another_service_is_ignored() -> None:
    async with harness(a_service()) as h:
        await h.publish(OrderPlaced(order_id="o-1"))
        await h.settled()
        [scheduled] = await h.service.store.reading.all_scheduled(10)
        await h.service.store.publish([replace(scheduled.envelope, source="somebody")])
        await h.settled()
        assert "which is not this service" in (await row(h)).journal[-1].text


async def test_a_reaction_that_raises_leaves_nothing_and_is_tried_again() -> None:
    failing = True

    def ask(facts: Any) -> Event:
        if failing:
            raise RuntimeError("not yet")
        return Reserve(order_id="o-1")

    service = a_service(order_saga(PAYMENT, replace(STOCK, ask=ask)), retry=RetryPolicy(attempts=2))
    async with harness(service) as h:
        await h.publish(OrderPlaced(order_id="o-1"))
        await h.publish(PaymentTaken(order_id="o-1"))
        await h.settled()
        assert (await row(h)).version == 1
        assert [letter.event.type for letter in h.dead_letters() if letter.event] == ["t.payment.taken"]
        failing = False
        from tidings.operations import Filter, redrive

        await redrive(service.store, Filter(), actor="ann", now=service.world.now())
        await h.settled()
        assert (await row(h)).state.count(b"payment") > 0
        assert len(h.published(Reserve)) == 1


async def test_the_signals_stay_on_the_log_and_their_names_are_the_librarys() -> None:
    class Mine(Event, name="tidings.saga.mine", key="order_id"):
        order_id: str

    service = Service("shop", store="sqlite:///:memory:", transport="memory://sagas-stay")
    with pytest.raises(ServiceError, match="library's own"):
        service.register(Mine)
    service.saga(order_saga())
    sent: list[str] = []
    async with harness(service) as h:
        assert service.transport is not None
        send = service.transport.send

        async def noted(envelopes: Any, **options: Any) -> Any:
            sent.extend(envelope.type for envelope in envelopes)
            return await send(envelopes, **options)

        service.transport.send = noted  # type: ignore[method-assign]
        await h.publish(OrderPlaced(order_id="o-1"))
        await h.settled()
        await h.advance(timedelta(minutes=5))
        assert "tidings.saga.order" in [envelope.type for envelope in h.envelopes()]
    assert "t.order.placed" in sent
    assert "tidings.saga.order" not in sent


async def test_a_deploy_without_a_step_that_runs_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with a_service(store=url) as service:
        await service.publish(OrderPlaced(order_id="o-1"))
        await until(service, "o-1", lambda row: row.version == 1)
    with pytest.raises(SagaDefinitionError, match=r"1 running sagas order have come to payment.*retired=True"):
        async with a_service(order_saga(STOCK, SHIPPING), store=url):
            pass
    async with a_service(order_saga(replace(PAYMENT, retired=True), STOCK), store=url) as service:
        await service.publish(PaymentTaken(order_id="o-1"))
        await until(service, "o-1", lambda row: b'"asked":"stock"' in row.state)


async def until(service: Service, saga_id: str, ready: Any, saga: str = "order") -> SagaRow:
    async with asyncio.timeout(20):
        while True:
            found = await service.store.reading.load_saga(saga, saga_id)
            if found is not None and ready(found):
                return found
            await asyncio.sleep(0.01)


async def test_finished_sagas_are_forgotten_when_they_expire() -> None:
    async with harness(a_service(Quote, keep=timedelta(days=2))) as h:
        for number in range(2):
            await h.publish(Asked(quote_id=f"q-{number}", suppliers=1))
        await h.settled()
        await h.publish(Offer(reference="q-0", supplier="a", cents=1))
        await h.settled()
        now, day = h.service.world.now(), 86_400_000_000
        for days, left in ((1, 2), (3, 1)):
            await upkeep.maintain(h.service.store, now=now + days * day, horizon=day)
            assert sum((await h.service.store.reading.saga_counts()).values()) == left


@asynccontextmanager
async def running(url: str, number: int) -> AsyncIterator[list[Service]]:
    """Run so many processes' worth of one service on a store."""
    services = [a_service(Quote, store=url, retry=RetryPolicy(attempts=1)) for _ in range(number)]
    for service in services:
        await service.__aenter__()
    try:
        yield services
    finally:
        for service in services:
            await service.__aexit__(None, None, None)


async def test_answers_on_many_keys_meet_and_none_is_lost_or_counted_as_failed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offers have another key than their quote: two processes handle offers for one quote at once, all the time."""
    conflicts, save = 0, Coordinator._save

    async def counted(self: Coordinator, tx: Transaction, row: SagaRow) -> bool:
        nonlocal conflicts
        saved = await save(self, tx, row)
        conflicts += not saved
        return saved

    monkeypatch.setattr(Coordinator, "_save", counted)
    suppliers, quotes = 40, 5
    async with running(postgres_url, 2) as services:
        for quote in range(quotes):
            await services[0].publish(Asked(quote_id=f"q-{quote}", suppliers=suppliers))
            await until(services[0], f"q-{quote}", lambda row: True, "quote")
        offers = [(f"q-{quote}", f"s-{supplier}") for supplier in range(suppliers) for quote in range(quotes)]
        await asyncio.gather(
            *(services[0].publish(Offer(reference=quote, supplier=supplier, cents=1)) for quote, supplier in offers)
        )
        for quote in range(quotes):
            await until(services[1], f"q-{quote}", lambda row: row.status == "completed", "quote")
        counts = await services[0].store.reading.counts()
        chosen = await services[0].fetch_value("SELECT count(*) FROM tidings.log WHERE type = 't.quote.chosen'")
    assert counts == {}
    assert chosen == quotes
    assert conflicts > 0


async def test_two_first_events_begin_one_saga(postgres_url: str) -> None:
    async with a_service(Quote, store=postgres_url) as service:
        at_once = datetime.now(UTC) + timedelta(hours=1)
        await asyncio.gather(*(service.publish(Asked(quote_id="q-1")) for _ in range(4)))
        found = await until(service, "q-1", lambda row: row.version == 4, "quote")
        assert [note.text for note in found.journal[1:]] == ["ignored: the saga has begun already"] * 3
        scheduled = await service.store.reading.all_scheduled(10)
        assert [one.due < at_once.timestamp() * 1e6 for one in scheduled] == [True]
