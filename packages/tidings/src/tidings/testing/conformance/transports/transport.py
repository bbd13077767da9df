"""The suite of a transport. `class TestMine(TransportSuite)` with `open_transport` and `url` is all a new one needs."""

from tidings.testing.conformance.transports.crashes import CrashSuite
from tidings.testing.conformance.transports.delivery import DeliverySuite
from tidings.testing.conformance.transports.end_to_end import EndToEndSuite
from tidings.testing.conformance.transports.order import OrderSuite
from tidings.testing.conformance.transports.settling import SettlingSuite


class TransportSuite(DeliverySuite, SettlingSuite, OrderSuite, CrashSuite, EndToEndSuite):
    """Everything that the port promises. What a transport does not claim is skipped, and the skip says so."""
