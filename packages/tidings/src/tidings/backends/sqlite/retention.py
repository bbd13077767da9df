"""Letting go of events past their retention, one by one in short transactions: a file has no partitions."""

import asyncio
from collections.abc import Callable

from tidings.statements import Statements
from tidings.store import Store

WINDOW = 5000
"""Positions that one transaction looks at: a few milliseconds, because everybody else waits meanwhile."""


async def drop_past(store: Store, keep: str, older_than: int, progress: Callable[[int], None]) -> int:
    """Drop a class's events that are older than a time and lie below every floor; return how many."""
    total = 0
    oldest = await store.reading.recent(0, 1)
    after = oldest[0].position - 1 if oldest else 0
    last = await store.reading.position_at(older_than)
    while True:

        async def unit(statements: Statements, after: int = after) -> tuple[int, int]:
            floors = await statements.floors()
            through = min([after + WINDOW, *floors.values(), await statements.head(), last])
            return await statements.drop(keep, after, through, older_than), through

        number, through = await store.run(unit)
        total += number
        progress(number)
        if through <= after:
            return total
        after = through
        await asyncio.sleep(0)  # others of this process have their turn
