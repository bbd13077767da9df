"""The suite of a transport, over queues in memory."""

from collections.abc import Sequence
from pathlib import Path

from tidings.backends.memory import open_transport
from tidings.testing.conformance import TransportSuite


class TestMemory(TransportSuite):
    open_transport = staticmethod(open_transport)
    crosses_processes = False

    def url(self, folder: Path, sends: str, receives: str) -> str:
        return f"memory://{sends}?in={receives}&lease={self.lease}&dedup=5"

    def fan_out_url(self, folder: Path, sends: Sequence[str], receives: str) -> str:
        return self.url(folder, ",".join(sends), receives)

    def dead_url(self, folder: Path, sends: str, dead: str) -> str:
        return f"memory://{sends}?in={sends}&dead={dead}&receives=2"
