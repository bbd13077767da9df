"""The suite of a store. `class TestMine(StoreSuite)` with `make(folder)` is all that a new store needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tidings.store import Store
from tidings.testing.conformance.exceptions import ExceptionSuite
from tidings.testing.conformance.log import LogSuite
from tidings.testing.conformance.sagas import SagaSuite
from tidings.testing.conformance.streams import StreamSuite
from tidings.testing.conformance.transactions import TransactionSuite


class StoreSuite(LogSuite, ExceptionSuite, StreamSuite, SagaSuite, TransactionSuite):
    """Everything that the port promises. Subclasses say how to make a store; tests are coroutines."""

    def make(self, folder: Path) -> Store:
        """Return a store that is not open yet, on an empty database."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Store]:
        """Open the store, with its tables, for one test."""
        store = self.make(folder)
        await store.open(migrate=True)
        try:
            yield store
        finally:
            await store.close()
