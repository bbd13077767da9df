"""Partitions of the log: one for each retention class, cut into ranges of positions that are dropped whole.

Every change waits for its lock two seconds at most, because whoever waits for a lock makes all others wait behind it;
what did not succeed is done by the next upkeep. Until a class has its partition, its events are in `log_other`.
"""

import logging
from collections.abc import Sequence

from msgspec import Struct

from tidings.backends.postgres.driver import HeldSession
from tidings.errors import ConstraintError, StatementError, StoreBusyError
from tidings.events import FOREVER
from tidings.store import DISCARDED

log = logging.getLogger("tidings")

RANGE = 1_000_000
"""Positions of one range."""

AHEAD = 2
"""Ranges that are ready beyond the newest position."""

LOCK_TIMEOUT = "2s"

_RANGES = """
SELECT relname, bounds[1]::bigint, bounds[2]::bigint FROM (
  SELECT leaf.relname,
         regexp_match(pg_get_expr(leaf.relpartbound, leaf.oid),
                      'FROM \\(.?([0-9]+).?\\) TO \\(.?([0-9]+).?\\)') AS bounds
    FROM pg_inherits JOIN pg_class leaf ON leaf.oid = inhrelid
   WHERE inhparent = $1::text::regclass) ranges
 WHERE bounds IS NOT NULL ORDER BY 2
"""


class Range(Struct, frozen=True):
    """One leaf: its table, and the positions from (included) to (excluded)."""

    table: str
    low: int
    high: int


def class_table(keep: str) -> str:
    """Return the table of a retention class."""
    return f"log_keep_{int(keep)}"


class Partitions:
    """Looks after the partitions, within a transaction of its caller for each step."""

    def __init__(self, session: HeldSession) -> None:
        self._session = session

    async def ensure(self, keeps: Sequence[str], head: int) -> None:
        """Make the partitions of retention classes, and their ranges from the newest position on."""
        for keep in keeps:
            if keep != FOREVER:
                await self._step(self._ensure_class, keep)
                await self._step(self._ensure_ranges, keep, head)

    async def _step(self, work, *args: object) -> bool:  # type: ignore[no-untyped-def]
        """Do one change in a savepoint; False if its lock was not to be had, or its rows are elsewhere already."""
        await self._session.script(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SAVEPOINT upkeep")
        try:
            await work(*args)
        except (StoreBusyError, ConstraintError, StatementError) as error:
            await self._session.script("ROLLBACK TO SAVEPOINT upkeep")
            log.info("A change of the log's partitions is left to the next upkeep: %s", error)
            return False
        await self._session.script("RELEASE SAVEPOINT upkeep")
        return True

    async def _ensure_class(self, keep: str) -> None:
        table = class_table(keep)
        if (await self._session.rows("SELECT to_regclass($1)", f"tidings.{table}"))[0][0] is not None:
            return
        await self._session.script(
            f"CREATE TABLE tidings.{table} (LIKE tidings.log INCLUDING DEFAULTS) PARTITION BY RANGE (position);"
            f"CREATE TABLE tidings.{table}_rest PARTITION OF tidings.{table} DEFAULT;"
            f"ALTER TABLE tidings.log ATTACH PARTITION tidings.{table} FOR VALUES IN ('{int(keep)}')"
        )

    async def _ensure_ranges(self, keep: str, head: int) -> None:
        table = class_table(keep)
        have = {one.low for one in await self.ranges(keep)}
        first = head // RANGE
        for number in range(first, first + AHEAD + 1):
            low = number * RANGE
            if low not in have:
                await self._session.script(
                    f"CREATE TABLE tidings.{table}_{number} (LIKE tidings.log INCLUDING DEFAULTS);"
                    f"ALTER TABLE tidings.{table} ATTACH PARTITION tidings.{table}_{number} "
                    f"FOR VALUES FROM ({low}) TO ({low + RANGE})"
                )

    async def ranges(self, keep: str) -> list[Range]:
        """Return the ranges of a retention class, by position."""
        table = class_table(keep)
        if (await self._session.rows("SELECT to_regclass($1)", f"tidings.{table}"))[0][0] is None:
            return []
        rows = await self._session.rows(_RANGES, f"tidings.{table}")
        return [Range(row[0], row[1], row[2]) for row in rows]

    async def drop(self, keep: str, floor: int, older_than: int) -> int:
        """Drop the ranges of a class that lie below a floor and hold nothing newer than a time; return how many events.

        What a dead letter or a parked event needs moves to the rest of its class first, at its own position.
        """
        dropped = 0
        for one in await self.ranges(keep):
            if one.high - 1 > floor:
                break
            newer = f"SELECT EXISTS (SELECT FROM tidings.{one.table} WHERE time >= $1)"
            if (await self._session.rows(newer, older_than))[0][0]:
                break
            events = int((await self._session.rows(f"SELECT count(*) FROM tidings.{one.table}"))[0][0])
            if not await self._step(self._drop_range, keep, one):
                break
            dropped += events
        return dropped

    async def _drop_range(self, keep: str, one: Range) -> None:
        await self._session.script(f"ALTER TABLE tidings.{class_table(keep)} DETACH PARTITION tidings.{one.table}")
        await self._session.run(
            f"INSERT INTO tidings.log SELECT l.* FROM tidings.{one.table} l WHERE EXISTS "
            "(SELECT FROM tidings.held h WHERE h.position = l.position AND h.state <> $1)",
            DISCARDED,
        )
        await self._session.run(
            f"DELETE FROM tidings.held h USING tidings.{one.table} l WHERE l.position = h.position AND h.state = $1",
            DISCARDED,
        )
        await self._session.script(f"DROP TABLE tidings.{one.table}")
