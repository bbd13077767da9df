"""The harness: it waits for what a publish caused, moves the clock, and says what is unfinished."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tidings import Event, HarnessTimeoutError, RetryPolicy, Service, TidingsError, Transaction, Work
from tidings.testing import harness

SCHEMA = "CREATE TABLE IF NOT EXISTS charges (id TEXT, attempt INTEGER)"


class Ordered(Event, name="harness.ordered", version=1, key="order"):
    """An order came in."""

    order: str


class Charged(Event, name="harness.charged", version=1, key="order"):
    """An order was charged."""

    order: str


class Reminded(Event, name="harness.reminded", version=1, key="order"):
    """A customer was reminded."""

    order: str


def shop(transport: str | None = None) -> Service:
    service = Service("shop", store="sqlite:///never-made.db", transport=transport)
    service.schema(SCHEMA)
    return service


async def test_settled_waits_for_the_whole_chain_that_a_publish_caused() -> None:
    service = shop()

    @service.subscribe(Ordered)
    async def charge(event: Ordered, work: Work) -> None:
        await asyncio.sleep(0.05)
        async with work.finish() as tx:
            await tx.execute("INSERT INTO charges VALUES ($1, $2)", event.order, work.attempt)
            tx.publish(Charged(order=event.order))

    @service.subscribe(Charged)
    async def remind(event: Charged, tx: Transaction) -> None:
        tx.publish(Reminded(order=event.order))

    async with harness(service) as h:
        first = await h.publish(Ordered(order="a"))
        await h.publish(Ordered(order="b"))
        await h.settled(first)
        assert Reminded(order="a") in h.published(Reminded)
        await h.settled()
        assert sorted(event.order for event in h.published(Reminded)) == ["a", "b"]
        assert await service.fetch_value("SELECT count(*) FROM charges") == 2
        assert {one.correlation for one in h.envelopes(Reminded)} == {one.id for one in h.envelopes(Ordered)}


async def test_settled_skips_the_waits_between_retries_and_dead_letters_keep_the_traceback() -> None:
    service = shop()
    seen: list[int] = []

    @service.subscribe(Ordered, retry=RetryPolicy(attempts=3, backoff=timedelta(minutes=1)))
    async def charge(event: Ordered, tx: Transaction) -> None:
        seen.append(tx.attempt)
        raise RuntimeError(f"no card for {event.order}")

    async with harness(service) as h:
        begin = h.clock()
        await h.publish(Ordered(order="a"))
        await h.settled()
        (letter,) = h.dead_letters("charge")
        assert seen == [1, 2, 3]
        assert h.clock() - begin > timedelta(minutes=2)
        assert letter.event is not None
        assert (letter.event.key, letter.attempts, letter.subscription) == ("a", 3, "charge")
        assert "no card for a" in letter.failures[-1].traceback
        assert "no card for a" in h.report()
        assert h.dead_letters("other") == []


async def test_retries_may_be_left_for_the_clock() -> None:
    service = shop()
    seen: list[int] = []

    @service.subscribe(Ordered, retry=RetryPolicy(backoff=timedelta(minutes=1), jitter=0))
    async def charge(event: Ordered, work: Work) -> None:
        seen.append(work.attempt)
        if work.attempt < 3:
            raise RuntimeError("not yet")

    async with harness(service) as h:
        await h.publish(Ordered(order="a"))
        await h.settled(retries=False)
        assert seen == [1]
        await h.advance(timedelta(seconds=59))
        assert seen == [1]
        await h.advance(timedelta(seconds=2))
        assert seen == [1, 2]
        await h.advance(timedelta(minutes=2))
        assert seen == [1, 2, 3]
        assert h.dead_letters() == []


async def test_advance_stops_wherever_something_is_due() -> None:
    service = shop()
    times: list[timedelta] = []

    async with harness(service) as h:
        begin = h.clock()

        @service.subscribe(Ordered, start="beginning")
        async def look(event: Ordered, tx: Transaction) -> None:
            times.append(tx.now() - begin)
            if event.order == "a":
                tx.publish(Ordered(order="c"), delay=timedelta(hours=3))

    async with harness(service) as h:
        await h.publish(Ordered(order="b"), delay=timedelta(hours=2))
        await h.publish(Ordered(order="a"), delay=timedelta(hours=1))
        await h.settled()
        assert times == []
        assert [event.order for _, event in h.scheduled(Ordered)] == ["a", "b"]
        await h.advance(timedelta(hours=5))
        assert times == [timedelta(hours=1), timedelta(hours=2), timedelta(hours=4)]
        assert h.clock() - begin == timedelta(hours=5)


async def test_a_handler_that_does_not_end_is_named() -> None:
    service = shop()

    @service.subscribe(Ordered, retry=RetryPolicy(attempts=2))
    async def charge(event: Ordered, work: Work) -> None:
        if work.attempt == 1:
            raise LookupError("the bank is closed")
        await asyncio.Event().wait()

    async with harness(service, patience=timedelta(seconds=0.3)) as h:
        envelope = await h.publish(Ordered(order="a"))
        with pytest.raises(HarnessTimeoutError) as caught:
            await h.settled()
        service._grace = timedelta(0)
    for part in (envelope.id, "harness.ordered", "charge", "running (attempt 2)", "LookupError: the bank is closed"):
        assert part in str(caught.value)


async def test_what_waits_behind_a_dead_head_is_finished_until_somebody_acts() -> None:
    service = shop()

    @service.subscribe(Ordered, ordered=True, retry=RetryPolicy(attempts=1))
    async def charge(event: Ordered, tx: Transaction) -> None:
        raise RuntimeError("no")

    async with harness(service) as h:
        await h.publish(Ordered(order="a"))
        await h.publish(Ordered(order="a"))
        await h.publish(Ordered(order="b"))
        await h.settled()
        assert [letter.event.key for letter in h.dead_letters() if letter.event] == ["a", "b"]


async def test_where_says_what_the_command_line_says() -> None:
    service = shop()

    @service.subscribe(Ordered)
    async def charge(event: Ordered, tx: Transaction) -> None:
        pass

    async with harness(service) as h:
        envelope = await h.publish(Ordered(order="a"))
        later = await h.publish(Ordered(order="b"), delay=timedelta(hours=1))
        await h.settled()
        (found,) = await h.where(envelope.id)
        assert [(place.subscription, place.state) for place in found.places] == [("charge", "handled")]
        (found,) = await h.where(later.id)
        assert found.position is None


async def test_a_message_of_another_service_arrives_once_whatever_its_copies() -> None:
    service = shop(transport="memory://never-used")
    seen: list[str] = []

    @service.subscribe(Ordered)
    async def charge(event: Ordered, tx: Transaction) -> None:
        seen.append(event.order)

    async with harness(service) as h:
        h.arrive(Ordered(order="a"), source="web", id="1", copies=3)
        h.arrive(Ordered(order="b"), source="app", id="1")
        await h.settled()
    assert sorted(seen) == ["a", "b"]


async def test_nothing_arrives_without_a_transport() -> None:
    async with harness(shop()) as h:
        with pytest.raises(TidingsError, match="no transport"):
            h.arrive(Ordered(order="a"), source="web")


async def test_two_runs_are_alike_and_leave_the_service_as_it_was() -> None:
    service = shop()
    store = service.store_url

    @service.subscribe(Ordered)
    async def charge(event: Ordered, tx: Transaction) -> None:
        tx.publish(Charged(order=event.order))

    async def run() -> list[str]:
        async with harness(service, seed=7) as h:
            await h.publish(Ordered(order="a"))
            await h.settled()
            return [envelope.id for envelope in h.envelopes()]

    assert await run() == await run()
    assert service.store_url == store
    assert service.subscriptions[0].pause_after == 20


async def test_the_fixture_runs_a_service_for_the_rest_of_the_test(tidings_harness) -> None:  # type: ignore[no-untyped-def]
    service = shop()

    @service.subscribe(Ordered)
    async def charge(event: Ordered, tx: Transaction) -> None:
        tx.publish(Charged(order=event.order))

    h = await tidings_harness(service, seed=3)
    await h.publish(Ordered(order="a"))
    await h.settled()
    assert h.published(Charged) == [Charged(order="a")]


async def test_a_service_gets_its_own_places_back(tmp_path: Path) -> None:
    service = Service(
        "shop", store="sqlite:///:memory:", transport="memory://out", landing="memory://in", blobs=f"file://{tmp_path}"
    )
    before = service.store_url, service.transport_url, service.landing_url, service.blobs_url
    async with harness(service):
        assert service.transport_url != "memory://out"
    assert (service.store_url, service.transport_url, service.landing_url, service.blobs_url) == before
    assert service.blobs is not None
    assert service.inward is not service.transport
