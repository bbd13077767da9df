"""A plain loop that sends to an SQS queue with aiobotocore: calls of ten, many at once, nothing around them."""

import asyncio
import time
from collections.abc import Sequence

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from tidings.events import Envelope, envelope_to_json


async def add(endpoint: str, queue: str, envelopes: Sequence[Envelope], width: int, fifo: bool) -> float:
    """Send each envelope as a message, `width` at a time; return messages per second."""
    config = AioConfig(max_pool_connections=32)
    async with get_session().create_client("sqs", endpoint_url=endpoint, config=config) as sqs:
        url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]

        async def call(some: Sequence[Envelope]) -> None:
            answer = await sqs.send_message_batch(
                QueueUrl=url, Entries=[_entry(*each, fifo) for each in enumerate(some)]
            )
            assert not answer.get("Failed"), answer["Failed"]

        began = time.perf_counter()
        for first in range(0, len(envelopes), width):
            some = envelopes[first : first + width]
            await asyncio.gather(*[call(some[start : start + 10]) for start in range(0, len(some), 10)])
        return len(envelopes) / (time.perf_counter() - began)


def _entry(number: int, envelope: Envelope, fifo: bool) -> dict[str, object]:
    entry: dict[str, object] = {"Id": str(number), "MessageBody": envelope_to_json(envelope).decode()}
    if fifo:
        entry |= {"MessageGroupId": envelope.key or envelope.id, "MessageDeduplicationId": envelope.id}
    return entry
