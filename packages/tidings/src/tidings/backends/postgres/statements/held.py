"""Statements on the exceptions: hold, close keys, find what is due, list dead letters."""

from collections.abc import Sequence

from tidings.backends.postgres.statements.speaker import Speaker
from tidings.columns import HELD_COLUMNS, held_of, held_row
from tidings.rows import BEHIND, Held
from tidings.store import HELD_CHANGED, KEY_RELEASED

_ARRAYS = (
    "$1::text[], $2::bigint[], $3::smallint[], $4::text[], $5::boolean[], $6::text[], $7::integer[], $8::bigint[], "
    "$9::text[], $10::bytea[], $11::text[], $12::bigint[]"
)
_HOLD = (
    f"INSERT INTO tidings.held ({HELD_COLUMNS}) SELECT * FROM unnest({_ARRAYS}) ON CONFLICT (subscription, position) "
    "DO UPDATE SET lane = excluded.lane, key = excluded.key, blocks = excluded.blocks, state = excluded.state, "
    "attempts = excluded.attempts, due = excluded.due, reason = excluded.reason, failures = excluded.failures, "
    "actor = excluded.actor, updated = excluded.updated"
)
_SELECT = f"SELECT {HELD_COLUMNS} FROM tidings.held"

# Hops from key to key by index: a long queue behind one key costs nothing.
_HEADS_TO_BE = f"""
WITH RECURSIVE keys(key) AS (
  (SELECT key FROM tidings.held WHERE subscription = $1 AND blocks ORDER BY key LIMIT 1)
  UNION ALL
  SELECT (SELECT h.key FROM tidings.held h WHERE h.subscription = $1 AND h.blocks AND h.key > keys.key
           ORDER BY h.key LIMIT 1)
    FROM keys WHERE keys.key IS NOT NULL)
SELECT {", ".join(f"head.{name}" for name in HELD_COLUMNS.split(", "))}
  FROM keys CROSS JOIN LATERAL (
    SELECT * FROM tidings.held h WHERE h.subscription = $1 AND h.key = keys.key AND h.blocks
     ORDER BY h.position LIMIT 1) head
 WHERE head.state = 'behind' AND head.lane = ANY ($3::smallint[])
   AND NOT EXISTS (SELECT FROM tidings.ready r WHERE r.subscription = $1 AND r.key = keys.key)
 ORDER BY head.position LIMIT $2
"""


class HeldStatements(Speaker):
    """Part of PostgresStatements."""

    async def hold(self, rows: Sequence[Held]) -> None:
        """Write exceptions, each in place of the one at its position."""
        columns = zip(*[held_row(row) for row in rows], strict=True)
        await self._db.run(_HOLD, *[list(column) for column in columns])
        self.touched.add(HELD_CHANGED)
        if not all(row.blocks for row in rows):
            self.touched.add(KEY_RELEASED)

    async def unhold(self, subscription: str, position: int) -> bool:
        """Remove an exception; say whether it was there."""
        self.touched.add(HELD_CHANGED)
        sql = "DELETE FROM tidings.held WHERE subscription = $1 AND position = $2"
        return bool(await self._db.run(sql, subscription, position))

    async def held(self, subscription: str | None, positions: Sequence[int]) -> list[Held]:
        """Return the exceptions at some positions, of one subscription or of all."""
        # Two operators, or an operator and a lane's owner, may be at the same rows: the second waits for the first.
        lock = "ORDER BY subscription, position FOR UPDATE" if self._locking else "ORDER BY subscription, position"
        sql = f"{_SELECT} WHERE position = ANY ($2::bigint[]) AND ($1::text IS NULL OR subscription = $1) {lock}"
        return [held_of(row) for row in await self._db.rows(sql, subscription, list(positions))]

    async def holds_any(self, subscription: str) -> bool:
        """Say whether a subscription has exceptions that are not settled for good."""
        sql = "SELECT 1 FROM tidings.held WHERE subscription = $1 AND state <> 'discarded' LIMIT 1"
        return bool(await self._db.rows(sql, subscription))

    async def closed_keys(self, subscription: str, keys: Sequence[str], *, by_work: bool = False) -> set[str]:
        """Return which of the keys an unsettled event holds; `by_work`: one that is ready or runs."""
        ready = "SELECT key FROM tidings.ready WHERE subscription = $1 AND key = ANY ($2::text[])"
        held = "SELECT key FROM tidings.held WHERE subscription = $1 AND key = ANY ($2::text[]) AND blocks"
        rows = await self._db.rows(ready if by_work else f"{held} UNION {ready}", subscription, list(keys))
        return {row[0] for row in rows}

    async def due(self, subscription: str, lanes: Sequence[int], now: int, limit: int) -> list[Held]:
        """Return the retries of some lanes whose time has come, the oldest position of them first."""
        rows = await self._db.rows(
            f"{_SELECT} WHERE subscription = $1 AND state = 'retry' AND due <= $2 AND lane = ANY ($4::smallint[]) "
            "ORDER BY position LIMIT $3",
            subscription,
            now,
            limit,
            list(lanes),
        )
        return [held_of(row) for row in rows]

    async def next_due(self, subscription: str, lanes: Sequence[int]) -> int | None:
        """Return when the next retry of some lanes is due (microseconds)."""
        rows = await self._db.rows(
            "SELECT min(due) FROM tidings.held WHERE subscription = $1 AND state = 'retry' "
            "AND lane = ANY ($2::smallint[])",
            subscription,
            list(lanes),
        )
        due: int | None = rows[0][0]
        return due

    async def holder(self, subscription: str, key: str) -> int | None:
        """Return the position of the event that holds a key: the first of it that is not settled."""
        rows = await self._db.rows(
            "SELECT min(position) FROM (SELECT position FROM tidings.held WHERE subscription = $1 AND key = $2 "
            "AND blocks UNION ALL SELECT position FROM tidings.ready WHERE subscription = $1 AND key = $2) unsettled",
            subscription,
            key,
        )
        position: int | None = rows[0][0]
        return position

    async def next_behind(self, subscription: str, key: str) -> Held | None:
        """Return the first follower of a key that nothing holds any more, None if something does."""
        rows = await self._db.rows(
            f"{_SELECT} WHERE subscription = $1 AND key = $2 AND blocks ORDER BY position LIMIT 1",
            subscription,
            key,
        )
        # An event that landed before any release took its type may have come before the head: then there are two.
        return next((row for row in map(held_of, rows) if row.state == BEHIND), None)

    async def heads_to_be(self, subscription: str, lanes: Sequence[int], limit: int) -> list[Held]:
        """Return the first follower of each key that nothing holds any more."""
        return [held_of(row) for row in await self._db.rows(_HEADS_TO_BE, subscription, limit, list(lanes))]

    async def letters(self, states: Sequence[str], subscription: str | None, after: int, limit: int) -> list[Held]:
        """Return exceptions in some states after a position, of one subscription or of all."""
        rows = await self._db.rows(
            f"{_SELECT} WHERE state = ANY ($4::text[]) AND position > $2 AND ($1::text IS NULL OR subscription = $1) "
            "ORDER BY position, subscription LIMIT $3",
            subscription,
            after,
            limit,
            list(states),
        )
        return [held_of(row) for row in rows]

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return how many exceptions each subscription has, by state; work waiting and running as "ready"."""
        rows = await self._db.rows(
            "SELECT subscription, state, count(*) FROM tidings.held GROUP BY subscription, state UNION ALL "
            "SELECT subscription, 'ready', count(*) FROM tidings.ready GROUP BY subscription"
        )
        return {(row[0], row[1]): row[2] for row in rows}
