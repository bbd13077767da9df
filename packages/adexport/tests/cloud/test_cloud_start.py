"""The API starts while everything but its database is away: requests are accepted, and go through once all is there."""

import asyncio
from dataclasses import replace

import httpx
from aws_proxy import AwsProxy
from cloud_servers import free_port
from local_cloud import Api, Place, Redis, function_at_work
from watched_exports import Exports


async def health(client: httpx.AsyncClient) -> tuple[str, list[str]]:
    said = (await client.get("/healthz")).json()
    return said["status"], said["outages"]


async def test_the_api_starts_and_accepts_while_sqs_s3_and_redis_are_away(place: Place, redis: Redis, order) -> None:
    async with AwsProxy(place.endpoint) as proxy:
        place = replace(place, endpoint=proxy.url)
        proxy.away |= {"sqs", "s3"}
        redis.kill()
        api = Api(place, free_port())
        await asyncio.to_thread(api.start)
        try:
            async with httpx.AsyncClient(base_url=api.address, timeout=60) as client:
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
        finally:
            await asyncio.to_thread(api.stop)
