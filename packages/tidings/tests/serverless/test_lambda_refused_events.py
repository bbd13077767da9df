"""A broker does not take what a function has decided: it is decided once, comes again, and is told why."""

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoking import Context, Invoking, envelope, event_of, failed, record
from printing import Drawn, Ordered, Printed

from tidings import Service, Work
from tidings.events import Envelope, envelope_from_json

sys.path.insert(0, str(Path(__file__).parents[1] / "cloud"))

from queues import client, made

Place = tuple[Any, str, Invoking]


@pytest.fixture
def labelling(invoking: Callable[..., Invoking], aws_endpoint: str, aws_credentials: None) -> tuple[Any, str, Invoking]:
    """AWS's own client, the name of a queue, and a function that prints one label into it."""
    name = f"labels-{secrets.token_hex(6)}"
    url = f"sqs://{name}?endpoint={aws_endpoint}"
    made(url)

    def subscribe(service: Service) -> None:
        service.register(Printed, Drawn)

        @service.subscribe(Ordered)
        async def print_label(event: Ordered, work: Work) -> None:
            function.calls.append((event.order, work.attempt))
            async with work.finish() as tx:
                tx.publish(Printed(order=event.order, number=len(function.calls)))
                if event.order == "umlauts":
                    tx.publish(Drawn(picture="ü" * 430_000))

    function = invoking(subscribe)
    function.url = url
    return client("sqs", aws_endpoint), name, function


def sent(sqs: Any, name: str) -> list[Envelope]:
    """Return what lies in a queue, and take it away."""
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found: list[Envelope] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(envelope_from_json(message["Body"].encode()))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_what_a_broker_does_not_take_is_decided_and_published_when_it_comes_again(
    labelling: Place, caplog: pytest.LogCaptureFixture
) -> None:
    sqs, name, function = labelling
    handler = function.function()
    first, second = [event_of([record(envelope(Ordered(order=one), one))]) for one in ("first", "second")]
    assert failed(handler(first, Context(20))) == []
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])
    for _ in range(2):
        assert failed(handler(second, Context(20))) == ["second"]
    assert "1 events were not taken" in caplog.text
    assert "does not exist" in caplog.text
    assert len(function.outcomes()) == 2
    made(function.url)
    assert failed(handler(second, Context(20))) == []
    (published,) = sent(sqs, name)
    assert [one[0] for one in function.calls] == ["first", "second"], "it was decided anew"
    decided = next(one for one in function.outcomes() if one["id"] == "second")
    assert [event["id"] for event in decided["events"]] == [published.id]
    assert json.loads(published.data) == {"order": "second", "number": 2}


def test_what_would_be_too_large_on_its_way_is_not_decided(labelling: Place, caplog: pytest.LogCaptureFixture) -> None:
    """In ASCII it is a third larger than as an event."""
    sqs, name, function = labelling
    handler = function.function()
    message = record(envelope(Ordered(order="umlauts"), "e1"))
    assert failed(handler(event_of([message]), Context(20))) == ["e1"]
    assert "more than the 1046016 that the transport carries" in caplog.text
    assert function.outcomes() == []
    assert sent(sqs, name) == []


def test_a_transport_that_leads_nowhere_says_so(
    labelling: Place, caplog: pytest.LogCaptureFixture, aws_endpoint: str
) -> None:
    sqs, name, function = labelling
    function.url = f"sqs://?in={name}&endpoint={aws_endpoint}"
    message = event_of([record(envelope(Ordered(order="a"), "a"))])
    assert failed(function.function()(message, Context(20))) == ["a"]
    assert "names nothing to send to" in caplog.text
    function.url = f"sqs://{name}?endpoint={aws_endpoint}"  # somebody has put it right
    assert failed(function.function()(message, Context(20))) == []
    assert [one.type for one in sent(sqs, name)] == ["lambda.printed"]
    assert len(function.calls) == 1
