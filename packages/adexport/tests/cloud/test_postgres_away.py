"""Postgres is stopped while results come in: BullMQ keeps every one of them, and every accepted export ends."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import boto3
import httpx
import pytest
from kept_jobs import jobs
from local_cloud import Place, function_at_work
from planting import api_at_work
from servers import Server, servers
from watched_exports import Exports

COUNT = 6
SOAK = (pytest.mark.soak, pytest.mark.timeout(900))


@pytest.fixture
def function_seconds() -> int:
    """As long as a busy machine needs: no function is killed here."""
    return 60


@pytest.fixture
def postgres() -> Iterator[Server]:
    """A Postgres of the test's own."""
    with servers() as new:
        server = new()
        server.make()
        yield server


def waiting_batches(place: Place) -> int:
    """How many batches wait in SQS."""
    sqs = boto3.client("sqs", endpoint_url=place.endpoint)
    url = sqs.get_queue_url(QueueName=place.queue)["QueueUrl"]
    said = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    return int(said["ApproximateNumberOfMessages"])


async def refused_clearly(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    """A request is turned away soon, as one to be made again, and pages say so in words."""
    async with asyncio.timeout(15):
        answer = await client.post("/v1/exports", json=body, headers={"Idempotency-Key": "in the outage"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["detail"] == "The store cannot take this now. Try again shortly."
    async with asyncio.timeout(15):
        page = await client.get("/", headers={"Accept": "text/html"}, follow_redirects=True)
    assert page.status_code == 503


async def accepted_again(client: httpx.AsyncClient, body: dict[str, object]) -> str:
    """The same request is made until it is taken."""
    async with asyncio.timeout(60):
        while True:
            answer = await client.post("/v1/exports", json=body, headers={"Idempotency-Key": "in the outage"})
            if answer.status_code == 202:
                return str(answer.headers["location"])
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.2)


async def through_an_outage(
    place: Place, postgres: Server, exports: Exports, client: httpx.AsyncClient, order, seconds: float, planted: str
) -> None:
    """Stop Postgres when batches wait, let them be rendered meanwhile, and start it again."""
    async with function_at_work(place):
        await exports.ask(order(2, "Before"))
        await exports.all_over(60)
    before = jobs(place).completed
    await asyncio.gather(*(exports.ask(order(2, f"Kept {number}")) for number in range(COUNT)))
    async with asyncio.timeout(30):
        while await asyncio.to_thread(waiting_batches, place) < COUNT:  # noqa: ASYNC110  only SQS knows
            await asyncio.sleep(0.1)
    await asyncio.to_thread(postgres.stop, "immediate")
    ends = asyncio.get_running_loop().time() + seconds
    async with function_at_work(place):
        with suppress(TimeoutError):
            async with asyncio.timeout(45 if planted else 150):
                while len(jobs(place).kept) < COUNT:  # noqa: ASYNC110  only Redis knows
                    await asyncio.sleep(0.1)
        results = jobs(place).kept
        assert len(results) == COUNT, "not every result is kept"
        while asyncio.get_running_loop().time() < ends:
            await refused_clearly(client, order(2, "Refused"))
            seen = jobs(place)
            assert (seen.kept, seen.completed, seen.failed) == (results, before, frozenset()), "BullMQ kept not all"
            await asyncio.sleep(0.5)
        await asyncio.to_thread(postgres.start)
        exports.homes.append(await accepted_again(client, order(2, "Refused")))
        await exports.pages_load()
        await exports.ask(order(2, "After"))
        await exports.all_over(90 + seconds)
    await exports.check()
    assert results <= jobs(place).completed
    assert results <= await exports.landed()


async def run_through(place: Place, postgres: Server, order, seconds: float, planted: str = "") -> None:
    place = replace(place, store=postgres.url)
    async with api_at_work(place, planted) as client:
        await through_an_outage(place, postgres, Exports(client, place), client, order, seconds, planted)


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=SOAK)])
async def test_every_result_is_kept_while_postgres_is_stopped(
    place: Place, postgres: Server, order, seconds: float
) -> None:
    await run_through(place, postgres, order, seconds)


@pytest.mark.soak
@pytest.mark.parametrize("defect", ["acknowledged before it landed", "failed at the first error"])
async def test_a_planted_defect_loses_results(place: Place, postgres: Server, order, defect: str) -> None:
    with pytest.raises(AssertionError, match="kept"):
        await run_through(place, postgres, order, 6.0, defect)
