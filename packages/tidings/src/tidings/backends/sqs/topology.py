"""What an address wants to be there: its queues, dead-letter queues, topics and subscriptions, compared or made."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from tidings.backends.sqs.address import FIFO, Address, read_url
from tidings.backends.sqs.calls import Calls, PlaceError
from tidings.backends.sqs.sending import QUEUE_BYTES
from tidings.world import World

RETENTION_SECONDS = 1_209_600
"""How long a queue keeps a message: 14 days, the longest there is."""

SID = "tidings"
"""The name of the one statement in a queue's policy that is ours; the others are left alone."""

_ORDERED = {"FifoQueue": "true", "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
"""High throughput: an event sent twice is of one group, so it is recognised within it."""


class Queue(Struct):
    """A queue that was found or made: its URL and ARN."""

    url: str
    arn: str


def open_topology(url: str, world: World) -> "Topology":
    """Return the topology of an `sqs://` or `sns://` URL; raises ServiceError."""
    return Topology(read_url(url))


class Topology:
    """Implements tidings.transport.Topology. What is there and not asked for stays as it is."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._calls = Calls(address)
        self._making = False
        self._said: list[str] = []

    async def check(self) -> list[str]:
        """Return what is missing or different, a line each; raises TransportError."""
        return await self._run(making=False)

    async def apply(self) -> list[str]:
        """Make what is missing and change what is different; return a line for each. Raises TransportError."""
        return await self._run(making=True)

    async def _run(self, *, making: bool) -> list[str]:
        self._making, self._said = making, []
        await self._calls.open()
        try:
            await self._look()
        finally:
            await self._calls.close()
        return self._said

    async def _look(self) -> None:
        address = self._address
        dead = {name: await self._queue(name, {}) for name in address.dead}
        for name in address.queues:
            wanted = {} if address.visibility is None else {"VisibilityTimeout": str(address.visibility)}
            await self._queue(name, wanted | self._redrive(name, dead))
        subscribed = address.topics if address.sources is None else address.sources
        topics = {name: await self._topic(name) for name in dict.fromkeys((*address.topics, *subscribed))}
        sources = [arn for name in subscribed if (arn := topics[name]) is not None]
        for name in address.inward:
            queue = await self._queue(name, {"VisibilityTimeout": str(address.lease)})
            if queue is not None and sources:
                await self._allow(name, queue, sources)
                for arn in sources:
                    await self._subscribe(name, queue, arn)

    def _redrive(self, name: str, dead: Mapping[str, Queue | None]) -> dict[str, str]:
        target = self._address.dead_of(name)
        queue = dead[target] if target is not None else None
        if queue is None:
            return {}
        policy = {"deadLetterTargetArn": queue.arn, "maxReceiveCount": self._address.receives}
        return {"RedrivePolicy": json.dumps(policy)}

    async def _queue(self, name: str, wanted: Mapping[str, str]) -> Queue | None:
        """See that a queue is there with these attributes; None if it is missing and not made."""
        kept = {"MessageRetentionPeriod": str(RETENTION_SECONDS), "MaximumMessageSize": str(QUEUE_BYTES)}
        wanted = kept | (_ORDERED if name.endswith(FIFO) else {}) | dict(wanted)
        url = await self._found(name)
        if url is None:
            self._said.append(f"queue {name}: is {'made' if self._making else 'missing'}")
            if not self._making:
                return None
            await self._calls.call(self._calls.sqs, "create_queue", QueueName=name, Attributes=wanted)
            url = await self._calls.queue_url(name)
        has = await self._attributes(url)
        different = {key: value for key, value in wanted.items() if not _same(has.get(key), value)}
        for key, value in different.items():
            self._tell(f"queue {name}", key, has.get(key), value)
        if different and self._making:
            await self._calls.call(self._calls.sqs, "set_queue_attributes", QueueUrl=url, Attributes=different)
        return Queue(url, has["QueueArn"])

    async def _found(self, name: str) -> str | None:
        owner = {"QueueOwnerAWSAccountId": self._address.account} if self._address.account else {}
        try:
            answer = await self._calls.call(self._calls.sqs, "get_queue_url", QueueName=name, **owner)
        except PlaceError as error:
            if error.missing:
                return None
            raise
        return str(answer["QueueUrl"])

    async def _attributes(self, url: str) -> dict[str, str]:
        answer = await self._calls.call(self._calls.sqs, "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
        found: dict[str, str] = answer["Attributes"]
        return found

    async def _topic(self, name: str) -> str | None:
        """See that a topic is there; None if it is missing and not made."""
        arn = await self._calls.arn_of_topic(name)
        try:
            await self._calls.call(self._calls.sns, "get_topic_attributes", TopicArn=arn)
        except PlaceError as error:
            if not error.missing:
                raise
            self._said.append(f"topic {name}: is {'made' if self._making else 'missing'}")
            if not self._making:
                return None
            attributes = {"FifoTopic": "true", "FifoThroughputScope": "MessageGroup"} if name.endswith(FIFO) else {}
            await self._calls.call(self._calls.sns, "create_topic", Name=name, Attributes=attributes)
        return arn

    async def _allow(self, name: str, queue: Queue, topics: list[str]) -> None:
        """See that the queue's policy lets the topics send to it."""
        has = json.loads((await self._attributes(queue.url)).get("Policy") or "{}")
        others = [each for each in has.get("Statement", []) if each.get("Sid") != SID]
        ours = {
            "Sid": SID, "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage",
            "Resource": queue.arn, "Condition": {"ArnEquals": {"aws:SourceArn": topics}},
        }  # fmt: skip
        if ours in has.get("Statement", []):
            return
        self._said.append(f"queue {name}: its policy {'lets' if self._making else 'does not let'} {topics} send to it")
        if self._making:
            policy = json.dumps({"Version": "2012-10-17", "Statement": [*others, ours]})
            await self._calls.call(
                self._calls.sqs, "set_queue_attributes", QueueUrl=queue.url, Attributes={"Policy": policy}
            )

    async def _subscribe(self, name: str, queue: Queue, topic: str) -> None:
        """See that a queue is subscribed to a topic, raw: as it was sent, without SNS's own envelope."""
        about = f"queue {name}: subscription to {topic.rpartition(':')[2]}"
        arn = await self._subscription(queue, topic)
        if arn is None:
            self._said.append(f"{about}: is {'made' if self._making else 'missing'}")
            if self._making:
                await self._calls.call(
                    self._calls.sns, "subscribe", TopicArn=topic, Protocol="sqs", Endpoint=queue.arn,
                    Attributes={"RawMessageDelivery": "true"},
                )  # fmt: skip
            return
        answer = await self._calls.call(self._calls.sns, "get_subscription_attributes", SubscriptionArn=arn)
        raw = answer["Attributes"].get("RawMessageDelivery", "false")
        if raw != "true":
            self._tell(about, "RawMessageDelivery", raw, "true")
            if self._making:
                await self._calls.call(
                    self._calls.sns, "set_subscription_attributes", SubscriptionArn=arn,
                    AttributeName="RawMessageDelivery", AttributeValue="true",
                )  # fmt: skip

    async def _subscription(self, queue: Queue, topic: str) -> str | None:
        token: dict[str, Any] = {}
        while True:
            answer = await self._calls.call(self._calls.sns, "list_subscriptions_by_topic", TopicArn=topic, **token)
            for each in answer["Subscriptions"]:
                if each["Endpoint"] == queue.arn:
                    return str(each["SubscriptionArn"])
            if not answer.get("NextToken"):
                return None
            token = {"NextToken": answer["NextToken"]}

    def _tell(self, about: str, key: str, has: str | None, wanted: str) -> None:
        verb = "was" if self._making else "is"
        self._said.append(f"{about}: {key} {verb} {has or 'not set'}, {'now' if self._making else 'wanted'} {wanted}")


def _same(has: str | None, wanted: str) -> bool:
    if has is None or not wanted.startswith("{"):
        return has == wanted
    return {key: str(value) for key, value in json.loads(has).items()} == {
        key: str(value) for key, value in json.loads(wanted).items()
    }
