"""Parts of the cloud fail while exports go through it: each export ends with all its files, and nothing is doubled."""

import asyncio
import json
import os
import random
import signal
from contextlib import suppress
from dataclasses import replace

import boto3
import httpx
import pytest
from aws_proxy import AwsProxy
from cloud_servers import CREDENTIALS
from local_cloud import Place, Redis, function_at_work
from planting import api_at_work, planting
from watched_exports import Exports

SOAK = (pytest.mark.soak, pytest.mark.timeout(1200))


@pytest.fixture
def exports(client: httpx.AsyncClient, place: Place) -> Exports:
    return Exports(client, place)


async def kill_functions(function, *, times: int, every: float) -> int:
    """SIGKILL processes of the function that are at work or asleep; returns how many were hit."""
    killed, rng = 0, random.Random(1)
    while killed < times:
        await asyncio.sleep(every)
        if pids := [one.pid for one in function.environments if one.pid]:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
                killed += 1
    return killed


def never_give_up(place: Place) -> None:
    """Let SQS hand a message out more often than three times: here it comes again after ten seconds, not after twelve
    minutes, so that three would be over within an outage."""
    sqs = boto3.client("sqs", endpoint_url=place.endpoint)
    url = sqs.get_queue_url(QueueName=place.queue)["QueueUrl"]
    said = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    policy = json.dumps(json.loads(said) | {"maxReceiveCount": 100})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})


async def deliver_again(place: Place, *, seconds: float) -> int:
    """Put two copies of waiting messages in their place, as a standard queue may deliver one twice; returns how many.

    The copies are new: SQS counts how often it has handed a message out, and gives it up by that.
    """
    sqs = boto3.client("sqs", endpoint_url=place.endpoint)
    url = sqs.get_queue_url(QueueName=place.queue)["QueueUrl"]
    ends, copied = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < ends:
        taken = await asyncio.to_thread(sqs.receive_message, QueueUrl=url, MessageAttributeNames=["All"])
        for message in taken.get("Messages", []):
            attributes = {
                name: {key: value for key, value in said.items() if key in ("DataType", "StringValue", "BinaryValue")}
                for name, said in message.get("MessageAttributes", {}).items()
            }
            for _ in range(2):
                sqs.send_message(QueueUrl=url, MessageBody=message["Body"], MessageAttributes=attributes)
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            copied += 1
        await asyncio.sleep(0.1)
    return copied


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=SOAK)])
async def test_functions_are_killed_redis_is_restarted_and_messages_come_twice(
    exports: Exports, place: Place, redis: Redis, order, count: int
) -> None:
    await asyncio.to_thread(never_give_up, place)
    async with function_at_work(place, batch_size=1) as (function, source):
        for number in range(count):
            await exports.ask(order(2, f"Storm {number}"))
        storm = [
            asyncio.create_task(kill_functions(function, times=max(count // 6, 2), every=0.7)),
            asyncio.create_task(deliver_again(place, seconds=max(count / 10, 3.0))),
        ]
        for _ in range(max(count // 50, 1)):
            await asyncio.sleep(1.0)
            redis.kill()
            await asyncio.sleep(0.5)
            redis.start()
        killed, copied = await asyncio.gather(*storm)
        await exports.all_over(900 if count > 12 else 120)
        ended = [result.error_type for _, result in source.results if result.error_type]
    assert killed
    assert copied
    assert ended, "no process was killed at work"
    await exports.check()


@pytest.mark.soak
async def test_results_that_are_decided_anew_are_noticed(exports: Exports, place: Place, order) -> None:
    for number in range(4):
        await exports.ask(order(2, f"Anew {number}"))
    assert await deliver_again(place, seconds=3.0)
    async with function_at_work(place, credentials={**CREDENTIALS, **planting("decided anew")}):
        await exports.all_over(90)
        await asyncio.sleep(3.0)  # for the copies
    with pytest.raises(AssertionError, match="two results"):
        await exports.check()


@pytest.mark.parametrize("seconds", [1.5, pytest.param(30.0, marks=SOAK)])
async def test_each_part_is_away_in_turn_and_every_request_is_accepted(
    place: Place, redis: Redis, order, seconds: float
) -> None:
    await through_all_outages(place, redis, order, seconds)


@pytest.mark.soak
async def test_an_api_that_turns_requests_away_without_s3_is_noticed(place: Place, redis: Redis, order) -> None:
    with pytest.raises(AssertionError, match="503"):
        await through_all_outages(place, redis, order, 1.5, "turned away without S3")


async def through_all_outages(place: Place, redis: Redis, order, seconds: float, planted: str = "") -> None:
    await asyncio.to_thread(never_give_up, place)
    async with AwsProxy(place.endpoint) as proxy:
        place = replace(place, endpoint=proxy.url)
        async with api_at_work(place, planted) as client:
            exports = Exports(client, place)
            for away in ("sqs", "s3", "redis", "function"):
                await through_an_outage(away, exports, place, proxy, redis, order, seconds)
            async with function_at_work(place):
                await exports.all_over(90 + seconds)
            # What was under way when S3 went has three tries, ten seconds apart: its files may have failed, and say so.
            await exports.check(failed=1 if seconds > 15 else 0)


async def through_an_outage(
    away: str, exports: Exports, place: Place, proxy: AwsProxy, redis: Redis, order, seconds: float
) -> None:
    """Ask for exports before, in and after an outage of one part."""
    if away == "function":
        await asyncio.gather(*(exports.ask(order(2, f"No {away} {number}")) for number in range(3)))
        await asyncio.sleep(seconds)  # nobody takes what waits
        return
    async with function_at_work(place):
        await exports.ask(order(2, f"Before {away}"))
        if away == "redis":
            redis.kill()
        else:
            proxy.away.add(away)
        for number in range(3):
            await exports.ask(order(2, f"No {away} {number}"))
            await exports.pages_load()
            await asyncio.sleep(seconds / 3)
        if away == "redis":
            redis.start()
        else:
            proxy.away.discard(away)
        await exports.ask(order(2, f"After {away}"))
