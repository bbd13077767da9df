"""The template gives each role what it needs and no more: every right that a run used is there, and each is used."""

import asyncio
import fnmatch
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from aws_proxy import AwsProxy, Call
from cloud_servers import CREDENTIALS, free_port
from local_cloud import Api, Place, function_at_work

from adexport.bootstrap import build
from adexport.settings import read_settings

TEMPLATE = Path(__file__).parents[4] / "deploy/template.yaml"
API, FUNCTION, OTHER = (
    "test",
    "AKIAFUNCTION",
    "AKIAOTHER",
)  # the stand-in checks the signatures of links, with the one key it knows


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as what stands behind them."""


def _short(loader: Loader, suffix: str, node: yaml.Node) -> Any:
    return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else f"{suffix} {node.value}"


Loader.add_multi_constructor("!", _short)


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)
    return document["Resources"]


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def rights(policy: dict[str, Any], place: Place) -> Iterator[tuple[str, str]]:
    """Action and resource of each right of a policy, with the names of this place."""
    names = {"Batches.Arn": place.queue, "DeadBatches.Arn": f"{place.queue}-dead", "${Files.Arn}": place.bucket,
             "Files.Arn": place.bucket}  # fmt: skip
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        for resource in as_list(statement["Resource"]):
            named = resource.partition(" ")[2]
            for begin, name in names.items():
                if named.startswith(begin):
                    named = name + named.removeprefix(begin)
                    break
            else:
                raise AssertionError(f"{resource} is of no known place")
            yield from ((action, named) for action in as_list(statement["Action"]))


def lacking(calls: set[Call], granted: list[tuple[str, str]]) -> set[Call]:
    return {
        call
        for call in calls
        if not any(
            call.action == action and (fnmatch.fnmatchcase(call.resource, where) or _some_of(call.resource, where))
            for action, where in granted
        )
    }


def _some_of(resource: str, where: str) -> bool:
    """A call about several objects at once names their bucket."""
    return resource.endswith("/") and where.startswith(resource)


async def use_everything(place: Place, proxy: AwsProxy, client: httpx.AsyncClient, order: Any) -> None:
    """What the API and the function do in their lives: exports, links, a zip left, cleaning."""
    for body in (order(), order(), order(60, sizes=["1000x1000"], formats=["png"])):
        home = (await client.post("/v1/exports", json=body)).headers["location"]
        export = (await client.get(home, headers={"Prefer": "wait=60"})).json()["export"]
        assert export["state"] == "done", export
    assert (await client.get(f"{home}/files/0", params={"download": 1}, follow_redirects=True)).status_code == 200
    for _ in range(20):  # who leaves before S3 has begun an upload leaves nothing to abort
        async with client.stream("GET", f"{home}/archive") as answer:
            async for _ in answer.aiter_bytes():
                break  # a reader who leaves
        await asyncio.sleep(0.2)
        if any(call.action == "s3:AbortMultipartUpload" for call in proxy.calls):
            break
    for _ in range(100):
        if (await client.get(f"{home}/archive")).status_code == 307:
            break
        await asyncio.sleep(0.1)
    await asyncio.to_thread(drained, place)


def drained(place: Place) -> None:
    """A message that was given up is drained by the API service."""
    sqs = boto3.client("sqs", endpoint_url=place.endpoint, aws_access_key_id=OTHER, aws_secret_access_key=OTHER)
    url = sqs.get_queue_url(QueueName=f"{place.queue}-dead")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="no event")
    for _ in range(100):
        said = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        if not int(said["ApproximateNumberOfMessages"]) + int(said["ApproximateNumberOfMessagesNotVisible"]):
            return
        time.sleep(0.1)
    raise AssertionError("the dead-letter queue was not drained")


async def clean(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cleaning, months later."""
    application = build(read_settings(place.api()))
    async with application.files as files:
        assert await files.forget(datetime.now(UTC) + timedelta(days=100), set()) > 0


async def test_the_template_allows_what_a_run_does_and_nothing_else(
    place: Place, order: Any, resources: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AwsProxy(place.endpoint) as proxy:
        place = replace(place, endpoint=proxy.url)
        api = Api(place, free_port(), {**CREDENTIALS, "AWS_ACCESS_KEY_ID": API})
        await asyncio.to_thread(api.start)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", FUNCTION)
        try:
            async with (
                httpx.AsyncClient(base_url=api.address, timeout=90) as client,
                function_at_work(place, credentials={**CREDENTIALS, "AWS_ACCESS_KEY_ID": FUNCTION}),
            ):
                await use_everything(place, proxy, client, order)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", API)
            await clean(place, monkeypatch)
        finally:
            await asyncio.to_thread(api.stop)
    assert proxy.unknown == set()
    policies = {
        API: resources["ApiPolicy"]["Properties"]["PolicyDocument"],
        FUNCTION: resources["RendererRole"]["Properties"]["Policies"][0]["PolicyDocument"],
    }
    for key, policy in policies.items():
        calls, granted = {call for call in proxy.calls if call.key == key}, list(rights(policy, place))
        assert lacking(calls, granted) == set()
        for right in granted:
            assert lacking(calls, [other for other in granted if other != right]), f"{key} never uses {right}"
