"""Fixtures of the broker tests: a durable Redis, real BullMQ on Node, and transports that are closed afterwards."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from node_bullmq import Node, Run, installed
from redis_server import RedisServer
from sending import Opening

from tidings.backends.bullmq import BullMQTransport, open_transport
from tidings.service import system_clock, uuid7_ids
from tidings.world import World


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """A running Redis that holds nothing; it stays as it is, for others use it too."""
    shared_redis.call("FLUSHALL")
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis that a test may kill and start again."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
def world() -> World:
    return World(system_clock, Random(), uuid7_ids)


@pytest.fixture
async def opened(world: World) -> AsyncIterator[Opening]:
    """Opens the transport of a URL, and closes it in the end."""
    async with AsyncExitStack() as stack:

        async def opening(url: str) -> BullMQTransport:
            transport = open_transport(url, world)
            stack.push_async_callback(transport.close)
            await transport.open()
            return transport

        yield opening


@pytest.fixture(scope="session")
def node_place() -> tuple[str, Path]:
    return installed()


@pytest.fixture
def node(node_place: tuple[str, Path]) -> Iterator[Run]:
    """Starts commands of jobs.mjs; what still runs in the end is killed."""
    with ExitStack() as stack:

        def run(command: str, port: int, queue: str, **options: Any) -> Node:
            return stack.enter_context(Node(node_place, command, {"port": port, "queue": queue, **options}))

        yield run
