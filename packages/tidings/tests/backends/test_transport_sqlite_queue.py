"""The suite of a transport over one that is no part of the library: order by key across processes that are killed."""

from pathlib import Path

from sqlite_queue import open_transport

from tidings.testing.conformance import TransportSuite


class TestSqliteQueues(TransportSuite):
    open_transport = staticmethod(open_transport)

    def url(self, folder: Path, sends: str, receives: str) -> str:
        return f"sqlite-queue://{folder}/queues.db?out={sends}&in={receives}&lease={self.lease}"
