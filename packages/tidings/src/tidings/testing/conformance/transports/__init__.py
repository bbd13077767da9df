"""The suite of a transport: every property of the port, and every claim of its capabilities."""

from tidings.testing.conformance.transports.transport import TransportSuite

__all__ = ["TransportSuite"]
