"""For tests: a service in memory with a fake clock (`harness`), deciders by `given`, sagas by `SagaTest`, suites, the
simulator."""

from tidings.testing.harness import FakeClock, Harness, harness
from tidings.testing.sagas import SagaTest
from tidings.testing.specification import given

__all__ = ["FakeClock", "Harness", "SagaTest", "given", "harness"]
