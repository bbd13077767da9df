"""Waiting for commits without polling, for live pages and for answers that wait."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from tidings.store import Store


async def changes(store: Store, topics: Sequence[str]) -> AsyncIterator[None]:
    """Yield at once, and after each commit that touches a topic; commits that come meanwhile are one."""
    changed = asyncio.Event()
    stop = store.listen(topics, changed.set)
    try:
        while True:
            yield
            await changed.wait()
            changed.clear()
    finally:
        stop()
