"""A service's subscriptions as the function of an SQS event source: what is decided once, and what is given back."""

import asyncio
import hashlib
import json
import logging
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from invoking import Context, envelope, event_of, failed, record
from printing import Drawn, Make, Ordered, Printed, printing

from tidings import Event, Service, SyncWork, Work
from tidings.claims import fitted, redeem
from tidings.errors import LeaseLostError
from tidings.events import Envelope
from tidings.service import open_blobs
from tidings.testing.conformance.transports.opening import real_world


def test_what_followed_is_published_with_the_same_ids_and_facts_when_a_message_comes_again(invoking: Make) -> None:
    made = printing(invoking)
    message = record(envelope(Ordered(order="a"), "e1"))
    assert failed(made.function()(event_of([message]), Context(5))) == []
    first = made.published()
    assert [one.source for one in first] == ["labels", "labels"]
    assert [one.causation for one in first] == ["e1", "e1"]
    assert len({one.id for one in first}) == 2
    assert failed(made.function()(event_of([message]), Context(5))) == []
    assert made.published() == first, "a redelivery decided anew"
    assert made.calls == [("a", 1)]
    (outcome,) = made.outcomes()
    assert (outcome["source"], outcome["id"], outcome["subscription"]) == ("shop", "e1", "print_label")
    assert [event["id"] for event in outcome["events"]] == [one.id for one in first]


def test_two_functions_that_handle_one_event_at_a_time_publish_one_outcome(invoking: Make) -> None:
    barrier = threading.Barrier(2)

    def subscribe(service: Service) -> None:
        service.register(Printed)

        @service.subscribe(Ordered)
        def print_label(event: Ordered, work: SyncWork) -> None:
            barrier.wait(10)
            with work.finish() as tx:
                tx.publish(Printed(order=event.order, number=threading.get_ident()))
                barrier.wait(10)

    made = invoking(subscribe)
    message = event_of([record(envelope(Ordered(order="a"), "e1"))])
    functions = [made.function(), made.function()]
    threads = [threading.Thread(target=function, args=(message, Context(20))) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, other = made.published()
    assert one == other
    assert len(made.outcomes()) == 1


def test_of_a_standard_queue_only_what_failed_comes_again(invoking: Make, caplog: pytest.LogCaptureFixture) -> None:
    made = printing(invoking)
    records = [record(envelope(Ordered(order=name), name), receives=3) for name in ("a", "bad1", "b", "bad2", "c")]
    assert failed(made.function()(event_of(records), Context(5))) == ["bad1", "bad2"]
    assert {one.key for one in made.published()} == {"a", "b", "c"}
    assert ("bad1", 3) in made.calls
    assert "print_label: event bad1 (lambda.ordered) failed at attempt 3." in caplog.text
    assert "no label for you" in caplog.text


def test_of_a_fifo_queue_the_rest_of_a_group_waits_behind_what_failed(invoking: Make) -> None:
    made = printing(invoking, ordered=True)
    orders = [("a", "x"), ("bad1", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "x")]
    records = [record(envelope(Ordered(order=order), order), group=group) for order, group in orders]
    assert failed(made.function()(event_of(records), Context(5))) == ["bad1", "c", "e"]
    assert [order for order, _ in made.calls if order in "bd"] == ["b", "d"]
    assert "c" not in [order for order, _ in made.calls], "it was handled before its group was clear"


def test_an_ordered_subscription_takes_nothing_from_a_queue_without_order(
    invoking: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made = printing(invoking, ordered=True)
    assert failed(made.function()(event_of([record(envelope(Ordered(order="a"), "e1"))]), Context(5))) == ["e1"]
    assert made.calls == []
    assert "print_label is ordered=True, and arn:aws:sqs" in caplog.text


@pytest.mark.parametrize("plain", [False, True], ids=["async", "sync"])
def test_messages_are_handled_several_at_a_time_up_to_the_concurrency(invoking: Make, plain: bool) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def count(change: int) -> None:
        nonlocal running, most
        with lock:
            running += change
            most = max(most, running)

    def subscribe(service: Service) -> None:
        if plain:

            @service.subscribe(Ordered, name="wait", concurrency=3)
            def wait(event: Ordered, work: SyncWork) -> None:
                count(1)
                time.sleep(0.1)
                count(-1)
        else:

            @service.subscribe(Ordered, name="wait", concurrency=3)
            async def wait_here(event: Ordered, work: Work) -> None:
                count(1)
                await asyncio.sleep(0.1)
                count(-1)

    function = invoking(subscribe).function()
    records = [record(envelope(Ordered(order=str(number)), f"e{number}")) for number in range(9)]
    assert failed(function(event_of(records), Context(10))) == []
    assert most == 3


def test_a_handler_that_publishes_nothing_is_decided_as_well(invoking: Make) -> None:
    def subscribe(service: Service) -> None:
        @service.subscribe(Ordered)
        def look(event: Ordered) -> None:
            made.calls.append(event.order)

    made = invoking(subscribe)
    message = event_of([record(envelope(Ordered(order="a"), "e1"))])
    for _ in range(2):
        assert failed(made.function()(message, Context(5))) == []
    assert made.calls == ["a"]


def test_every_subscription_decides_for_itself(invoking: Make) -> None:
    broken = True

    def subscribe(service: Service) -> None:
        service.register(Printed)

        @service.subscribe(Ordered)
        async def good(event: Ordered, work: Work) -> None:
            made.calls.append("good")
            async with work.finish() as tx:
                tx.publish(Printed(order=event.order, number=1))

        @service.subscribe(Ordered)
        async def sometimes(event: Ordered, work: Work) -> None:
            made.calls.append("sometimes")
            if broken:
                raise ValueError
            async with work.finish() as tx:
                tx.publish(Printed(order=event.order, number=2))

    made = invoking(subscribe)
    message = event_of([record(envelope(Ordered(order="a"), "e1"))])
    assert failed(made.function()(message, Context(5))) == ["e1"]
    broken = False
    assert failed(made.function()(message, Context(5))) == []
    assert sorted(made.calls) == ["good", "sometimes", "sometimes"]
    sent = made.published()
    assert len(sent) == 3
    assert len({one.id for one in sent}) == 2
    assert sorted(outcome["subscription"] for outcome in made.outcomes()) == ["good", "sometimes"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("no JSON", "JSON refused"),
        ('{"specversion":"1.0"}', "has no id"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"lambda.unknown","data":{}}', "no class of this release"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"lambda.ordered","data":{"order":7}}', "Expected `str`"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"lambda.ordered","schemaversion":"2"}', "version 2"),
    ],
)
def test_what_cannot_be_read_is_given_back_and_the_others_go_on(
    invoking: Make, caplog: pytest.LogCaptureFixture, body: str, says: str
) -> None:
    made = printing(invoking)
    records = [record(body), record(envelope(Ordered(order="a"), "e1"))]
    assert failed(made.function()(event_of(records), Context(5))) == [body]
    assert says in caplog.text
    assert made.calls == [("a", 1)]


def test_what_is_known_and_nobody_takes_is_done(invoking: Make) -> None:
    made = printing(invoking)
    message = record(envelope(Printed(order="a", number=1), "e1"))
    assert failed(made.function()(event_of([message]), Context(5))) == []
    assert made.outcomes() == []


def test_messages_come_through_sns_too_and_bring_its_trace(invoking: Make) -> None:
    made = printing(invoking)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    wrapped = {
        "Type": "Notification",
        "TopicArn": "arn:aws:sns:us-east-1:000000000000:orders",
        "Message": record(envelope(Ordered(order="a"), "e1"))["body"],
        "MessageAttributes": {"traceparent": {"Type": "String", "Value": trace}},
    }
    direct = record(envelope(Ordered(order="b"), "e2"), traceparent=trace)
    xray = record(envelope(Ordered(order="c"), "e3"))
    xray["attributes"]["AWSTraceHeader"] = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=0"
    assert failed(made.function()(event_of([record(json.dumps(wrapped)), direct, xray]), Context(5))) == []
    came = sorted((one.correlation, one.traceparent) for one in made.published())
    assert came == [(name, trace) for name in ("e1", "e2", "e3") for _ in range(2)]


def test_a_body_that_changed_on_its_way_is_given_back(invoking: Make, caplog: pytest.LogCaptureFixture) -> None:
    made = printing(invoking)
    body = record(envelope(Ordered(order="a"), "e1"))["body"]
    digest = hashlib.sha256(body.encode()).hexdigest()
    records = [record(body, sha256=digest), record(body.replace('"a"', '"b"'), sha256=digest)]
    assert failed(made.function()(event_of(records), Context(5))) == [records[1]["messageId"]]
    assert "it changed on its way" in caplog.text
    assert made.calls == [("a", 1)]


def test_what_is_too_large_waits_among_the_blobs_both_ways(invoking: Make, tmp_path: Path) -> None:
    def subscribe(service: Service) -> None:
        @service.subscribe(Drawn)
        async def draw_again(event: Drawn, work: Work) -> None:
            made.calls.append(len(event.picture))
            async with work.finish() as tx:
                tx.publish(Drawn(picture=event.picture[::-1]))

    made = invoking(subscribe)
    place = (tmp_path / "large").as_uri()
    large = envelope(Drawn(picture="ab" * 524_000), "e1", key=None)
    sent = asyncio.run(in_blobs(large, place))
    assert len(sent.data) < 10
    assert failed(made.function(place)(event_of([record(sent)]), Context(5))) == []
    assert made.calls == [1_048_000]
    (came,) = made.published()
    assert json.loads(asyncio.run(out_of_blobs(came, place)).data) == {"picture": "ba" * 524_000}


async def in_blobs(large: Envelope, place: str) -> Envelope:
    blobs = open_blobs(place, real_world())
    await blobs.open()
    return await fitted(large, blobs, 1_048_576)


async def out_of_blobs(small: Envelope, place: str) -> Envelope:
    return await redeem(small, open_blobs(place, real_world()))


def test_older_versions_are_upcast(invoking: Make) -> None:
    class Renamed(Event, name="lambda.renamed", version=2):
        order_id: str

    def subscribe(service: Service) -> None:
        @service.upcaster("lambda.renamed", from_version=1)
        def rename(data: dict[str, object]) -> dict[str, object]:
            return {"order_id": data["order"]}

        @service.subscribe(Renamed)
        async def look(event: Renamed, work: Work) -> None:
            made.calls.append(event.order_id)

    made = invoking(subscribe)
    old = '{"specversion":"1.0","id":"1","source":"s","type":"lambda.renamed","schemaversion":"1","data":{"order":"a"}}'
    assert failed(made.function()(event_of([record(old)]), Context(5))) == []
    assert made.calls == ["a"]


def test_what_goes_over_its_time_is_cut_off_and_comes_again_and_decides_nothing_later(
    invoking: Make, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    raised: list[BaseException] = []

    def subscribe(service: Service) -> None:
        service.register(Printed)

        @service.subscribe(Ordered)
        def in_thread(event: Ordered, work: SyncWork) -> None:
            if event.order == "slow":
                go_on.wait(10)
                assert work.stopping
                try:
                    with work.finish() as tx:
                        tx.publish(Printed(order="slow", number=1))
                except LeaseLostError as error:
                    raised.append(error)

        @service.subscribe(Ordered)
        async def on_loop(event: Ordered, work: Work) -> None:
            await asyncio.sleep(0 if event.order == "quick" else 60)

    made = invoking(subscribe)
    function = made.function(margin=0.3)
    records = [record(envelope(Ordered(order=name), name)) for name in ("quick", "slow")]
    began = time.monotonic()
    assert failed(function(event_of(records), Context(0.8))) == ["slow"]
    assert time.monotonic() - began < 0.8, "AWS would have killed it"
    assert "The time of this invocation is over" in caplog.text
    go_on.set()
    for _ in range(100):  # the thread goes on in the next invocation, when the loop runs again
        function(event_of([record(envelope(Ordered(order="quick"), "other"))]), Context(5))
        if raised:
            break
    assert len(raised) == 1
    assert made.published() == []
    assert {outcome["id"] for outcome in made.outcomes()} == {"quick", "other"}


def test_what_usually_takes_longer_than_is_left_is_not_started(
    invoking: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def subscribe(service: Service) -> None:
        @service.subscribe(Ordered, concurrency=1)
        async def wait(event: Ordered, work: Work) -> None:
            made.calls.append(event.order)
            await asyncio.sleep(0.5)

    made = invoking(subscribe)
    records = [record(envelope(Ordered(order=name), name)) for name in ("a", "b", "c", "d")]
    given_back = failed(made.function(margin=0.1)(event_of(records), Context(1.5)))
    assert len(made.calls) == 2, "a third would end after 1.5 s, when 1.4 s are there"
    assert sorted([*made.calls, *given_back]) == ["a", "b", "c", "d"], "messages of a standard queue come in no order"
    assert "wait was not started: it usually takes 0.5 s" in caplog.text


def test_a_time_limit_of_the_subscription_counts_here_too(invoking: Make, caplog: pytest.LogCaptureFixture) -> None:
    def subscribe(service: Service) -> None:
        @service.subscribe(Ordered, time_limit=timedelta(seconds=0.05))
        async def wait(event: Ordered, work: Work) -> None:
            await asyncio.sleep(30)

    began = time.monotonic()
    message = event_of([record(envelope(Ordered(order="a"), "e1"))])
    assert failed(invoking(subscribe).function()(message, Context(20))) == ["e1"]
    assert time.monotonic() - began < 5
    assert "longer than its time limit of 0.05 s" in caplog.text


@pytest.fixture(autouse=True)
def _all_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidings")
