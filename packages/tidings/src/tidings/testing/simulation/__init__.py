"""The simulator: the real service, worker and SQLite store under made-up time, order and faults, checked by the promises."""

from tidings.testing.simulation.run import Report, simulate

__all__ = ["Report", "simulate"]
