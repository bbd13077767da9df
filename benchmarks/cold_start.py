"""Measures the CPU time from the start of a Lambda process to its first handler call, beside functions that do less.

python benchmarks/cold_start.py [--rounds 7]. Ad Export's function is measured where `make lambda-package` has built it.
What each figure means and what was seen: docs/reference/aws-lambda.md.
"""

import argparse
import asyncio
import os
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
TESTS = HERE.parent / "packages/tidings/tests"
sys.path[:0] = [str(HERE.parent / "tools"), str(TESTS / "brokers"), str(TESTS / "serverless")]

from cloud_servers import CREDENTIALS, AwsServer  # noqa: E402  the stand-in, Redis and the function are the tests' own
from frame import machine  # noqa: E402
from redis_server import RedisServer  # noqa: E402

from adexport.events import RenderBatchRequested  # noqa: E402
from tidings.testing.aws_lambda import LambdaFunction  # noqa: E402
from tidings.testing.aws_lambda.function import OWN_CLIENT  # noqa: E402

GOAL_MS = 600
FUNCTIONS = {
    "Tidings: outcomes in S3, BullMQ": "labels.handler",
    "boto3: a client of S3, one question": "cold_boto3.handler",
    "aiobotocore: a client of S3, one question": "cold_aiobotocore.handler",
    "nothing at all": "cold_nothing.handler",
}
RENDERER = "Ad Export with its renderer, from its package"
PACKAGE = HERE.parent / "build/lambda"
"""What is measured -> the function; the neighbours are in `peers/`."""


async def cold_start(function: str, variables: dict[str, str], folder: Path, event: object) -> float:
    """Start a process, let it handle one event, and return the milliseconds of CPU until its handler was called."""
    notes = folder / "notes"
    notes.unlink(missing_ok=True)
    place = TESTS / "serverless" if function == "labels.handler" else HERE / "peers"
    async with LambdaFunction(function, place, variables=variables, output=folder / "output.txt") as running:
        result = await running.invoke(event)
    assert result.error_type is None, result.error
    return float(notes.read_text().split()[-1]) * 1000


async def cold_renderer(variables: dict[str, str], folder: Path) -> float:
    """The same for Ad Export's function: an interpreter that has nothing but the package."""
    notes, empty = folder / "notes", folder / "empty"
    notes.unlink(missing_ok=True)
    if not empty.exists():
        venv.create(empty, with_pip=False)
    event = RenderBatchRequested(export_id="e1", round=1, snapshot="0" * 64, cells=[])
    settings = {
        "PYTHONPATH": f"{PACKAGE}{os.pathsep}{HERE / 'peers'}", "ADEXPORT_DATA": str(folder / "data"),
        "ADEXPORT_FILES": f"s3://{variables['BUCKET']}/ads?endpoint={variables['ENDPOINT']}",
        "ADEXPORT_RESULTS_QUEUE": variables["TRANSPORT"],
    }  # fmt: skip
    async with LambdaFunction(
        "cold_adexport.handler", HERE / "peers", variables={**variables, **settings}, output=folder / "output.txt",
        client=OWN_CLIENT, python=empty / "bin/python",
    ) as running:  # fmt: skip
        from invoking import envelope, event_of, record

        result = await running.invoke(event_of([record(envelope(event, os.urandom(8).hex()))]))
    assert result.error_type is None, result.error
    return float(notes.read_text()) * 1000


async def main(rounds: int) -> None:
    """Measure every function once a round, and print medians."""
    os.environ.update(CREDENTIALS)
    from cloud import opened
    from invoking import envelope, event_of, record
    from labels import OrderPlaced

    figures: dict[str, list[float]] = {name: [] for name in FUNCTIONS}
    with TemporaryDirectory() as text:
        folder = Path(text)
        aws, redis = AwsServer(folder).start(), RedisServer(folder / "redis").start()
        try:
            async with opened(aws.url) as cloud:
                variables = {
                    "TRANSPORT": redis.url(queue="labels"), "OUTCOMES": cloud.outcomes, "NOTES": str(folder / "notes"),
                    "BUCKET": cloud.bucket, "ENDPOINT": aws.url,
                }  # fmt: skip
                for number in range(rounds):
                    event = event_of([record(envelope(OrderPlaced(order_id=f"o{number}"), f"e{number}"))])
                    for name, function in FUNCTIONS.items():
                        figures[name].append(await cold_start(function, variables, folder, event))
                    if PACKAGE.exists():
                        figures.setdefault(RENDERER, []).append(await cold_renderer(variables, folder))
        finally:
            redis.kill()
            aws.kill()
    report(figures, rounds)


def report(figures: dict[str, list[float]], rounds: int) -> None:
    """Print what was seen."""
    names = ("awslambdaric", "aiobotocore", "boto3", "redis", "msgspec")
    seen = {**machine(), **{name: version(name) for name in names}, "rounds": str(rounds)}
    print("- " + ", ".join(f"{name} {value}" for name, value in seen.items()))
    print("\n| CPU to the first handler call, ms | median | lowest | highest |\n|---|---:|---:|---:|")
    for name, values in figures.items():
        print(f"| {name} | {median(values):.0f} | {min(values):.0f} | {max(values):.0f} |")
    reached = median(next(iter(figures.values())))
    print(f"\nGoal: at most {GOAL_MS} ms: {'met' if reached <= GOAL_MS else 'MISSED'}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(main(parser.parse_args().rounds))
