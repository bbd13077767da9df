"""By hand: `python -m tidings.testing.simulation [--sagas] --seed N [--count M] [--jobs J] [--mutant NAME]`."""

import argparse
import sys

from tidings.testing.simulation.mutants import MUTANTS
from tidings.testing.simulation.run import simulate
from tidings.testing.simulation.saga_mutants import SAGA_MUTANTS
from tidings.testing.simulation.saga_run import simulate_sagas
from tidings.testing.simulation.sweep import sweep


def main() -> int:
    """Run the seeds that were asked for; print what broke, and return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m tidings.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the seeds")
    parser.add_argument("--mutant", choices=sorted({*MUTANTS, *SAGA_MUTANTS}), help="a bug to plant first")
    parser.add_argument("--sagas", action="store_true", help="simulate sagas; their planted bugs are others")
    args = parser.parse_args()
    run = simulate_sagas if args.sagas else simulate
    broken = 0
    for report in sweep(range(args.seed, args.seed + args.count), jobs=args.jobs, mutant=args.mutant, run=run):
        broken += bool(report.violations)
        if report.violations or args.count == 1:
            print(report, flush=True)
    print(f"{broken} of {args.count} seeds broke a promise.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
