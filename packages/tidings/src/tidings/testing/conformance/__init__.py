"""Suites that every backend passes: subclass one, say how to open yours, and pytest runs the rest."""

from tidings.testing.conformance.blobs import BlobsSuite
from tidings.testing.conformance.store import StoreSuite
from tidings.testing.conformance.transports import TransportSuite

__all__ = ["BlobsSuite", "StoreSuite", "TransportSuite"]
