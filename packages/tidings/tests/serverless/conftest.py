"""Fixtures of the tests of AWS Lambda: a function in this process, and one of real processes between real servers."""

import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "brokers"))
sys.path.insert(0, str(Path(__file__).parent))

from cloud import Cloud, Flow, opened
from invoking import Invoking
from labels import LabelPrinted
from redis_server import RedisServer

from tidings import Service, Transaction


@pytest.fixture
def invoking(tmp_path: Path) -> Iterator[Callable[[Callable[[Service], None]], Invoking]]:
    """Makes functions of a service whose subscriptions are given."""
    made: list[Invoking] = []

    def make(subscribe: Callable[[Service], None]) -> Invoking:
        made.append(Invoking(tmp_path, f"labels-{secrets.token_hex(6)}", subscribe))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may kill and start again."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
async def cloud(aws_endpoint: str, aws_credentials: None) -> AsyncIterator[Cloud]:
    async with opened(aws_endpoint) as cloud:
        yield cloud


@pytest.fixture
async def flow(cloud: Cloud, tmp_path: Path, redis: RedisServer) -> AsyncIterator[Flow]:
    """The flow from a queue of SQS to the table of a listener: a label that came twice is a row too many."""
    shop = Service(
        "shop", store=f"sqlite:///{tmp_path / 'shop.db'}", transport=None, landing=redis.url(inward="labels")
    )
    shop.schema("CREATE TABLE IF NOT EXISTS labels (order_id TEXT, label TEXT)")

    @shop.subscribe(LabelPrinted, start="beginning")
    async def note_label(event: LabelPrinted, tx: Transaction) -> None:
        await tx.execute("INSERT INTO labels VALUES ($1, $2)", event.order_id, event.label)

    async with shop:
        yield Flow(cloud, tmp_path, redis)
