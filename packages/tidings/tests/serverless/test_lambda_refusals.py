"""What a function without a store refuses, and what it makes of odd outcomes and ids."""

import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from invoking import Context, envelope, event_of, failed, record
from printing import Drawn, Make, Ordered, Printed, printing

from tidings import HandlerError, Service, Transaction, TransactionClosedError, Work
from tidings.errors import ServiceError, StatementError
from tidings.integrations.aws_lambda import lambda_handler

SECOND = timedelta(seconds=1)


def test_what_is_published_must_be_possible(invoking: Make, caplog: pytest.LogCaptureFixture) -> None:
    def subscribe(service: Service) -> None:
        service.register(Printed, Drawn)

        @service.subscribe(Ordered)
        async def ask_too_much(event: Ordered, work: Work) -> None:
            async with work.finish() as tx:
                if event.order == "sql":
                    await tx.execute("INSERT INTO labels VALUES (1)")
                elif event.order == "read":
                    await tx.fetch_value("SELECT 1")
                elif event.order == "cancel":
                    await tx.cancel("some id")
                elif event.order == "later":
                    tx.publish(Printed(order="a", number=1), delay=SECOND)
                else:
                    tx.publish(Drawn(picture="x" * 1_048_500))

    made = invoking(subscribe)
    records = [record(envelope(Ordered(order=name), name)) for name in ("sql", "read", "cancel", "later", "large")]
    assert len(failed(made.function()(event_of(records), Context(5)))) == 5
    assert caplog.text.count("There is no store here") == 3
    assert "lambda.printed cannot be published later from here" in caplog.text
    assert "more than the 1048576 that the transport carries" in caplog.text
    assert made.outcomes() == []


def test_errors_after_finish_and_finish_twice_change_nothing(invoking: Make, caplog: pytest.LogCaptureFixture) -> None:
    def subscribe(service: Service) -> None:
        service.register(Printed)

        @service.subscribe(Ordered)
        async def twice(event: Ordered, work: Work) -> None:
            async with work.finish() as tx:
                await asyncio.sleep(0)
                tx.publish(Printed(order=event.order, number=1))
            with pytest.raises(TransactionClosedError):
                async with work.finish():
                    pass
            raise ValueError("too late")

    made = invoking(subscribe)
    assert failed(made.function()(event_of([record(envelope(Ordered(order="a"), "e1"))]), Context(5))) == []
    assert len(made.published()) == 1
    assert "raised after it had settled" in caplog.text


def test_a_block_that_failed_and_was_tried_again_publishes_once_with_the_same_ids(invoking: Make) -> None:
    def subscribe(service: Service) -> None:
        service.register(Printed)

        @service.subscribe(Ordered)
        async def stubborn(event: Ordered, work: Work) -> None:
            for number in range(2):
                try:
                    async with work.finish() as tx:
                        made.calls.append(tx.publish(Printed(order=event.order, number=number)).id)
                        if number == 0:
                            raise StatementError("no")
                except StatementError:
                    pass

    made = invoking(subscribe)
    assert failed(made.function()(event_of([record(envelope(Ordered(order="a"), "e1"))]), Context(5))) == []
    (sent,) = made.published()
    assert made.calls == [sent.id, sent.id]
    assert json.loads(sent.data)["number"] == 1


def test_an_outcome_that_cannot_be_read_is_not_decided_anew(invoking: Make, caplog: pytest.LogCaptureFixture) -> None:
    made = printing(invoking)
    message = event_of([record(envelope(Ordered(order="a"), "e1"))])
    made.function()(message, Context(5))
    made.published()
    (blob,) = made.folder.rglob("*.blob")
    blob.write_text(blob.read_text().replace('"format":1', '"format":2'))
    assert failed(made.function()(message, Context(5))) == ["e1"]
    assert made.published() == []
    assert "it has format 2, and this release reads up to 1" in caplog.text


def test_odd_names_and_ids_have_outcomes_of_their_own(invoking: Make) -> None:
    made = printing(invoking)
    odd = ["a/b", "a b", "ä", "..", "x" * 255, "x" * 254 + "y", "~a"]
    records = [record(envelope(Ordered(order="a"), event_id)) for event_id in odd]
    for source in ("shop", "Läden / 1"):
        for one in records:
            one["body"] = json.dumps({**json.loads(one["body"]), "source": source})
        assert failed(made.function()(event_of(records), Context(5))) == []
    assert len(made.outcomes()) == len(made.calls) == 2 * len(odd)


def test_an_event_that_is_no_batch_of_messages_is_refused(invoking: Make) -> None:
    function = printing(invoking).function()
    for event in ({}, {"Records": [{"eventSource": "aws:s3"}]}, "hello", None):
        with pytest.raises(ServiceError, match="no batch of SQS messages"):
            function(event, Context(5))
    assert failed(function({"Records": []}, Context(5))) == []


def test_handlers_that_need_a_store_are_refused_with_the_way_out(invoking: Make) -> None:
    def subscribe(service: Service) -> None:
        @service.subscribe(Ordered)
        async def write(event: Ordered, tx: Transaction) -> None:
            await tx.execute("INSERT INTO labels VALUES (1)")

    with pytest.raises(HandlerError, match=r"write writes within a transaction.*Let it take `work: Work`"):
        invoking(subscribe).function()
    with pytest.raises(ServiceError, match="no subscription"):
        invoking(lambda service: None).function()


async def test_a_service_without_a_store_does_not_run_elsewhere() -> None:
    service = Service("labels", store="none://")
    with pytest.raises(ServiceError, match=r"has no store .* names? a store"):
        async with service:
            pass
    with pytest.raises(StatementError, match="There is no store here"):
        await service.publish(Ordered(order="a"))
    with pytest.raises(ServiceError, match="says more"):
        Service("labels", store="none:///labels.db")


def test_publishing_without_a_transport_is_refused(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    service = Service("labels", store="none://")

    @service.subscribe(Ordered)
    async def publish(event: Ordered, work: Work) -> None:
        async with work.finish() as tx:
            tx.publish(Ordered(order="b"))

    function = lambda_handler(service, outcomes=tmp_path.as_uri())
    assert failed(function(event_of([record(envelope(Ordered(order="a"), "e1"))]), Context(5))) == ["e1"]
    function.close()
    assert "the service has no transport" in caplog.text


@pytest.fixture(autouse=True)
def _all_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidings")
