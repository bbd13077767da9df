"""What the tests of the whole flow share: queues and buckets of their own, messages, and what became of them."""

import asyncio
import json
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from aiobotocore.session import get_session
from invoking import envelope
from labels import OrderPlaced
from redis_server import RedisServer

from tidings.events import envelope_to_json
from tidings.testing.aws_lambda import EventSource, LambdaFunction

HERE = Path(__file__).parent
SECONDS = 60.0


class Cloud:
    """A stand-in for AWS, with open clients."""

    def __init__(self, endpoint: str, sqs: Any, s3: Any) -> None:
        self.endpoint = endpoint
        self.sqs = sqs
        self.s3 = s3
        self.bucket = f"labels-{secrets.token_hex(6)}"

    @property
    def outcomes(self) -> str:
        return f"s3://{self.bucket}/cloud?region=us-east-1&endpoint={self.endpoint}"

    async def queue(self, *, visibility: int = 3, fifo: bool = False, receives: int = 3) -> "Queue":
        """Make a queue whose messages are given up after some receives."""
        name, end = f"orders-{secrets.token_hex(6)}", ".fifo" * fifo
        kind = {"FifoQueue": "true"} if fifo else {}
        dead = (await self.sqs.create_queue(QueueName=f"{name}-dead{end}", Attributes=kind))["QueueUrl"]
        found = await self.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
        policy = {"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": receives}
        attributes = {"VisibilityTimeout": str(visibility), "RedrivePolicy": json.dumps(policy), **kind}
        made = await self.sqs.create_queue(QueueName=f"{name}{end}", Attributes=attributes)
        return Queue(self.sqs, made["QueueUrl"], dead, fifo=fifo)

    async def decided(self) -> list[dict[str, Any]]:
        """Return every outcome."""
        listed = await self.s3.list_objects_v2(Bucket=self.bucket)
        found = []
        for entry in listed.get("Contents", []):
            answer = await self.s3.get_object(Bucket=self.bucket, Key=entry["Key"])
            found.append(json.loads(await answer["Body"].read()))
        return found


class Queue:
    """A queue, and its dead-letter queue."""

    def __init__(self, sqs: Any, url: str, dead_url: str, *, fifo: bool) -> None:
        self.sqs = sqs
        self.url = url
        self.dead_url = dead_url
        self.fifo = fifo

    async def put(self, *bodies: str, group: str = "g") -> None:
        """Put bodies into the queue, as they are."""
        for body in bodies:
            ordered = {"MessageGroupId": group, "MessageDeduplicationId": secrets.token_hex(8)} if self.fifo else {}
            await self.sqs.send_message(QueueUrl=self.url, MessageBody=body, **ordered)

    async def order(self, *orders: str, group: str = "g") -> None:
        """Put an event for each of some orders into the queue; its id is `e-` and the order."""
        bodies = [envelope_to_json(envelope(OrderPlaced(order_id=order), f"e-{order}")).decode() for order in orders]
        await self.put(*bodies, group=group)

    async def left(self, url: str | None = None) -> int:
        """Return how many messages it holds, those that are out included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.sqs.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    async def dead(self) -> list[str]:
        """Return the bodies of what was given up, and take them away."""
        found: list[str] = []
        while True:
            answer = await self.sqs.receive_message(QueueUrl=self.dead_url, MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return found
            for message in answer["Messages"]:
                found.append(message["Body"])
                await self.sqs.delete_message(QueueUrl=self.dead_url, ReceiptHandle=message["ReceiptHandle"])


class Flow:
    """The function over a queue, and what its handler noted in the test's folder."""

    def __init__(self, cloud: Cloud, folder: Path, redis: RedisServer) -> None:
        self.cloud = cloud
        self.folder = folder
        self.redis = redis
        self.function: LambdaFunction
        self.source: EventSource

    @asynccontextmanager
    async def running(
        self,
        queue: Queue,
        *,
        seconds: float = 3.0,
        concurrency: int = 2,
        kill_at: str = "",
        outcomes: str = "",
        **options: Any,
    ) -> AsyncIterator["Flow"]:
        """Let the function handle what is in a queue."""
        variables = {
            "TRANSPORT": self.redis.url(queue="labels"), "OUTCOMES": outcomes or self.cloud.outcomes,
            "NOTES": str(self.folder / "notes"), "KILLED": str(self.folder / "killed"), "KILL_AT": kill_at,
        }  # fmt: skip
        function = LambdaFunction(
            "labels.handler", HERE, variables=variables, timeout=seconds, concurrency=concurrency,
            output=self.folder / "output.txt",
        )  # fmt: skip
        async with (
            function as self.function,
            EventSource(function, self.cloud.sqs, queue.url, **options) as self.source,
        ):
            yield self

    def runs(self, order: str) -> int:
        """Return how often the handler ran for an order."""
        return [line.split()[0] for line in self.notes()].count(order)

    def notes(self) -> list[str]:
        """Return what the handler has noted: order, attempt, seconds of CPU."""
        notes = self.folder / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def killed(self) -> int:
        """Return the process that a point has ended."""
        return int((self.folder / "killed").read_text())

    def output(self) -> str:
        """Return what the processes printed."""
        return (self.folder / "output.txt").read_text(errors="replace")

    def landed(self) -> list[tuple[str, str]]:
        """Return order and label of what the listener has written."""
        database = self.folder / "shop.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(database)) as connection:
            return connection.execute("SELECT order_id, label FROM labels ORDER BY order_id").fetchall()

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until something holds."""
        try:
            async with asyncio.timeout(SECONDS):
                while not what():  # noqa: ASYNC110  other processes make it so
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {SECONDS:g} s; {self.landed()=}\n{self.output()[-3000:]}") from None

    async def until_empty(self, queue: Queue) -> None:
        """Wait until a queue holds nothing."""
        try:
            async with asyncio.timeout(SECONDS):
                while await queue.left():  # noqa: ASYNC110  other processes take it
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"the queue is not empty; {self.output()[-3000:]}") from None


@asynccontextmanager
async def opened(endpoint: str) -> AsyncIterator[Cloud]:
    """Open clients of the stand-in, and make a bucket."""
    async with AsyncExitStack() as stack:
        sqs, s3 = [
            await stack.enter_async_context(get_session().create_client(name, endpoint_url=endpoint))
            for name in ("sqs", "s3")
        ]
        cloud = Cloud(endpoint, sqs, s3)
        await s3.create_bucket(Bucket=cloud.bucket)
        yield cloud


def orders(bodies: Sequence[str]) -> list[str]:
    """Return the orders of some messages."""
    return [json.loads(body)["data"]["order_id"] for body in bodies]
