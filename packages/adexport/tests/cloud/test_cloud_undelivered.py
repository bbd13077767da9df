"""A batch that no function survives ends up in the dead-letter queue, and its export ends soon, with that reason."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import boto3
import httpx
from local_cloud import Place, function_at_work


def hasten(place: Place, seconds: int) -> Place:
    """The same place with another time-out; what a function has not survived comes again after it."""
    sqs = boto3.client("sqs", endpoint_url=place.endpoint)
    url = sqs.get_queue_url(QueueName=place.queue)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(seconds)})
    return replace(place, timeout=seconds, visibility=seconds)


async def kill_whoever_works(function) -> None:
    """SIGKILL every process of the function as soon as it is there."""
    while True:
        for pid in [one.pid for one in function.environments if one.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.05)


async def ended(client: httpx.AsyncClient, home: str) -> dict:
    """The export, once it is over."""
    async with asyncio.timeout(90):
        while True:
            export = (await client.get(home)).json()["export"]
            if export["state"] in ("done", "dead"):
                return export
            await asyncio.sleep(0.2)


async def dlq(place: Place, *words: str) -> str:
    """What `tidings dlq` says about the API service's store."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("tidings"), "dlq", *words, "--store", place.store, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def test_a_batch_that_kills_its_function_ends_its_export_with_a_reason_and_may_be_tried_again(
    place: Place, client: httpx.AsyncClient, order
) -> None:
    home = (await client.post("/v1/exports", json=order(1))).headers["location"]
    async with function_at_work(hasten(place, 2), batch_size=1) as (function, _):
        killing = asyncio.create_task(kill_whoever_works(function))
        export = await ended(client, home)
        killing.cancel()
    cells = (await client.get(f"{home}/cells")).json()
    assert (export["state"], export["done"], export["failed"]) == ("dead", 0, 2)
    assert {cell["cause"] for cell in cells} == {"undelivered"}
    assert f"{place.queue} gave it up" in cells[0]["reason"]
    assert cells[0]["reason"] in (await client.get(f"{home}/timeline")).text

    (letter,) = json.loads(await dlq(place, "list", "--json"))
    assert letter["subscription"] == "adexport:relay"
    async with function_at_work(hasten(place, 30)) as (_, source):
        await dlq(place, "redrive", "--yes")  # its export is over: it is taken, and makes nothing
        async with asyncio.timeout(60):
            while not source.results:  # noqa: ASYNC110 - the function does it
                await asyncio.sleep(0.1)
        assert [result.error_type for _, result in source.results] == [None]
        assert json.loads(await dlq(place, "list", "--json")) == []
        assert (await client.get(home)).json()["export"]["state"] == "dead"
        assert (await client.post(f"{home}/retry")).status_code in (200, 202, 204)
        export = await ended(client, home)
        assert (export["state"], export["done"], export["failed"]) == ("done", 2, 0)
