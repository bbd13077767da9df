"""Projections in the simulator: rebuilt and swapped under live appends they equal what the log says, over seeds."""

import pytest

from tidings.testing.simulation.projection_mutants import MUTANTS
from tidings.testing.simulation.projections import killed_by, simulate_projections

SEEDS = 60
"""Seeds of every run; `make soak` takes MANY."""

MANY = 2000

MOST_SEEDS_FOR_A_MUTANT = 200


def test_no_promise_is_broken() -> None:
    reports = [simulate_projections(seed) for seed in range(SEEDS)]
    assert not [str(report) for report in reports if report.violations]
    reached = {point for report in reports for point in report.points}
    assert {"swap.before_commit", "lane.after_commit", "held.before_commit", "scheduled.after_commit"} <= reached
    assert sum(report.events for report in reports) > 20 * SEEDS
    again = [simulate_projections(report.seed) for report in reports[:5]]
    assert [(one.trace, one.steps) for one in again] == [(one.trace, one.steps) for one in reports[:5]]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_promise_is_broken_over_many_seeds() -> None:
    broken = [str(report) for report in map(simulate_projections, range(SEEDS, MANY)) if report.violations]
    assert not broken, "\n\n".join(broken[:5])


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_every_planted_bug_is_found(mutant: str) -> None:
    report = killed_by(mutant, MOST_SEEDS_FOR_A_MUTANT)
    assert report is not None, f"{MOST_SEEDS_FOR_A_MUTANT} seeds miss {mutant}: {MUTANTS[mutant].__doc__}"
    assert f"projections --seed {report.seed} --mutant {mutant}" in str(report)
