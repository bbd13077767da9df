"""Partitions of the log: one for each retention class, cut into ranges of positions that are dropped whole.

Every change is a transaction of its own, so that no lock is kept while another is waited for, and waits for its lock
two seconds at most, because whoever waits for a lock makes all others wait behind it. What did not succeed is done by
the next upkeep. Until a class has its partition its events are in `log_other`, beyond its ranges in its `_rest`.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Concatenate, ParamSpec, TypeVar

from msgspec import Struct

from tidings.backends.postgres.driver import HeldSession
from tidings.errors import ConstraintError, StatementError, StoreBusyError, TransactionHeldTooLongError
from tidings.rows import DISCARDED

log = logging.getLogger("tidings")
P = ParamSpec("P")
T = TypeVar("T")

RANGE = 1_000_000
"""Positions of one range."""

AHEAD = 4
"""Ranges that are ready beyond the newest position: at 10,000 events a second they last until the next upkeep."""

AT_ONCE = 5000
"""Rows that one transaction deletes at most where they cannot be dropped whole."""

MOST_CLASSES = 50
"""Retention classes that get partitions unasked. Who sends us messages names any number of them; their rows past it are
deleted one by one, as those of any class without a partition."""

LOCK_TIMEOUT = "2s"

_CLASSES = """
SELECT substring(relname FROM '^log_keep_([0-9]+)$') FROM pg_inherits JOIN pg_class leaf ON leaf.oid = inhrelid
 WHERE inhparent = 'tidings.log'::regclass AND relname ~ '^log_keep_[0-9]+$'
"""
_RANGES = """
SELECT relname, bounds[1]::bigint, bounds[2]::bigint FROM (
  SELECT leaf.relname,
         regexp_match(pg_get_expr(leaf.relpartbound, leaf.oid),
                      'FROM \\(.?([0-9]+).?\\) TO \\(.?([0-9]+).?\\)') AS bounds
    FROM pg_inherits JOIN pg_class leaf ON leaf.oid = inhrelid
   WHERE inhparent = to_regclass($1)) ranges
 WHERE bounds IS NOT NULL ORDER BY 2
"""
# What a dead letter or a parked event needs stays; and nothing above a floor is looked at, so none of it is unsettled.
_DELETE = """
DELETE FROM tidings.{table} WHERE position IN (
  SELECT position FROM tidings.{table} old WHERE keep = $1 AND position <= $2 AND time < $3
     AND NOT EXISTS (SELECT FROM tidings.held h WHERE h.position = old.position AND h.state <> $4) LIMIT $5)
"""

_MOVE = """
WITH moved AS (DELETE FROM tidings.{table} WHERE {which} RETURNING *) INSERT INTO tidings.{to} SELECT * FROM moved
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
    """Looks after the partitions; `transaction` opens one for each change."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[HeldSession]]) -> None:
        self._transaction = transaction
        self.left: list[str] = []
        """Why each change that is left to the next upkeep was not made."""

    async def _step(
        self, work: Callable[Concatenate[HeldSession, P], Awaitable[T]], *args: P.args, **options: P.kwargs
    ) -> T | None:
        """Do one change; None if its lock was not to be had, or somebody else has changed the same."""
        try:
            async with self._transaction() as session:
                await session.script(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                return await work(session, *args, **options)
        except (StoreBusyError, ConstraintError, StatementError, TransactionHeldTooLongError) as error:
            level = logging.INFO if isinstance(error, StoreBusyError) else logging.WARNING
            log.log(level, "A change of the log's partitions is left to the next upkeep: %s", error)
            self.left.append(str(error))
            return None

    async def classes(self) -> set[str]:
        """Return the retention classes that have a partition."""
        return set(await self._step(_classes) or [])

    async def ensure(self, keep: str, head: int) -> None:
        """Make the partition of a retention class, and its ranges from the newest position on."""
        await self._step(_ensure_class, keep)
        first = head // RANGE
        for number in range(first, first + AHEAD + 1):
            await self._step(_ensure_range, keep, number)

    async def drop(self, keep: str, floor: int, head: int, older_than: int, progress: Callable[[int], None]) -> int:
        """Let go of a class's events up to a floor that are older than a time; return how many.

        Ranges that are full, lie below the floor and hold nothing newer are dropped whole. What a dead letter or a
        parked event needs moves to the rest of its class first, at its own position. What is past while its range
        still fills is deleted: so little comes that no range would ever be full in time.
        """
        dropped = 0
        every = await self._step(ranges, keep) or []
        for one in every:
            if one.high - 1 > floor:
                break
            events = await self._step(_drop_range, keep, one, older_than)
            if events is None:
                break
            dropped += events
            progress(events)
        filling = [one.table for one in every if one.low <= head < one.high]
        for table in (*filling, f"{class_table(keep)}_rest", "log_other"):
            while events := await self._step(_delete, table, keep, floor, older_than):
                dropped += events
                progress(events)
        return dropped


async def ranges(session: HeldSession, keep: str) -> list[Range]:
    """Return the ranges of a retention class, by position."""
    return [Range(row[0], row[1], row[2]) for row in await session.rows(_RANGES, f"tidings.{class_table(keep)}")]


async def _classes(session: HeldSession) -> list[str]:
    return [row[0] for row in await session.rows(_CLASSES)]


async def _is_there(session: HeldSession, table: str) -> bool:
    return (await session.rows("SELECT to_regclass($1)", f"tidings.{table}"))[0][0] is not None


async def _ensure_class(session: HeldSession, keep: str) -> None:
    table = class_table(keep)
    if await _is_there(session, table):
        return
    await session.script(
        f"CREATE TABLE tidings.{table} (LIKE tidings.log INCLUDING DEFAULTS INCLUDING INDEXES) "
        "PARTITION BY RANGE (position);"
        f"CREATE TABLE tidings.{table}_rest PARTITION OF tidings.{table} DEFAULT;"
    )
    move = _MOVE.format(table="log_other", which=f"keep = '{int(keep)}'", to=table)
    await _attach(session, move, "log", table, f"IN ('{int(keep)}')")


async def _ensure_range(session: HeldSession, keep: str, number: int) -> None:
    parent, low, high = class_table(keep), number * RANGE, (number + 1) * RANGE
    table = f"{parent}_{number}"
    if await _is_there(session, table) or not await _is_there(session, parent):
        return
    await session.script(f"CREATE TABLE tidings.{table} (LIKE tidings.log INCLUDING DEFAULTS INCLUDING INDEXES)")
    move = _MOVE.format(table=f"{parent}_rest", which=f"position >= {low} AND position < {high}", to=table)
    await _attach(session, move, parent, table, f"FROM ({low}) TO ({high})")


async def _attach(session: HeldSession, move: str, parent: str, table: str, values: str) -> None:
    """Attach a partition with what was written while it was missing.

    ATTACH alone lets in who writes and reads meanwhile: what came since the rows were moved makes it fail, and a
    reader that knows the partitions already finds neither the moved rows nor their new table. Everybody comes by the
    log itself, so one lock keeps them out; most is moved before it, and the indices are there.
    """
    await session.run(move)
    await session.script("LOCK TABLE ONLY tidings.log IN ACCESS EXCLUSIVE MODE")
    await session.run(move)
    await session.script(f"ALTER TABLE tidings.{parent} ATTACH PARTITION tidings.{table} FOR VALUES {values}")


async def _drop_range(session: HeldSession, keep: str, one: Range, older_than: int) -> int | None:
    counting = f"SELECT count(*), count(*) FILTER (WHERE time >= $1) FROM tidings.{one.table}"
    events, newer = (await session.rows(counting, older_than))[0]
    if newer:
        return None
    await session.script(f"ALTER TABLE tidings.{class_table(keep)} DETACH PARTITION tidings.{one.table}")
    kept = await session.run(
        f"INSERT INTO tidings.{class_table(keep)}_rest SELECT l.* FROM tidings.{one.table} l WHERE EXISTS "
        "(SELECT FROM tidings.held h WHERE h.position = l.position AND h.state <> $1)",
        DISCARDED,
    )
    await session.run(
        f"DELETE FROM tidings.held h USING tidings.{one.table} l WHERE l.position = h.position AND h.state = $1 AND "
        f"NOT EXISTS (SELECT FROM tidings.{class_table(keep)}_rest r WHERE r.position = h.position)",
        DISCARDED,
    )
    await session.script(f"DROP TABLE tidings.{one.table}")
    return int(events) - kept


async def _delete(session: HeldSession, table: str, keep: str, floor: int, older_than: int) -> int:
    if not await _is_there(session, table):
        return 0
    return await session.run(_DELETE.format(table=table), keep, floor, older_than, DISCARDED, AT_ONCE)
