"""`tidings topology`: makes what a service needs, says what differs, leaves the rest alone."""

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from queues import client

SERVICE = """
from tidings import Service

service = Service("planned", store="sqlite:///planned.db", transport="{out}", landing="{inward}")
"""


@pytest.fixture
def name() -> str:
    return f"plan-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topology(tmp_path: Path, aws_endpoint: str, aws_credentials: None, name: str) -> Any:
    """Runs the command on a service with a queue that has a dead-letter queue, and a FIFO one behind a topic."""
    at = f"endpoint={aws_endpoint}"
    out = f"sqs://{name}?dead={name}-dlq&receives=4&visibility=120&{at}"
    inward = f"sqs://?in={name}-in.fifo&from={name}-said.fifo&lease=45&{at}"
    (tmp_path / "planned.py").write_text(SERVICE.format(out=out, inward=inward))

    def run(command: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tidings.cli", "topology", command, "planned:service"], cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


def test_what_is_missing_is_said_then_made_and_then_nothing_differs(topology: Any, name: str) -> None:
    code, said = topology("check")
    assert code == 1
    for part in (f"queue {name}: is missing", f"topic {name}-said.fifo: is missing", "tidings topology apply planned"):
        assert part in said
    assert topology("apply")[0] == 0
    code, said = topology("check")
    assert (code, said.strip()) == (0, "Everything is there, and as the service needs it.")


def test_what_differs_is_named_and_put_right_and_what_nobody_asked_for_stays(
    topology: Any, name: str, aws_endpoint: str
) -> None:
    assert topology("apply")[0] == 0
    sqs, sns = client("sqs", aws_endpoint), client("sns", aws_endpoint)
    out, inward = (sqs.get_queue_url(QueueName=each)["QueueUrl"] for each in (name, f"{name}-in.fifo"))
    mine = {"Sid": "mine", "Effect": "Allow", "Principal": "*", "Action": "sqs:GetQueueUrl", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [mine]})
    sqs.set_queue_attributes(QueueUrl=inward, Attributes={"Policy": policy})
    sqs.set_queue_attributes(QueueUrl=out, Attributes={"VisibilityTimeout": "7", "DelaySeconds": "3"})
    (arn,) = [each["SubscriptionArn"] for each in sns.list_subscriptions()["Subscriptions"] if name in each["TopicArn"]]
    sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RawMessageDelivery", AttributeValue="false")
    code, said = topology("check")
    assert code == 1
    for part in ("VisibilityTimeout is 7, wanted 120", "its policy does not let", "RawMessageDelivery is false"):
        assert part in said
    assert topology("apply")[0] == 0
    assert topology("check")[0] == 0
    has = sqs.get_queue_attributes(QueueUrl=out, AttributeNames=["All"])["Attributes"]
    assert (has["DelaySeconds"], json.loads(has["RedrivePolicy"])["maxReceiveCount"]) == ("3", 4)
    has = sqs.get_queue_attributes(QueueUrl=inward, AttributeNames=["All"])["Attributes"]
    assert [each["Sid"] for each in json.loads(has["Policy"])["Statement"]] == ["mine", "tidings"]
    assert (has["FifoQueue"], has["FifoThroughputLimit"]) == ("true", "perMessageGroupId")


@pytest.mark.parametrize("how", ["nobody", "nowhere"])
def test_a_broker_that_cannot_be_asked_is_told_in_three_lines(
    topology: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "nobody":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    else:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    code, said = topology("check")
    assert code == (3 if how == "nobody" else 4), said
    assert ("Give this process a role or a key" if how == "nobody" else "set AWS_DEFAULT_REGION") in said
    assert "Traceback" not in said
    assert "Unclosed" not in said
