"""The pytest plugin, in a real test run of its own."""

import pytest

FAILING = '''
from tidings import Event, RetryPolicy, Service, Transaction

class Asked(Event, name="plugin.asked", version=1):
    """A question."""

async def test_fails(tidings_harness):
    service = Service("asker", store="sqlite:///x.db")

    @service.subscribe(Asked, retry=RetryPolicy(attempts=1))
    async def answer(event: Asked, tx: Transaction) -> None:
        raise RuntimeError("nobody knows")

    h = await tidings_harness(service)
    await h.publish(Asked())
    await h.settled()
    assert h.published(Asked) == []
'''

pytest_plugins = ["pytester"]


def test_a_failed_test_reports_what_the_handlers_raised(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*tidings: asker*", "*Dead letter of answer*", "*RuntimeError: nobody knows*"])
