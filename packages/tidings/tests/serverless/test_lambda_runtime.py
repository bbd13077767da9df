"""The runtime and the event source on this machine, as AWS documents them, and what a cold start costs."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cloud import HERE, Cloud, Flow

from tidings.errors import ServiceError
from tidings.testing.aws_lambda import EventSource, LambdaFunction
from tidings.testing.aws_lambda.event_source import _failures
from tidings.testing.aws_lambda.function import OWN_CLIENT, runtime_client

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric runs on Linux only")
CLIENTS = [pytest.param("awslambdaric", marks=LINUX_ONLY), OWN_CLIENT]
COLD_CPU_SECONDS = 1.2
"""Twice what is promised of a quiet machine (docs/reference/aws-lambda.md)."""


@pytest.fixture(params=CLIENTS, ids=["awslambdaric", "own"])
async def echo(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LambdaFunction]:
    """A function that does what it is told, through AWS's runtime client and through ours."""
    output = tmp_path / "output.txt"
    async with LambdaFunction(
        "echo.handler", HERE, timeout=3.0, concurrency=2, client=request.param, output=output
    ) as function:
        yield function


async def test_one_process_handles_one_event_after_the_other_and_stands_still_between(echo: LambdaFunction) -> None:
    first, second = await echo.invoke({"n": 1, "ä": "ü"}), await echo.invoke({"n": 2, "do": "say"})
    assert first.error_type is None, first.error
    assert first.payload["event"] == {"n": 1, "ä": "ü"}
    assert (first.cold, second.cold) == (True, False)
    assert first.payload["pid"] == second.payload["pid"]
    assert first.payload["request"] != second.payload["request"]
    assert 1000 < second.payload["left"] <= 3000
    assert first.payload["name"] == "echo"
    assert first.payload["arn"].endswith(":function:echo")
    assert str(first.payload["memory"]) == "1024"
    assert first.payload["trace"].startswith("Root=1-")
    (environment,) = echo.environments
    if sys.platform == "linux":
        async with asyncio.timeout(5):
            while state(environment.pid) != "T":  # noqa: ASYNC110  the system stops it
                await asyncio.sleep(0.01)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_as_many_processes_as_the_concurrency(echo: LambdaFunction) -> None:
    results = await asyncio.gather(*(echo.invoke({"n": number}) for number in range(8)))
    assert [result.payload["event"]["n"] for result in results] == list(range(8))
    assert len({result.payload["pid"] for result in results}) == len(echo.environments) == 2


async def test_errors_exits_and_kills_are_told_and_another_process_takes_over(echo: LambdaFunction) -> None:
    raised = await echo.invoke({"do": "raise"})
    assert (raised.error_type, raised.error) == ("ValueError", "as was asked")
    assert (await echo.invoke({})).cold is False, "an error does not end the process"
    exited = await echo.invoke({"do": "exit"})
    assert (exited.error_type, exited.error) == ("Runtime.ExitError", "Runtime exited with status 7.")
    again = await echo.invoke({})
    assert again.cold
    os.kill(again.payload["pid"], signal.SIGKILL)  # while it stands still
    await asyncio.sleep(0.1)
    assert (await echo.invoke({})).cold


async def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    async with LambdaFunction("echo.handler", HERE, timeout=0.5, client=OWN_CLIENT) as function:
        result = await function.invoke({"do": "sleep"})
        assert (result.error_type, result.error) == ("Sandbox.Timedout", "Task timed out after 0.50 seconds")
        assert function.environments == []


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_function_that_is_not_there_is_an_init_error(client: str) -> None:
    async with LambdaFunction("no_such_module.handler", HERE, client=client) as function:
        result = await function.invoke({})
        assert result.error_type in ("Runtime.InitError", "Runtime.ExitError")
        assert function.environments == []


def test_awss_own_client_is_taken_where_it_is() -> None:
    assert runtime_client() == ("awslambdaric" if sys.platform == "linux" else OWN_CLIENT)


@asynccontextmanager
async def noting(folder: Path, seconds: float = 1.0) -> AsyncIterator[LambdaFunction]:
    variables = {"NOTES": str(folder / "notes")}
    async with LambdaFunction(
        "echo.handler", HERE, variables=variables, timeout=seconds, concurrency=2, client=OWN_CLIENT
    ) as function:
        yield function


def batches(folder: Path) -> list[list[str]]:
    notes = folder / "notes"
    return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


async def until_gone(cloud_queue: Any) -> None:
    async with asyncio.timeout(30):
        while await cloud_queue.left():  # noqa: ASYNC110  other processes take it
            await asyncio.sleep(0.05)


async def test_a_window_collects_more_messages_than_one_call_brings(cloud: Cloud, tmp_path: Path) -> None:
    queue = await cloud.queue(visibility=30)
    names = [f"m{number:02}" for number in range(25)]
    await queue.put(*names)
    async with noting(tmp_path) as function, EventSource(function, cloud.sqs, queue.url, batch_size=40, window=1.0):
        await until_gone(queue)
    assert max(map(len, batches(tmp_path))) > 10
    assert sorted(name for batch in batches(tmp_path) for name in batch) == names


async def test_partial_responses_are_heeded_only_where_they_are_switched_on(cloud: Cloud, tmp_path: Path) -> None:
    queue = await cloud.queue(visibility=1)
    await queue.put("good", "bad")
    async with noting(tmp_path) as function, EventSource(function, cloud.sqs, queue.url):
        await until_gone(queue)
    assert {name for batch in batches(tmp_path) for name in batch} == {"bad", "good"}
    assert await queue.dead() == ["bad"]
    await queue.put("bad")
    async with noting(tmp_path) as function, EventSource(function, cloud.sqs, queue.url, partial=False):
        await until_gone(queue)
    assert await queue.dead() == []


async def test_what_aws_refuses_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    standard, fifo = await cloud.queue(visibility=5), await cloud.queue(visibility=5, fifo=True)
    async with noting(tmp_path, seconds=6.0) as slow, noting(tmp_path) as function:
        for function_of, queue, options, says in (
            (slow, standard, {}, "the function's timeout is over the queue's 5 s"),
            (function, standard, {"batch_size": 0}, "batch_size=0"),
            (function, fifo, {"batch_size": 11}, "batch_size=11"),
            (function, standard, {"batch_size": 11}, "batch_size=11 needs a window"),
            (function, fifo, {"window": 1.0}, "window=1"),
            (function, standard, {"concurrency": 1}, "concurrency=1"),
        ):
            with pytest.raises(ServiceError, match=says):
                async with EventSource(function_of, cloud.sqs, queue.url, **options):
                    pass


@pytest.mark.parametrize(
    ("payload", "failed"),
    [
        (None, set()),
        ({}, set()),
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": None}, set()),
        ({"batchItemFailures": [{"itemIdentifier": "1"}]}, {"1"}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, {"1", "2"}),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, {"1", "2"}),
        ({"batchItemFailures": [{"item": "1"}]}, {"1", "2"}),
        ({"batchItemFailures": [{"itemIdentifier": "3"}]}, {"1", "2"}),
        ("nonsense", {"1", "2"}),
    ],
)
def test_an_answer_that_names_no_message_fails_all_of_them(payload: Any, failed: set[str]) -> None:
    assert _failures(payload, {"1", "2"}) == failed


async def test_a_cold_start_costs_less_than_twice_what_is_promised(flow: Flow, cloud: Cloud) -> None:
    queue = await cloud.queue(visibility=10)
    await queue.order("o1")
    async with flow.running(queue, seconds=10.0):
        await flow.until(lambda: len(flow.landed()) >= 1)
    (note,) = flow.notes()
    assert float(note.split()[2]) < COLD_CPU_SECONDS
