"""Sagas under the simulator: no seed breaks what a saga promises, and every planted bug is found."""

import subprocess
import sys

import pytest

from tidings.testing.simulation.saga_mutants import SAGA_MUTANTS
from tidings.testing.simulation.saga_run import sagas_killing, simulate_sagas, sweep_sagas

SEEDS = 80
SEEDS_OF_A_SOAK = 2000
SEEDS_FOR_A_MUTANT = range(60, 210)


def broken(seeds: range, jobs: int) -> list[str]:
    return [str(report) for report in sweep_sagas(seeds, jobs=jobs) if report.violations]


def test_no_saga_breaks_its_promises() -> None:
    found = broken(range(SEEDS), jobs=1)
    assert not found, "\n\n".join(found[:5])


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_saga_breaks_its_promises_in_many_seeds() -> None:
    found = broken(range(SEEDS_OF_A_SOAK), jobs=2)
    assert not found, "\n\n".join(found[:5])


@pytest.mark.parametrize("mutant", SAGA_MUTANTS)
def test_every_planted_bug_is_found(mutant: str) -> None:
    report = sagas_killing(mutant, SEEDS_FOR_A_MUTANT)
    assert report is not None, f"{len(SEEDS_FOR_A_MUTANT)} seeds miss {mutant}: {SAGA_MUTANTS[mutant].__doc__}"


def test_equal_seeds_are_equal_and_a_failure_says_how_to_see_it_again() -> None:
    once, again = simulate_sagas(3), simulate_sagas(3)
    assert (once.trace, once.steps) == (again.trace, again.steps)
    report = simulate_sagas(0, "double_compensation")
    command = [sys.executable, *report.replay.split()[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert report.violations[0] in done.stdout
    assert f"{report.trace:08x}" in done.stdout
