"""A process that drains is killed at each of its points: one dead letter, one fact, and nothing left in the queue."""

import asyncio
import json
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from queues import client, made
from waiting import until

from tidings.points import DRAINING_POINTS

SERVICE = Path(__file__).with_name("draining_service.py")
SECONDS = 120.0


async def started(url: str, folder: Path, point: str = "") -> asyncio.subprocess.Process:
    command = [sys.executable, str(SERVICE), url, str(folder), *([point] if point else [])]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


@pytest.mark.parametrize("point", DRAINING_POINTS)
async def test_what_is_drained_survives_a_kill(
    point: str, aws_endpoint: str, aws_credentials: None, tmp_path: Path
) -> None:
    name = f"killed-{uuid.uuid4().hex[:8]}"
    url = f"sqs://{name}?dead={name}-dead&receives=1&visibility=0&lease=1&wait=1&endpoint={aws_endpoint}"
    made(url)
    sqs = client("sqs", aws_endpoint)
    queue, dead = (sqs.get_queue_url(QueueName=one)["QueueUrl"] for one in (name, f"{name}-dead"))

    async def fail() -> list[Any]:
        """Receive as a function that does not survive it."""
        answer = await asyncio.to_thread(sqs.receive_message, QueueUrl=queue, VisibilityTimeout=0)
        return list(answer.get("Messages", []))

    first = await started(url, tmp_path, point)
    await until(fail, len, SECONDS)
    await fail()  # whoever looks next moves what is given up
    assert await asyncio.wait_for(first.wait(), SECONDS) == -signal.SIGKILL
    second = await started(url, tmp_path)
    said, _ = await asyncio.wait_for(second.communicate(), SECONDS)
    assert json.loads(said) == {"letters": [["asking:relay", 1]], "heard": 1, "facts": 1}
    counts = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"
