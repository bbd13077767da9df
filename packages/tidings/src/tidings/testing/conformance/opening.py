"""What every part of a suite can do: open the store of the test."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tidings.store import Store


class Opening:
    """`opened` is given by StoreSuite."""

    def opened(self, folder: Path) -> AbstractAsyncContextManager[Store]:
        """Open the store for one test."""
        raise NotImplementedError
