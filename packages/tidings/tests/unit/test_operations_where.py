"""Promise 7: for any event and subscription the system says where it is, and why."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from tidings import Event, RetryPolicy, Service, Transaction, Work, operations
from tidings.backends.memory import put
from tidings.events import Envelope, envelope_to_json
from tidings.operations import Filter, Place, Whereabouts
from tidings.rows import Ready
from tidings.world import microseconds, written


class Placed(Event, name="ops.order.placed", key="order_id"):
    order_id: str
    amount: int = 0


class Charged(Event, name="ops.order.charged", key="order_id"):
    order_id: str


class Thanked(Event, name="ops.customer.thanked"):
    order_id: str


def now() -> int:
    return microseconds(datetime.now(UTC))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true within 10 s")


def service_on(folder: Path, name: str = "shop", transport: str | None = None) -> Service:
    return Service(name, store=f"sqlite+apsw:///{folder}/log.db", transport=transport)


async def ask(service: Service, event_id: str) -> Whereabouts:
    (found,) = await operations.where(service.store, event_id, now=now())
    return found


async def place(service: Service, event_id: str, subscription: str) -> Place:
    found = await ask(service, event_id)
    return next(one for one in found.places if one.subscription == subscription)


def state_is(service: Service, event_id: str, subscription: str, state: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await place(service, event_id, subscription)).state == state

    return look


async def test_an_unknown_id_is_nowhere(tmp_path: Path) -> None:
    service = service_on(tmp_path)
    async with service:
        assert await operations.where(service.store, "no-such-event", now=now()) == []


async def test_a_scheduled_publish_has_a_due_time_and_no_place(tmp_path: Path) -> None:
    service = service_on(tmp_path)
    async with service:
        due = datetime.now(UTC) + timedelta(hours=1)
        envelope = await service.publish(Placed(order_id="a"), at=due)
        found = await ask(service, envelope.id)
        assert (found.position, found.due, found.places) == (None, microseconds(due), ())
        assert await service.cancel(envelope.id)
        assert await operations.where(service.store, envelope.id, now=now()) == []


async def test_pending_names_the_missing_worker_then_who_paused_it_and_why(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Placed)
    async def charge(event: Placed, tx: Transaction) -> None: ...

    async with service.running(consumers=False):
        envelope = await service.publish(Placed(order_id="a"))
        pending = await place(service, envelope.id, "charge")
        assert pending.state == "pending"
        assert "waits for a worker" in pending.why  # this process is alive, but handles nothing
        await operations.pause(service.store, "charge", actor="ann", reason="the bank is down")
        assert "paused by ann: the bank is down" in (await place(service, envelope.id, "charge")).why
    await service.store.open(migrate=False, read_only=True)
    try:
        await_nobody = await place(service, envelope.id, "charge")
        assert "paused by ann" in await_nobody.why
    finally:
        await service.store.close()
    async with service:
        assert (await place(service, envelope.id, "charge")).state == "pending"
        await operations.resume(service.store, "charge")
        await until(state_is(service, envelope.id, "charge", "handled"))


async def test_pending_says_that_no_worker_is_alive(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Placed)
    async def charge(event: Placed, tx: Transaction) -> None: ...

    async with service.running(consumers=False):
        envelope = await service.publish(Placed(order_id="a"))
    await service.store.open(migrate=False, read_only=True)
    try:
        assert "no worker of shop is alive" in (await place(service, envelope.id, "charge")).why
    finally:
        await service.store.close()


async def test_what_is_not_a_subscriptions_own_says_why(tmp_path: Path) -> None:
    first = service_on(tmp_path)
    async with first:
        early = await first.publish(Placed(order_id="a"))
    second = service_on(tmp_path)

    @second.subscribe(Placed)
    async def late(event: Placed, tx: Transaction) -> None: ...

    @second.subscribe(Charged)
    async def other(event: Charged, tx: Transaction) -> None: ...

    async with second:
        before = await place(second, early.id, "late")
        assert (before.state, "starts after 1" in before.why) == ("not its own", True)
        filtered = await place(second, early.id, "other")
        assert (filtered.state, "does not subscribe to ops.order.placed" in filtered.why) == ("not its own", True)


async def test_causes_and_consequences_are_linked_both_ways(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Placed)
    async def charge(event: Placed, tx: Transaction) -> None:
        tx.publish(Charged(order_id=event.order_id))
        tx.publish(Charged(order_id="reminder"), delay=timedelta(hours=1))

    @service.subscribe(Charged)
    async def thank(event: Charged, tx: Transaction) -> None:
        tx.publish(Thanked(order_id=event.order_id))

    async with service:
        first = await service.publish(Placed(order_id="a"))
        await until(state_is(service, first.id, "charge", "handled"))
        found = await ask(service, first.id)
        await until(state_is(service, found.caused[0].id, "thank", "handled"))
        found = await ask(service, first.id)
        assert [one.type for one in found.caused] == ["ops.order.charged"]
        assert [one.key for one in found.caused_later] == ["reminder"]
        consequence = await ask(service, found.caused[0].id)
        assert consequence.cause is not None
        assert consequence.cause.id == first.id
        assert [one.type for one in consequence.caused] == ["ops.customer.thanked"]


async def test_one_id_under_two_sources_is_two_events(tmp_path: Path) -> None:
    shop, office = service_on(tmp_path), service_on(tmp_path, "office")
    async with shop, office:
        await shop.publish(Placed(order_id="a"), id="the-same")
        await office.publish(Placed(order_id="b"), id="the-same")
        found = await operations.where(shop.store, "the-same", now=now())
        assert {one.envelope.source for one in found} == {"shop", "office"}
        assert {one.envelope.key for one in found} == {"a", "b"}


async def test_retry_behind_dead_and_discarded_say_why(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Placed, ordered=True, retry=RetryPolicy(attempts=2, backoff=timedelta(hours=1)))
    async def slow(event: Placed, tx: Transaction) -> None:
        raise ValueError("no such card")

    @service.subscribe(Placed, ordered=True, retry=RetryPolicy(attempts=1))
    async def once(event: Placed, tx: Transaction) -> None:
        raise ValueError("no such card")

    async with service:
        head = await service.publish(Placed(order_id="a"))
        follower = await service.publish(Placed(order_id="a"))
        await until(state_is(service, head.id, "slow", "retry"))
        await until(state_is(service, follower.id, "once", "behind"))
        retry = await place(service, head.id, "slow")
        assert "attempt 1 of it: no such card" in retry.why
        assert retry.due is not None
        assert retry.due > now() + 200_000_000
        dead = await place(service, head.id, "once")
        assert (dead.state, dead.attempts, dead.why) == ("dead", 1, "after 1 attempt: no such card")
        behind = await place(service, follower.id, "once")
        assert f"its key a is held by event {head.id} at position 1, which is dead" in behind.why
        await operations.discard(
            service.store, Filter(subscription="once"), actor="ann", reason="a test order", now=now()
        )
        discarded = await place(service, head.id, "once")
        assert discarded.state == "discarded"
        assert "by ann" in discarded.why
        assert "a test order" in discarded.why
        await until(state_is(service, follower.id, "once", "dead"))


async def test_work_is_ready_or_running_with_its_owner(tmp_path: Path) -> None:
    service = service_on(tmp_path)
    go_on = asyncio.Event()

    @service.subscribe(Placed, concurrency=1)
    async def receipt(event: Placed, work: Work) -> None:
        await go_on.wait()

    async with service:
        first = await service.publish(Placed(order_id="a"))
        await until(state_is(service, first.id, "receipt", "running"))
        second = await service.publish(Placed(order_id="b"))
        await until(state_is(service, second.id, "receipt", "ready"))
        running = await place(service, first.id, "receipt")
        assert service.worker is not None
        assert (running.attempts, running.owner) == (1, service.worker.id)
        assert running.since is not None
        assert service.world.now() - 60_000_000 < running.since <= service.world.now()
        assert running.why == f"attempt 1 is under way since {written(running.since)}"
        assert "waits for its turn" in (await place(service, second.id, "receipt")).why
        go_on.set()
        await until(state_is(service, second.id, "receipt", "handled"))


async def test_work_of_a_dead_worker_is_not_running(tmp_path: Path) -> None:
    service = service_on(tmp_path)

    @service.subscribe(Placed)
    async def receipt(event: Placed, work: Work) -> None: ...

    async with service.running(consumers=False):
        envelope = await service.publish(Placed(order_id="a"))
        position = (await service.store.reading.find(envelope.id))[0].position
        progress = [
            replace(step, step=step.step + 1, position=position)
            for step in await service.store.reading.steps("receipt")
        ]
        await service.store.run(lambda statements: statements.advance("receipt", progress))
        dead = Ready("receipt", "", position, 0, None, 1, "a worker that died", since=service.world.now())
        await service.store.run(lambda statements: statements.fill([dead]))
        found = await place(service, envelope.id, "receipt")
        assert (found.state, found.owner, found.since) == ("ready", None, None)
        assert "attempt 1 was cut short, because its worker died" in found.why
        state = await operations.status(service.store, now=service.world.now())
        assert [(one.running, one.counts) for one in state.subscriptions] == [(0, {"ready": 1})]


async def test_two_services_on_one_log_may_delay_publishes_under_one_id(tmp_path: Path) -> None:
    one = Service("one", store=f"sqlite+apsw:///{tmp_path}/both.db")
    two = Service("two", store=f"sqlite+apsw:///{tmp_path}/both.db")
    for service in (one, two):
        service.register(Placed)
    hour = timedelta(hours=1)
    async with one.running(consumers=False), two.running(consumers=False):
        for service in (one, two):
            await service.publish(Placed(order_id=service.name), id="chosen", delay=hour)
        found = await operations.where(one.store, "chosen", now=one.world.now())
        assert [each.envelope.source for each in found] == ["one", "two"]
        assert await one.cancel("chosen")
        assert not await one.cancel("chosen")
        assert [each.envelope.source for each in await two.store.reading.scheduled("chosen")] == ["two"]


async def test_what_landing_parked_or_refused_stands_under_its_own_name(tmp_path: Path) -> None:
    service = service_on(tmp_path, transport="memory://where-out?in=where-in")

    @service.subscribe(Placed)
    async def charge(event: Placed, tx: Transaction) -> None: ...

    foreign = Envelope(
        id="f1", source="elsewhere", type="else.new.thing", time=datetime.now(UTC), correlation="f1", data=b"{}"
    )
    put("where-in", envelope_to_json(foreign))
    put("where-in", b"no envelope")
    async with service:

        async def landed() -> bool:
            return len(await operations.letters(service.store, Filter(("parked", "dead")))) == 2

        await until(landed)
        parked = await place(service, "f1", "*")
        assert parked.state == "parked"
        assert "No subscription on this log knows else.new.thing" in parked.why
        relayed = await place(service, "f1", "shop:relay")
        assert relayed.state == "not its own"
        (refused,) = await operations.letters(service.store, Filter(("dead",)))
        assert refused.event is not None
        assert (await place(service, refused.event.id, "*")).state == "dead"
