"""Seeds that once broke a promise, and why. Each stays here, so that its bug cannot come back unseen."""

import pytest

from tidings.testing.simulation import simulate

SEEDS = {
    27: "a lane that another worker released stayed without an owner while every worker had its part",
    55: "a worker that lost a lane unawares did not look for another",
    279: "a retry waited for ever in a lane that nobody owned",
}
"""Seed -> what it found."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_once_failed_passes(seed: int) -> None:
    report = simulate(seed)
    assert not report.violations, str(report)
