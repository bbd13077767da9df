"""The stand-in for AWS keeps to what the transport relies on: each of these was seen to differ among stand-ins."""

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError
from queues import client


@pytest.fixture
def sqs(aws_endpoint: str, aws_credentials: None) -> Any:
    return client("sqs", aws_endpoint)


@pytest.fixture
def fifo(sqs: Any) -> str:
    name = f"probe-{uuid.uuid4().hex[:8]}.fifo"
    url: str = sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    return url


def send(sqs: Any, queue: str, body: str, group: str = "g") -> None:
    sqs.send_message(QueueUrl=queue, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=body)


def test_a_group_in_flight_waits_and_comes_again_in_its_order(sqs: Any, fifo: str) -> None:
    for body in ("1", "2", "3"):
        send(sqs, fifo, body)
    first = sqs.receive_message(QueueUrl=fifo, MaxNumberOfMessages=2, VisibilityTimeout=1)["Messages"]
    assert [each["Body"] for each in first] == ["1", "2"]
    assert "Messages" not in sqs.receive_message(QueueUrl=fifo, MaxNumberOfMessages=10)
    again = sqs.receive_message(QueueUrl=fifo, MaxNumberOfMessages=10, WaitTimeSeconds=3)["Messages"]
    assert [each["Body"] for each in again] == ["1", "2", "3"]


def test_a_message_sent_twice_comes_once_also_after_it_was_deleted(sqs: Any, fifo: str) -> None:
    send(sqs, fifo, "1")
    (one,) = sqs.receive_message(QueueUrl=fifo)["Messages"]
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=one["ReceiptHandle"])
    send(sqs, fifo, "1")
    assert "Messages" not in sqs.receive_message(QueueUrl=fifo)


def test_a_stale_receipt_deletes_nothing(sqs: Any, fifo: str) -> None:
    send(sqs, fifo, "1")
    (one,) = sqs.receive_message(QueueUrl=fifo, VisibilityTimeout=0)["Messages"]
    assert "Messages" in sqs.receive_message(QueueUrl=fifo, WaitTimeSeconds=1)
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        sqs.delete_message(QueueUrl=fifo, ReceiptHandle=one["ReceiptHandle"])
