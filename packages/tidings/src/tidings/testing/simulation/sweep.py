"""Many seeds, shared out to a few processes: each runs one simulation at a time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from tidings.testing.simulation.run import Report, simulate

CHUNK = 20
"""Seeds that a process gets at a time."""


Simulate = Callable[..., Report]
"""Runs one seed, maybe with the planted bug `mutant`."""


def sweep(
    seeds: Iterable[int], *, jobs: int = 1, mutant: str | None = None, run: Simulate = simulate
) -> Iterator[Report]:
    """Yield the report of every seed, in their order."""
    one = partial(run, mutant=mutant)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, seeds, chunksize=CHUNK)


def killed_by(mutant: str, most: int, first: int = 0) -> Report | None:
    """Return the report of a seed, of so many, that finds a planted bug; None if all of them miss it.

    The search begins at `first`, such as the seed that found it the last time, and comes round.
    """
    reports = sweep([*range(first, most), *range(first)], mutant=mutant)
    return next((report for report in reports if report.violations), None)
