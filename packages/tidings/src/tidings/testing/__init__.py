"""For tests: a service in memory with a fake clock (`harness`), deciders by `given`, suites for stores (`conformance`),
the simulator."""

from tidings.testing.harness import FakeClock, Harness, harness
from tidings.testing.specification import given

__all__ = ["FakeClock", "Harness", "given", "harness"]
