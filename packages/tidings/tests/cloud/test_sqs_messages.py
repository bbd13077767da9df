"""What a message of SQS looks like on the wire, and what becomes of one that is not as it was sent."""

import json
import uuid
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from queues import client, made

from tidings.backends.sqs import SQSTransport, open_transport
from tidings.backends.sqs.message import message_of, traceparent_of, xray_of
from tidings.backends.sqs.sending import Place, Sending
from tidings.errors import ServiceError
from tidings.events import envelope_from_json
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.world import World

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
XRAY = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"
WORLD = World(system_clock, Random(), uuid7_ids)


@pytest.fixture
async def queue(aws_endpoint: str, aws_credentials: None) -> AsyncIterator[tuple[Any, str, SQSTransport]]:
    """AWS's own client, a queue's URL, and a transport that receives from it."""
    name = f"raw-{uuid.uuid4().hex[:8]}"
    url = f"sqs://{name}?in={name}&wait=1&endpoint={aws_endpoint}"
    made(url)
    sqs = client("sqs", aws_endpoint)
    transport = open_transport(url, WORLD)
    await transport.open()
    yield sqs, sqs.get_queue_url(QueueName=name)["QueueUrl"], transport
    await transport.close()


@pytest.mark.parametrize("text", ["plain", "Grüße 世界 🎉", "\\u0000 </end>"])
def test_a_body_is_ascii_and_reads_as_the_same_event(text: str) -> None:
    sent = envelope("e", key=f"Schlüssel {text}", data=json.dumps({"text": text}, ensure_ascii=False).encode())
    message = message_of(sent, "")
    assert message.body.isascii()
    assert envelope_from_json(message.body.encode()) == sent


def test_a_group_is_the_key_or_its_hash() -> None:
    keys = ["order-1", "", "a key", "ü", "k" * 128, "k" * 129]
    groups = [message_of(envelope("e", key=key), "").group for key in keys]
    assert [group == key for group, key in zip(groups, keys, strict=True)] == [True, False, False, False, True, False]
    assert len({*groups}) == len(keys)
    assert all(0 < len(group) <= 128 for group in groups)
    assert message_of(envelope("e"), "").group == "e"


def test_one_event_is_once_for_its_source_unless_it_is_sent_again_on_purpose() -> None:
    ids = [message_of(envelope("e", source=source), again).once for source in "ab" for again in ("", "x", "y")]
    assert len({*ids}) == 6
    assert message_of(envelope("e", source="a"), "").once == ids[0]


def test_trace_headers_carry_the_same_ids() -> None:
    assert xray_of(TRACE) == XRAY
    assert traceparent_of(XRAY) == TRACE
    assert [xray_of(None), traceparent_of("Root=1-5759e988-bd862e3fe1be46a994272793"), traceparent_of("")] == [None] * 3
    place = Place("q", "url", False)
    entry = Sending(None, place)._entry(0, message_of(envelope("e", traceparent=TRACE), ""))  # type: ignore[arg-type]
    # ministack drops system attributes of a batch; AWS does not.
    assert entry["MessageSystemAttributes"]["AWSTraceHeader"]["StringValue"] == XRAY


async def test_a_message_with_awss_trace_only_gives_it_to_the_event(queue: Any) -> None:
    sqs, url, transport = queue
    header = {"AWSTraceHeader": {"DataType": "String", "StringValue": XRAY}}
    sqs.send_message(QueueUrl=url, MessageBody="{}", MessageSystemAttributes=header)
    (delivery,) = await transport.receive(10)
    assert delivery.headers["traceparent"] == TRACE


async def test_a_message_that_was_changed_says_so(queue: Any) -> None:
    sqs, url, transport = queue
    await transport.send([envelope("e")])
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], VisibilityTimeout=0)["Messages"]
    digest = message["MessageAttributes"]["sha256"]
    spoilt = message["Body"].replace('"n":1', '"n":2')
    sqs.send_message(QueueUrl=url, MessageBody=spoilt, MessageAttributes={"sha256": digest})
    found = await transport.receive(10)
    found += await transport.receive(10) if len(found) < 2 else []
    assert sorted((each.broken is not None, b'"n":2' in each.body) for each in found) == [(False, False), (True, True)]


@pytest.mark.parametrize("raw", ["true", "false"])
async def test_what_comes_through_a_topic_is_read_with_and_without_snss_own_envelope(
    aws_endpoint: str, aws_credentials: None, raw: str
) -> None:
    name = f"topic-{uuid.uuid4().hex[:8]}"
    url = f"sns://{name}?in={name}-in&wait=1&endpoint={aws_endpoint}"
    made(url)
    sns = client("sns", aws_endpoint)
    (arn,) = [each["SubscriptionArn"] for each in sns.list_subscriptions()["Subscriptions"] if name in each["TopicArn"]]
    sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RawMessageDelivery", AttributeValue=raw)
    transport = open_transport(url, WORLD)
    await transport.open()
    sent = envelope("e", key="Schlüssel", data='{"text":"Grüße"}'.encode(), traceparent=TRACE)
    assert await transport.send([sent]) == []
    (delivery,) = await transport.receive(10)
    await transport.close()
    assert envelope_from_json(delivery.body) == sent
    assert (delivery.broken, delivery.headers["traceparent"]) == (None, TRACE)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqs://", "names no queue"),
        ("sqs://a b", "letters, digits"),
        ("sqs://a,b.fifo", "one kind"),
        ("sqs://a?in=", "letters, digits"),
        ("sqs://a?lease=0", "1 to 43200"),
        ("sqs://a?wait=30", "0 to 20"),
        ("sqs://a?account=12", "12 digits"),
        ("sns://t?nowhere=1", "is not known"),
    ],
)
def test_a_wrong_url_is_refused_with_what_it_takes(url: str, said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        open_transport(url, WORLD)
