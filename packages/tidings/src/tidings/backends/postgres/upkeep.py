"""Keeping the store up: whose turn it is, partitions ahead, and letting go of what is past."""

from collections.abc import Callable, Sequence

from tidings.backends.postgres.fence import Fence
from tidings.backends.postgres.partitions import MOST_CLASSES, Partitions
from tidings.events import FOREVER
from tidings.statements import Statements

_NOTE_HORIZON = """
INSERT INTO tidings.meta (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE meta.value <> excluded.value
"""
# A row, not an advisory lock: behind a pooler those belong to nobody. Of two that come at once the second waits, and
# then finds that the turn is taken.
_TAKE_TURN = """
INSERT INTO tidings.meta (name, value) VALUES ('upkeep', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE meta.value::bigint <= excluded.value::bigint - $1
"""


async def take_turn(statements: Statements, service: str, horizon: int, every: int) -> bool:
    """Note a service's horizon, and take the turn if it is due, by the database's clock."""
    await statements.execute(_NOTE_HORIZON, (f"horizon:{service}", str(horizon)))
    return bool(await statements.execute(_TAKE_TURN, (every,)))


async def keep_up(
    partitions: Partitions,
    fence: Fence,
    reading: Statements,
    keeps: Sequence[str],
    now: int,
    progress: Callable[[int], None],
) -> dict[str, int]:
    """Make partitions ahead, and let go of what lies below every floor and is past its retention."""
    await fence.head()
    head, dropped = fence.safe, {}
    floor = min([*(await reading.floors()).values(), head])
    wanted = {*keeps, *await partitions.classes()} - {FOREVER}
    for keep in sorted({*wanted, *await reading.keeps()} - {FOREVER}):
        if keep in wanted or len(wanted) < MOST_CLASSES:
            wanted.add(keep)
            await partitions.ensure(keep, head)
        dropped[keep] = await partitions.drop(keep, floor, head, now - int(keep) * 1_000_000, progress)
    return dropped
