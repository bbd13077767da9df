"""RetryPolicy: how often, how long between, and what is not retried."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings import RetryPolicy, ServiceError

SECOND = 1_000_000


class BusyError(Exception):
    """An outside system asks for patience."""


class VeryBusyError(BusyError):
    """The same, more so."""


def due(policy: RetryPolicy, error: BaseException | None, attempt: int, published: int = 0, now: int = 0) -> int | None:
    return policy.due(error, attempt, published, now, Random(1))


def test_three_attempts_by_default() -> None:
    policy = RetryPolicy()
    assert due(policy, KeyError(), 1) is not None
    assert due(policy, KeyError(), 2) is not None
    assert due(policy, KeyError(), 3) is None


def test_a_process_that_died_counts_like_a_failure() -> None:
    assert due(RetryPolicy(attempts=2), None, 1) is not None
    assert due(RetryPolicy(attempts=2), None, 2) is None


def test_never_and_rules_by_the_most_specific_type() -> None:
    policy = RetryPolicy(
        never=(ValueError,), rules={BusyError: RetryPolicy(attempts=10), VeryBusyError: RetryPolicy(attempts=1)}
    )
    assert due(policy, ValueError(), 1) is None
    assert due(policy, BusyError(), 9) is not None
    assert due(policy, VeryBusyError(), 1) is None
    assert due(policy, KeyError(), 2) is not None


def test_an_event_older_than_its_maximum_age_is_not_tried_again() -> None:
    policy = RetryPolicy(max_age=timedelta(minutes=1))
    assert due(policy, KeyError(), 1, published=0, now=60 * SECOND) is not None
    assert due(policy, KeyError(), 1, published=0, now=61 * SECOND) is None


@given(attempt=st.integers(1, 10_000), seed=st.integers(0, 1000))
def test_the_wait_grows_to_its_maximum_and_stays_within_the_jitter(attempt: int, seed: int) -> None:
    policy = RetryPolicy(backoff=timedelta(seconds=1), factor=2, max_backoff=timedelta(seconds=60), jitter=0.2)
    wait = policy.wait(attempt, Random(seed))
    middle = min(2.0 ** min(attempt - 1, 60), 60.0) * SECOND
    assert 0.8 * middle - 1 <= wait <= 1.2 * middle + 1


def test_jitter_spreads() -> None:
    policy = RetryPolicy()
    assert len({policy.wait(1, Random(seed)) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"backoff": timedelta(seconds=-1)}, {"factor": 0.5}, {"jitter": 1.0}, {"jitter": -0.1}],
)
def test_values_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ServiceError):
        RetryPolicy(**options)  # type: ignore[arg-type]
