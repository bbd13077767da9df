"""Seeds that once broke a promise or let a planted bug through, and why. Each stays here, to be run again.

What a seed does changes with the workload; what it found stands in a plain test too (test_lanes.py).
"""

import pytest

from tidings.testing.simulation import simulate

SEEDS = {
    27: "a lane that another worker released stayed without an owner while every worker had its part",
    55: "lanes in a worker's own name, forgotten after a lost lease, were left for ever",
    279: "a worker that lost a lane unawares did not look for another",
    385: "an event that landed before any release took its type was a second head, and let the followers pass",
}
"""Seed -> what it found."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_that_once_failed_passes(seed: int) -> None:
    report = simulate(seed)
    assert not report.violations, str(report)
