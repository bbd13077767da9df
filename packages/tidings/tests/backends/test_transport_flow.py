"""Landing and relay where a store, a broker or a handler is slow, away or full."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from tidings import Event, Service, ServiceError, Transaction
from tidings.backends.memory import MemoryTransport, open_transport, put
from tidings.backends.sqlite import SqliteStore, open_store
from tidings.consuming.landing import Landing
from tidings.errors import StoreBusyError
from tidings.events import Envelope, envelope_to_json
from tidings.points import watch
from tidings.rows import LaneStep
from tidings.statements import Statements
from tidings.store import Store
from tidings.testing.conformance.samples import envelope, subscription
from tidings.testing.conformance.transports.opening import real_world
from tidings.transport import Refusal

UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
HORIZON = 1e9


class Said(Event, name="flow.said", key="account"):
    account: str
    number: int = 0
    text: str = ""


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"flow-{tmp_path}"


@pytest.fixture
def watched() -> Iterator[Callable[[Callable[[str], None]], None]]:
    yield watch
    watch(None)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = open_store(f"sqlite:///{tmp_path}/flow.db", real_world())
    await made.open(migrate=True)
    await made.run(lambda statements: statements.register(subscription()))
    yield made
    await made.close()


@asynccontextmanager
async def landing(store: Store, name: str, **options: int) -> AsyncIterator[MemoryTransport]:
    """Run a landing for the service `suite` from a queue."""
    transport = open_transport(f"memory://{name}-out?in={name}&lease=0.4", real_world())
    task = asyncio.create_task(Landing(transport, store, real_world(), "suite", HORIZON, **options).run())
    yield transport
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await transport.close()


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - the store is asked
            await asyncio.sleep(0.01)


async def landed(store: Store) -> list[str]:
    return [record.envelope.id for record in await store.reading.recent(0, 1000)]


def arrive(name: str, *ids: str) -> None:
    for event_id in ids:
        put(name, envelope_to_json(envelope(event_id, source="elsewhere")))


async def test_a_slow_landing_keeps_its_messages(store: SqliteStore, name: str) -> None:
    arrive(name, "a", "b")
    other = open_transport(f"memory://{name}-out?in={name}&lease=0.4", real_world())
    async with landing(store, name):
        async with store.transaction() as statements:  # the only writer of the file: landing waits behind it
            await statements.append([envelope("writer")])
            stolen = asyncio.create_task(other.receive(10))
            await asyncio.sleep(0.9)
            assert not stolen.done(), "the lease ended while landing was under way"
        await until(lambda: contains(store, "a", "b"))
        await asyncio.sleep(0.5)
        assert not stolen.done(), "what had landed came again"
        stolen.cancel()


async def contains(store: Store, *ids: str) -> bool:
    return set(ids) <= set(await landed(store))


async def test_while_the_store_is_away_nothing_is_received_and_nothing_lost(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/away.db", real_world())
    arrive(name, "a", "b")
    async with landing(store, name) as transport:
        await asyncio.sleep(0.3)
        assert not transport._unsettled
        assert "nothing was acknowledged" in caplog.text
        await store.open(migrate=True)
        await until(lambda: contains(store, "a", "b"))
    await store.close()


async def test_what_could_not_land_is_given_back_and_lands_later(
    store: SqliteStore, name: str, watched: Callable[[Callable[[str], None]], None]
) -> None:
    failures = 2

    def fail(point: str) -> None:
        nonlocal failures
        if point == "landing.before_commit" and failures:
            failures -= 1
            raise StoreBusyError("The test lets this commit fail.")

    watched(fail)
    arrive(name, "a", "b")
    async with landing(store, name) as transport:
        await until(lambda: contains(store, "a", "b"))
        await asyncio.sleep(0.1)
        assert not transport._in.messages, "what has landed was not acknowledged"
    assert sorted(await landed(store)) == ["a", "b"]


async def test_landing_pauses_while_a_subscription_is_far_behind(
    store: SqliteStore, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with landing(store, name, backlog=20) as transport:
        arrive(name, *(f"a{number}" for number in range(25)))
        await until(lambda: contains(store, "a24"))
        await asyncio.sleep(0.1)
        arrive(name, *(f"b{number}" for number in range(5)))
        await asyncio.sleep(2.0)
        assert not await contains(store, "b0")
        assert len(transport._in.messages) == 5
        assert "25 events wait for sub" in caplog.text
        await store.run(catch_up)
        await until(lambda: contains(store, *(f"b{number}" for number in range(5))))
        assert "Landing goes on: 0 events wait" in caplog.text


async def catch_up(statements: Statements) -> None:
    head = await statements.head()
    steps = [LaneStep(step.lane, step.step + 1, head, step.owner) for step in await statements.steps("sub")]
    assert await statements.advance("sub", steps)


async def test_a_subscription_that_is_paused_by_somebody_stops_no_landing(store: SqliteStore, name: str) -> None:
    await store.run(lambda statements: statements.pause("sub", "ann", "a deploy"))
    async with landing(store, name, backlog=5):
        for number in range(4):
            arrive(name, *(f"{number}-{each}" for each in range(5)))
            await until(lambda number=number: contains(store, f"{number}-4"))  # type: ignore[misc]


async def test_the_trace_of_the_broker_is_read_where_the_event_has_none(store: SqliteStore, name: str) -> None:
    own = UNSAMPLED.replace("0af7", "1bf7")
    for event_id, traceparent, header in (
        ("bare", None, UNSAMPLED), ("own", own, UNSAMPLED), ("malformed", None, "00-0-0-0"),
    ):  # fmt: skip
        body = envelope_to_json(envelope(event_id, source="elsewhere", traceparent=traceparent))
        put(name, body, {"traceparent": header, "tracestate": "a=1"})
    async with landing(store, name):
        await until(lambda: contains(store, "bare", "own", "malformed"))
    found = {record.envelope.id: record.envelope for record in await store.reading.recent(0, 9)}
    assert (found["bare"].traceparent, found["bare"].tracestate) == (UNSAMPLED, "a=1")
    assert (found["own"].traceparent, found["own"].tracestate) == (own, None)
    assert (found["malformed"].traceparent, found["malformed"].tracestate) == (None, None)


def service_over(name: str, ordered: object, **capabilities: bool) -> Service:
    service = Service("flow", store="sqlite:///:memory:", transport=f"memory://{name}-out?in={name}")
    transport = service.transport
    assert isinstance(transport, MemoryTransport)
    transport.capabilities = replace(transport.capabilities, **capabilities)

    @service.subscribe(Said, ordered=ordered)  # type: ignore[arg-type]
    async def hear(event: Said, tx: Transaction) -> None: ...

    return service


async def test_an_order_that_the_transport_does_not_keep_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ServiceError, match=r'ordered=True of hear .* FIFO queue.* ordered="log"'):
        async with service_over(name, True, ordered_by_key=False):
            pass
    async with service_over(name, "log", ordered_by_key=False), service_over(name, False, ordered_by_key=False):
        pass
    async with service_over(name, True, ordered_by_key=False, receives=False):
        pass
    async with service_over(name, True, ordered_by_key=False).running(consumers=False):
        pass


async def test_what_only_sends_receives_nothing(name: str) -> None:
    arrive(name, "a")
    async with service_over(name, False, receives=False) as service:
        await asyncio.sleep(0.1)
        assert await landed(service.store) == []


class Throttled(MemoryTransport):
    """Takes nothing for now while it is full."""

    full = True
    asked = 0

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        self.asked += len(envelopes)
        if self.full:
            return [Refusal(each.id, "too many requests", True) for each in envelopes]
        return await super().send(envelopes)


async def test_a_broker_that_refuses_everything_is_probed_and_the_log_not_held_row_by_row(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    service = Service("flow", store="sqlite:///:memory:")
    service.register(Said)
    transport = Throttled([name], f"{name}-in", 30.0, 0.0)
    service.transport = service.inward = transport
    async with service:
        for number in range(600):
            await service.publish(Said(account=f"a{number % 50}", number=number))
        await asyncio.sleep(2.5)
        counts = await service.store.reading.counts()
        held = sum(many for (of, _), many in counts.items() if of == "flow:relay")
        assert 0 < held < 300, f"{held} of 600 events are held one by one"
        assert "an outage" in caplog.text
        asked = transport.asked
        await asyncio.sleep(1.0)
        assert transport.asked - asked <= 20, "it is flooded"
        transport.full = False
        receiver = open_transport(f"memory://{name}-in?in={name}", service.world)
        found: list[int] = []
        async with asyncio.timeout(60):
            while len(set(found)) < 600:
                some = await receiver.receive(100)
                found += [numbered(each.body) for each in some]
                await receiver.settle(some)
    for account in range(50):
        of_one = [number for number in found if number % 50 == account]
        assert of_one == sorted(of_one), of_one


async def test_what_is_larger_than_the_broker_takes_holds_its_key_and_no_other(name: str) -> None:
    service = Service("flow", store="sqlite:///:memory:", transport=f"memory://{name}?in={name}-in")
    service.register(Said)
    receiver = open_transport(f"memory://{name}-in?in={name}", service.world)
    async with service:
        async with service.transaction() as tx:  # in one batch of the relay
            tx.publish(Said(account="a", text="x" * 1_048_500))
            tx.publish(Said(account="a", number=1))
            tx.publish(Said(account="b", number=2))
        (found,) = await receiver.receive(10)
        assert numbered(found.body) == 2

        async def held() -> bool:
            return len(await service.store.reading.counts()) == 2

        await until(held)
        assert await service.store.reading.counts() == {("flow:relay", "dead"): 1, ("flow:relay", "behind"): 1}
        (letter,) = await service.store.reading.letters(["dead"], "flow:relay", 0, 9)
        assert "bytes are more than" in (letter.reason or "")


def numbered(body: bytes) -> int:
    return int(json.loads(body)["data"]["number"])


class Kept(Event, name="flow.kept", key="account"):
    account: str


async def test_events_may_come_another_way_than_they_go(name: str, tmp_path: Path) -> None:
    heard: list[str] = []
    answering = Service("answering", store="sqlite:///:memory:", transport=f"memory://{name}-back?in={name}-there")
    asking = Service(
        "asking",
        store=f"sqlite:///{tmp_path}/a.db",
        transport=f"memory://{name}-there",
        landing=f"memory://{name}-back",
    )

    @answering.subscribe(Said)
    async def answer(event: Said, tx: Transaction) -> None:
        tx.publish(Kept(account=event.account))

    @asking.subscribe(Kept)
    async def hear(event: Kept, tx: Transaction) -> None:
        heard.append(event.account)

    async def answered() -> bool:
        return heard == ["a"]

    async with answering, asking:
        await asking.publish(Said(account="a", number=1))
        await until(answered)


@pytest.mark.parametrize("before", [[], [Said], [Kept]])
async def test_a_transport_carries_what_it_is_told_to(name: str, tmp_path: Path, before: list[type[Event]]) -> None:
    """Also where an earlier release carried everything, or something else, which it goes on to carry."""
    store = f"sqlite:///{tmp_path}/a.db"
    for carried in (before, [Said]):
        asking = Service("asking", store=store, transport=f"memory://{name}-there?in={name}-nothing")
        asking.register(Kept, Said)
        asking.carry(*carried)
        async with asking:
            pass
    there = open_transport(f"memory://{name}-there", real_world())
    async with asking:
        await asking.publish(Kept(account="b"))
        await asking.publish(Said(account="a", number=1))
        async with asyncio.timeout(10):
            arrived = await there.receive(10)
            while len(arrived) < 1 + (Kept in before):
                arrived += await there.receive(10)
    types = [json.loads(delivery.body)["type"] for delivery in arrived]
    assert types == ["flow.kept", "flow.said"][Kept not in before :]


async def test_what_lands_nothing_does_not_connect_for_it(name: str, tmp_path: Path) -> None:
    """A web process that only publishes needs no broker of what comes in, and does not wait for it."""
    away = "bullmq://127.0.0.1:1/0?in=nothing"
    asking = Service("asking", store=f"sqlite:///{tmp_path}/a.db", transport=f"memory://{name}", landing=away)
    async with asking.running(consumers=False):
        await asking.publish(Said(account="a"))
        assert asking.health()["outages"] == []
    async with asking:
        assert asking.health()["outages"] == ["landing"]
