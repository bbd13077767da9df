"""The pytest plugin: the fixture `tidings_harness`, and what the harness knows in the report of a failed test."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tidings.service import Service
    from tidings.testing.harness import Harness

MakeHarness = Callable[..., Awaitable["Harness"]]
"""What the fixture gives: `h = await tidings_harness(service)`, with the options of `tidings.testing.harness`."""

_running = pytest.StashKey[list["Harness"]]()


async def _tidings_harness(request: pytest.FixtureRequest) -> AsyncIterator[MakeHarness]:
    """Give a function that runs a service in memory for the rest of the test: `h = await tidings_harness(service)`."""
    from tidings.testing.harness import harness

    async with AsyncExitStack() as stack:

        async def make(service: "Service", **options: Any) -> "Harness":
            running = await stack.enter_async_context(harness(service, **options))
            request.node.stash.setdefault(_running, []).append(running)
            return running

        yield make


try:
    import pytest_asyncio
except ImportError:
    pass  # without it `async with harness(service)` works all the same
else:
    tidings_harness = pytest_asyncio.fixture(_tidings_harness)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the harnesses know to the report of a failed test: the log, what is unfinished, dead letters."""
    report = yield
    if call.when == "call" and report.failed:
        for running in item.stash.get(_running, []):
            report.sections.append((f"tidings: {running.service.name}", running.report()))
    return report
