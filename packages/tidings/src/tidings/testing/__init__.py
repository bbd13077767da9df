"""For tests: a service in memory with a fake clock (`harness`), suites for stores (`conformance`), the simulator."""

from tidings.testing.harness import FakeClock, Harness, harness

__all__ = ["FakeClock", "Harness", "harness"]
