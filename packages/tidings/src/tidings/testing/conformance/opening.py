"""What every part of a suite can do: open the store of the test."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tidings.store import Store
from tidings.testing.conformance.samples import envelope


class Opening:
    """`opened` is given by StoreSuite."""

    def opened(self, folder: Path) -> AbstractAsyncContextManager[Store]:
        """Open the store for one test."""
        raise NotImplementedError

    async def refuse(self, store: Store, event_id: str) -> None:
        """Make a constraint of the log refuse an event, here by being there already."""
        await store.publish([envelope(event_id)])
