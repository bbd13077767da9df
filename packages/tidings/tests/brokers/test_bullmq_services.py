"""Two services with a BullMQ queue between them: effects once, through SIGKILLs of the receiver and of Redis."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from billing import OrderPlaced
from redis_server import RedisServer

from tidings import Service
from tidings.errors import TransportError

ORDERS = 400
SECONDS = 90.0


@contextmanager
def billing(url: str, database: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("billing.py")), url, str(database)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def charged(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM charges ORDER BY number")]


async def at_least(database: Path, number: int) -> None:
    async with asyncio.timeout(SECONDS):
        while len(charged(database)) < number:  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.05)


async def test_both_ends_start_while_redis_is_away_and_go_on_when_it_is_there(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    own_redis.kill()
    shop = Service("shop", store=f"sqlite:///{tmp_path / 'shop.db'}", transport=own_redis.url(queue="orders"))
    shop.register(OrderPlaced)
    database = tmp_path / "billing.db"
    with billing(own_redis.url(inward="orders"), database):
        async with shop:
            await shop.publish(OrderPlaced(order_id="o", number=0))
            assert shop.health()["outages"] == ["shop:relay"]
            own_redis.start()
            await at_least(database, 1)
            await shop.publish(OrderPlaced(order_id="o", number=1))
            await at_least(database, 2)
    assert charged(database) == [0, 1]


async def test_a_redis_that_does_not_let_us_in_ends_the_start(own_redis: RedisServer, tmp_path: Path) -> None:
    own_redis.call("CONFIG", "SET", "requirepass", "right")
    for login in ("", ":wrong@"):
        url = own_redis.url(queue="orders").replace("bullmq://", f"bullmq://{login}")
        shop = Service("shop", store=f"sqlite:///{tmp_path / 'shop.db'}", transport=url)
        with pytest.raises(TransportError, match="Check the user and password"):
            await shop.__aenter__()


async def test_effects_are_once_while_redis_and_the_receiver_are_killed(own_redis: RedisServer, tmp_path: Path) -> None:
    shop = Service("shop", store=f"sqlite:///{tmp_path / 'shop.db'}", transport=own_redis.url(queue="orders"))
    shop.register(OrderPlaced)
    database = tmp_path / "billing.db"
    url = own_redis.url(inward="orders", lock="1", stalled="0.5")
    numbers = iter(range(ORDERS))

    async def place(count: int) -> None:
        for number in [next(numbers) for _ in range(count)]:
            await shop.publish(OrderPlaced(order_id=f"o{number % 20}", number=number))

    async with shop:
        with billing(url, database):
            await place(100)
            await at_least(database, 30)
        with billing(url, database):  # the one before was killed with jobs in hand
            await place(100)
            own_redis.kill()
            await place(100)  # nobody who publishes notices
            own_redis.start()
            await at_least(database, 250)
        await place(100)
        own_redis.kill()
        own_redis.start()
        with billing(url, database):
            await at_least(database, ORDERS)
            await asyncio.sleep(2.0)  # a second delivery would be here by now
    assert charged(database) == list(range(ORDERS))
