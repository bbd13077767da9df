"""What the broker gives up is a dead letter of the relay, on our log row, and redriven it is sent again."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from queues import client, made
from waiting import until

from tidings import Event, Service, operations
from tidings.operations import Filter
from tidings.rows import DEAD, LANDING


class Asked(Event, name="cloud.asked", key="customer"):
    customer: str
    number: int


class Place:
    """Two queues of a test's own, and a service that sends to one whose dead letters are in the other."""

    def __init__(self, endpoint: str, folder: Path, kind: str) -> None:
        name = f"asked-{uuid.uuid4().hex[:8]}"
        self.queue, self.dead = f"{name}{kind}", f"{name}-dead{kind}"
        self.url = f"sqs://{self.queue}?dead={self.dead}&receives=1&visibility=0&wait=1&endpoint={endpoint}"
        made(self.url)
        self.sqs = client("sqs", endpoint)
        self.service = Service("asking", store=f"sqlite:///{folder}/asking.db", transport=self.url)
        self.service.register(Asked)

    def queue_url(self, name: str) -> str:
        return str(self.sqs.get_queue_url(QueueName=name)["QueueUrl"])

    def receive(self) -> list[str]:
        """Receive as a Lambda function that fails: its message is not settled, and its queue gives it up."""
        found = self.sqs.receive_message(
            QueueUrl=self.queue_url(self.queue), MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=0
        )
        return [each["Body"] for each in found.get("Messages", [])]

    def handled(self) -> None:
        """Receive as a Lambda function that does not fail."""
        url = self.queue_url(self.queue)
        (message,) = self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10, VisibilityTimeout=30)["Messages"]
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    async def failed(self, number: int) -> list[str]:
        """Wait until so many have come to the failing function."""
        came: list[str] = []
        async with asyncio.timeout(15):
            while len(came) < number:
                came += await asyncio.to_thread(self.receive)
        await asyncio.to_thread(self.receive)  # whoever looks next moves what is given up
        return came

    async def letters(self, state: str = DEAD) -> list[Any]:
        return await operations.letters(self.service.store, Filter(states=(state,)))


@pytest.fixture(params=["", ".fifo"], ids=["standard", "fifo"])
async def place(
    request: pytest.FixtureRequest, aws_endpoint: str, aws_credentials: None, tmp_path: Path
) -> AsyncIterator[Place]:
    place = Place(aws_endpoint, tmp_path, request.param)
    async with place.service:
        yield place


async def test_what_failed_where_there_is_no_store_is_dead_here_and_redriven_it_is_sent_again(place: Place) -> None:
    await place.service.publish(Asked(customer="c", number=1))
    (body,) = await place.failed(1)
    (letter,) = await until(lambda: place.letters(), len)
    assert letter.subscription == "asking:relay"
    assert letter.event.id in body
    assert f"{place.queue} gave it up" in letter.reason
    await place.service.publish(Asked(customer="c", number=2))  # its key goes on, as in the queue
    assert '"number":2' in (await place.failed(1))[0]
    await until(lambda: place.letters(), lambda found: len(found) == 2)
    first = Filter(event_id=letter.event.id)
    done = await operations.redrive(place.service.store, first, actor="anna", now=place.service.world.now())
    assert done.done == 1
    assert await place.failed(1) == [body]
    found = await until(lambda: place.letters(), lambda found: len(found) == 2)
    assert [each.position for each in found if each.event.id == letter.event.id] == [letter.position]


async def test_a_foreign_event_lands_and_what_is_no_event_is_a_dead_letter_of_landing(place: Place) -> None:
    foreign = '{"specversion":"1.0","id":"f1","source":"elsewhere","type":"cloud.asked","data":{"customer":"c"}}'
    lost = foreign.replace("elsewhere", "asking")
    fifo = {"MessageGroupId": "g"} if place.dead.endswith(".fifo") else {}
    for number, body in enumerate((foreign, "no event", lost)):
        once = {"MessageDeduplicationId": str(number)} if fifo else {}
        place.sqs.send_message(QueueUrl=place.queue_url(place.dead), MessageBody=body, **fifo, **once)
    letters = await until(lambda: place.letters(), lambda found: len(found) == 2)
    assert {letter.subscription for letter in letters} == {LANDING}
    assert sorted(letter.reason.partition(":")[0] for letter in letters) == ["given_up", "unreadable"]
    assert [record.envelope.source for record in await place.service.store.reading.find("f1")] == ["elsewhere"]


async def test_a_message_that_is_drained_twice_is_one_dead_letter_also_after_it_was_redriven(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = place.service.transport.dead
    settle, failures = dead.settle, []

    async def fail(deliveries: Any) -> None:
        if deliveries and len(failures) < 1:
            failures.append(deliveries)
            raise ConnectionResetError("cut off before it was acknowledged")
        await settle(deliveries)

    monkeypatch.setattr(dead, "settle", fail)
    monkeypatch.setattr("tidings.consuming.draining.PAUSE_SECONDS", 3.0)
    await place.service.publish(Asked(customer="c", number=1))
    await place.failed(1)
    await until(lambda: place.letters(), len)
    await operations.redrive(place.service.store, Filter(), actor="anna", now=place.service.world.now())
    await asyncio.to_thread(place.handled)  # this time it did not fail
    assert failures
    await asyncio.sleep(4)  # the message of the first failure has come again
    assert await place.letters() == []
    counts = place.sqs.get_queue_attributes(QueueUrl=place.queue_url(place.dead), AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"
