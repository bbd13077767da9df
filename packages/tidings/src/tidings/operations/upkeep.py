"""What keeps a store in shape: migrations, and letting go of what its retention allows."""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from tidings.events.declaration import FOREVER
from tidings.operations.dead_letters import quiet
from tidings.store import Statements, Store

DAY = 86_400 * 1_000_000
"""One day in microseconds."""

WINDOW = 5000
"""Positions that one transaction looks at: a few milliseconds, because everybody else waits meanwhile."""


class Migration(Struct, frozen=True):
    """One migration: its name, its SQL, and whether the store has it."""

    name: str
    sql: str
    applied: bool


class Maintained(Struct, frozen=True):
    """What was let go: events by retention class (seconds, as text), and admissions past the horizon."""

    dropped: dict[str, int]
    admitted: int


def migrations(store: Store) -> list[Migration]:
    """Return every migration that this version knows, in order. The store need not be open."""
    return [Migration(name, sql, applied) for name, sql, applied in store.migrations()]


async def migrate(store: Store) -> list[str]:
    """Apply what is missing to a store that is not open; return the names of it."""
    missing = [migration.name for migration in migrations(store) if not migration.applied]
    await store.open(migrate=True)
    await store.close()
    return missing


async def maintain(
    store: Store, *, now: int, horizon: int = 14 * DAY, progress: Callable[[int], None] = quiet
) -> Maintained:
    """Drop events past their retention, below every subscription's floor, and admissions past the horizon.

    What a subscription has not settled stays: pending events, and dead letters with their bytes. `horizon`
    (microseconds) must not be less than the services' own. Runs in short transactions, beside workers.
    """
    done = 0

    def tell(number: int) -> int:
        nonlocal done
        done += number
        progress(done)
        return number

    dropped = {}
    for keep in await store.reading.keeps():
        if keep != FOREVER:
            dropped[keep] = await _drop(store, keep, now - int(keep) * 1_000_000, tell)
    admitted = 0
    while number := tell(await store.run(lambda statements: statements.forget_admitted(now - horizon, WINDOW))):
        admitted += number
    return Maintained(dropped, admitted)


async def _drop(store: Store, keep: str, older_than: int, tell: Callable[[int], int]) -> int:
    total = 0
    oldest = await store.reading.recent(0, 1)
    after = oldest[0].position - 1 if oldest else 0
    while True:

        async def unit(statements: Statements, after: int = after) -> tuple[int, int]:
            floors = await statements.floors()
            through = min([after + WINDOW, *floors.values(), await statements.head()])
            return await statements.drop(keep, after, through, older_than), through

        number, through = await store.run(unit)
        total += tell(number)
        if through <= after:
            return total
        after = through
        await asyncio.sleep(0)  # others of this process have their turn
