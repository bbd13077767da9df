"""The API starts while everything but its database is away: requests are accepted, and go through once all is there."""

from dataclasses import replace

import httpx
import pytest
from aws_proxy import AwsProxy
from local_cloud import Place, Redis, function_at_work
from planting import api_at_work
from watched_exports import Exports


@pytest.fixture
def function_seconds() -> int:
    """As long as a busy machine needs: no function is killed here."""
    return 60


async def health(client: httpx.AsyncClient) -> tuple[str, list[str]]:
    said = (await client.get("/healthz")).json()
    return said["status"], said["outages"]


async def test_the_api_starts_and_accepts_while_sqs_s3_and_redis_are_away(place: Place, redis: Redis, order) -> None:
    async with AwsProxy(place.endpoint) as proxy:
        place = replace(place, endpoint=proxy.url)
        proxy.away |= {"sqs", "s3"}
        redis.kill()
        async with api_at_work(place) as client:
            exports = Exports(client, place)
            await exports.ask(order(2))
            await exports.pages_load()
            assert await health(client) == ("degraded", ["adexport:relay", "draining", "landing"])
            proxy.away.clear()
            redis.start()
            async with function_at_work(place):
                await exports.all_over(90)
            await exports.check()
            assert await health(client) == ("ok", [])
