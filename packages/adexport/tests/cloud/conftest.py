"""Ad Export's cloud for the tests: a stand-in for AWS, a Redis and a database of their own, the API."""

import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[3] / "tidings/tests/postgres"))  # servers.py

from cloud_servers import free_port
from local_cloud import Api, Place, Redis, prepare
from plain_design import DESIGN

ORDER = {"design": DESIGN}


@pytest.fixture
def order():
    """The body of a small export, with other rows and changes."""

    def make(count: int = 2, text: str = "Offer", **changes):
        return ORDER | {"rows": [{"headline": f"{text} number {number}"} for number in range(1, count + 1)]} | changes

    return make


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis that a test may kill."""
    server = Redis(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
def function_seconds() -> int:
    """How long the function may take, and after how long what it had comes again: short, where functions are killed."""
    return 10


@pytest.fixture
async def place(
    tmp_path: Path, aws_endpoint: str, aws_credentials: None, redis: Redis, postgres_url: str, function_seconds: int
) -> Place:
    """Everything is there and nobody is at work."""
    made = Place(
        name=f"ads-{secrets.token_hex(4)}", folder=tmp_path, endpoint=aws_endpoint, redis=redis.place,
        store=postgres_url, timeout=function_seconds, visibility=function_seconds,
    )  # fmt: skip
    await prepare(made)
    return made


@pytest.fixture
async def client(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API service, which runs."""
    api = Api(place, free_port()).start()
    try:
        async with httpx.AsyncClient(base_url=api.address, timeout=40) as opened:
            yield opened
    finally:
        api.stop()
        print(api.said())
