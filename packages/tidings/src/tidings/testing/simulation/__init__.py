"""The simulator: the real service and store under made-up time, order and faults, checked by the promises."""

from tidings.testing.simulation.mutants import MUTANTS
from tidings.testing.simulation.run import Report, simulate
from tidings.testing.simulation.sweep import killed_by, sweep

__all__ = ["MUTANTS", "Report", "killed_by", "simulate", "sweep"]
