"""What keeps a store in shape: migrations, and letting go of what its retention allows."""

from collections.abc import Callable

from msgspec import Struct

from tidings.consuming import upkeep
from tidings.consuming.upkeep import Maintained as Maintained
from tidings.operations.dead_letters import quiet
from tidings.store import Store

DAY = 86_400 * 1_000_000
"""One day in microseconds."""


class Migration(Struct, frozen=True):
    """One migration: its name, its SQL, and whether the store has it."""

    name: str
    sql: str
    applied: bool


async def migrations(store: Store) -> list[Migration]:
    """Return every migration that this version knows, in order. The store need not be open."""
    return [Migration(name, sql, applied) for name, sql, applied in await store.migrations()]


async def migrate(store: Store) -> list[str]:
    """Apply what is missing to a store that is not open; return the names of it."""
    missing = [migration.name for migration in await migrations(store) if not migration.applied]
    await store.open(migrate=True)
    await store.close()
    return missing


async def maintain(
    store: Store, *, now: int, horizon: int = 14 * DAY, progress: Callable[[int], None] = quiet
) -> Maintained:
    """Drop events past their retention, below every subscription's floor, and admissions past the horizon.

    What a subscription has not settled stays: pending events, and dead letters with their bytes. `horizon`
    (microseconds): how long duplicates are recognised at least; longer if a service on this store says so. Runs in
    short transactions, beside workers, which do the same by themselves.
    """
    done = 0

    def tell(number: int) -> None:
        nonlocal done
        done += number
        progress(done)

    return await upkeep.maintain(store, now=now, horizon=horizon, progress=tell)
