"""Statements on work: fill, claim in turn by share, settle fenced by the attempt."""

from collections.abc import Sequence
from typing import Any

from tidings.backends.postgres.statements.speaker import Speaker
from tidings.columns import READY_COLUMNS, ready_of, ready_row
from tidings.rows import Ready
from tidings.store import KEY_RELEASED, PROGRESS_CHANGED, READY_CHANGED

_FENCE = "subscription = $1 AND share = $2 AND position = $3 AND owner = $4 AND attempt = $5"
_FILL = (
    f"INSERT INTO tidings.ready ({READY_COLUMNS}) "
    "SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::text[], $6::integer[], "
    "$7::text[], $8::bytea[], $9::bigint[])"
)

# Shares in turn, beginning after $3 and going round; each gives its first rows until $4 are taken. So no more than the
# next $4 shares are looked up, however many wait. Rows that another claim has locked are passed over.
# Each row is looked up by itself: a join is planned by statistics of an emptier queue, and reads thousands to take two.
_NEXT = "SELECT min(r.share) FROM tidings.ready r WHERE r.subscription = $1 AND r.owner IS NULL AND r.share"
_CLAIM = f"""
WITH RECURSIVE ahead(share, n) AS (
  SELECT ({_NEXT} > $3), 1
  UNION ALL
  SELECT ({_NEXT} > ahead.share), n + 1 FROM ahead WHERE share IS NOT NULL AND n < $4),
around(share, n) AS (
  SELECT ({_NEXT} <= $3), 1
  UNION ALL
  SELECT ({_NEXT} > around.share AND r.share <= $3), n + 1 FROM around WHERE share IS NOT NULL AND n < $4),
turns AS (
  SELECT share, row_number() OVER (ORDER BY share <= $3, share) AS turn
    FROM (SELECT share FROM ahead UNION ALL SELECT share FROM around) found WHERE share IS NOT NULL),
candidates AS (
  SELECT first.share, first.position, row_number() OVER (ORDER BY first.place, turns.turn) AS place
    FROM (SELECT * FROM turns ORDER BY turn LIMIT $4) turns CROSS JOIN LATERAL (
      SELECT r.share, r.position, row_number() OVER (ORDER BY r.position) AS place
        FROM (SELECT share, position FROM tidings.ready
               WHERE subscription = $1 AND share = turns.share AND owner IS NULL
               ORDER BY position LIMIT $4) r) first),
chosen AS (
  SELECT row.tid FROM (SELECT * FROM candidates ORDER BY place) candidates CROSS JOIN LATERAL (
    SELECT r.ctid AS tid FROM tidings.ready r
     WHERE r.subscription = $1 AND r.share = candidates.share AND r.position = candidates.position
       AND r.owner IS NULL FOR UPDATE SKIP LOCKED) row LIMIT $4)
UPDATE tidings.ready r SET owner = $2, attempt = attempt + 1, since = $5 FROM chosen WHERE r.ctid = chosen.tid
RETURNING {", ".join(f"r.{name}" for name in READY_COLUMNS.split(", "))}
"""


class ReadyStatements(Speaker):
    """Part of PostgresStatements."""

    async def fill(self, rows: Sequence[Ready]) -> None:
        """Add work that waits, or that an owner has."""
        if not rows:
            return
        columns = zip(
            *[ready_row(row) for row in rows],
            strict=True,
        )
        await self._db.run(_FILL, *[list(column) for column in columns])
        self.touched.add(READY_CHANGED)

    async def claim(self, subscription: str, owner: str, after: str, limit: int, now: int) -> list[Ready]:
        """Take work that waits, the shares in turn from the one after `after`; each start counts as an attempt."""
        rows = await self._db.rows(_CLAIM, subscription, owner, after, limit, now)
        return sorted((ready_of(row) for row in rows), key=lambda row: (row.share <= after, row.share, row.position))

    async def unready(self, row: Ready) -> bool:
        """Remove work that this attempt has settled; False if the attempt is not the current one any more."""
        self.touched.add(PROGRESS_CHANGED)
        if row.key is not None:
            self.touched.add(KEY_RELEASED)
        return bool(await self._db.run(f"DELETE FROM tidings.ready WHERE {_FENCE}", *_fence(row)))

    async def give_back(self, row: Ready, *, counted: bool) -> bool:
        """Let work wait again; `counted` says whether the attempt stays counted."""
        self.touched.add(READY_CHANGED)
        attempt = "attempt" if counted else "attempt - 1"
        sql = f"UPDATE tidings.ready SET owner = NULL, since = NULL, attempt = {attempt} WHERE {_FENCE}"
        return bool(await self._db.run(sql, *_fence(row)))

    async def running(self, subscription: str) -> list[Ready]:
        """Return the work that an owner has."""
        sql = (
            f"SELECT {READY_COLUMNS} FROM tidings.ready WHERE subscription = $1 AND owner IS NOT NULL ORDER BY position"
        )
        return [ready_of(row) for row in await self._db.rows(sql, subscription)]

    async def ready(self, positions: Sequence[int]) -> list[Ready]:
        """Return the work at some positions, of all subscriptions."""
        sql = f"SELECT {READY_COLUMNS} FROM tidings.ready WHERE position = ANY ($1::bigint[])"
        return [ready_of(row) for row in await self._db.rows(sql, list(positions))]


def _fence(row: Ready) -> tuple[Any, ...]:
    return (row.subscription, row.share, row.position, row.owner, row.attempt)
