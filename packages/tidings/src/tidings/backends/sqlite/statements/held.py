"""Statements on the exceptions: hold, close keys, find what is due, list dead letters."""

from collections.abc import Sequence

from tidings.backends.sqlite.statements.rows import Speaker, marks
from tidings.columns import HELD_COLUMNS, held_of, held_row
from tidings.rows import BEHIND, Held
from tidings.store import HELD_CHANGED, KEY_RELEASED

_HOLD = f"INSERT OR REPLACE INTO tidings_held ({HELD_COLUMNS}) VALUES ({marks(12)})"


class HeldStatements(Speaker):
    """Part of SqliteStatements."""

    async def hold(self, rows: Sequence[Held]) -> None:
        """Write exceptions, each in place of the one at its position."""
        self._db.many(_HOLD, [held_row(row) for row in rows])
        self.touched.add(HELD_CHANGED)
        if not all(row.blocks for row in rows):
            self.touched.add(KEY_RELEASED)

    async def unhold(self, subscription: str, position: int) -> bool:
        """Remove an exception; say whether it was there."""
        self.touched.add(HELD_CHANGED)
        sql = "DELETE FROM tidings_held WHERE subscription = ?1 AND position = ?2"
        return bool(self._db.run(sql, (subscription, position)))

    async def held(self, subscription: str | None, positions: Sequence[int]) -> list[Held]:
        """Return the exceptions at some positions, of one subscription or of all."""
        sql = f"SELECT {HELD_COLUMNS} FROM tidings_held WHERE position IN ({marks(len(positions), 2)})"
        if subscription is None:
            return [held_of(row) for row in self._db.rows(f"{sql} AND ?1 IS NULL", (None, *positions))]
        return [held_of(row) for row in self._db.rows(f"{sql} AND subscription = ?1", (subscription, *positions))]

    async def holds_any(self, subscription: str) -> bool:
        """Say whether a subscription has exceptions that are not settled for good."""
        sql = "SELECT 1 FROM tidings_held WHERE subscription = ?1 AND state <> 'discarded' LIMIT 1"
        return bool(self._db.rows(sql, (subscription,)))

    async def closed_keys(self, subscription: str, keys: Sequence[str], *, by_work: bool = False) -> set[str]:
        """Return which of the keys an unsettled event holds; `by_work`: one that is ready or runs."""
        within = marks(len(keys), 2)
        ready = f"SELECT key FROM tidings_ready WHERE subscription = ?1 AND key IN ({within})"
        held = f"SELECT key FROM tidings_held WHERE subscription = ?1 AND key IN ({within}) AND blocks = 1"
        rows = self._db.rows(ready if by_work else f"{held} UNION {ready}", (subscription, *keys))
        return {row[0] for row in rows}

    async def due(self, subscription: str, lanes: Sequence[int], now: int, limit: int) -> list[Held]:
        """Return the retries of some lanes whose time has come, the oldest position of them first."""
        rows = self._db.rows(
            f"SELECT {HELD_COLUMNS} FROM tidings_held WHERE subscription = ?1 AND state = 'retry' AND due <= ?2 "
            f"AND lane IN ({marks(len(lanes), 4)}) ORDER BY position LIMIT ?3",
            (subscription, now, limit, *lanes),
        )
        return [held_of(row) for row in rows]

    async def next_due(self, subscription: str, lanes: Sequence[int]) -> int | None:
        """Return when the next retry of some lanes is due (microseconds)."""
        rows = self._db.rows(
            f"SELECT min(due) FROM tidings_held WHERE subscription = ?1 AND state = 'retry' "
            f"AND lane IN ({marks(len(lanes), 2)})",
            (subscription, *lanes),
        )
        due: int | None = rows[0][0]
        return due

    async def holder(self, subscription: str, key: str) -> int | None:
        """Return the position of the event that holds a key: the first of it that is not settled."""
        rows = self._db.rows(
            "SELECT min(position) FROM (SELECT position FROM tidings_held WHERE subscription = ?1 AND key = ?2 "
            "AND blocks = 1 UNION ALL SELECT position FROM tidings_ready WHERE subscription = ?1 AND key = ?2)",
            (subscription, key),
        )
        position: int | None = rows[0][0]
        return position

    async def next_behind(self, subscription: str, key: str) -> Held | None:
        """Return the first follower of a key that nothing holds any more, None if something does."""
        rows = self._db.rows(
            f"SELECT {HELD_COLUMNS} FROM tidings_held WHERE subscription = ?1 AND key = ?2 AND blocks = 1 "
            "ORDER BY position LIMIT 1",
            (subscription, key),
        )
        # An event that landed before any release took its type may have come before the head: then there are two.
        return next((row for row in map(held_of, rows) if row.state == BEHIND), None)

    async def heads_to_be(self, subscription: str, lanes: Sequence[int], limit: int) -> list[Held]:
        """Return the first follower of each key that nothing holds any more."""
        # Hops from key to key by index: a long queue behind one key costs nothing.
        rows = self._db.rows(
            "WITH RECURSIVE keys(key) AS ("
            "  SELECT min(key) FROM tidings_held WHERE subscription = ?1 AND blocks = 1 UNION ALL"
            "  SELECT (SELECT min(key) FROM tidings_held WHERE subscription = ?1 AND blocks = 1 AND key > keys.key)"
            "  FROM keys WHERE keys.key IS NOT NULL)"
            f"SELECT {HELD_COLUMNS} FROM keys CROSS JOIN tidings_held USING (key) WHERE subscription = ?1 "
            "AND state = 'behind' "
            "AND blocks = 1 AND position = (SELECT min(position) FROM tidings_held "
            "  WHERE subscription = ?1 AND key = keys.key AND blocks = 1) "
            "AND NOT EXISTS (SELECT 1 FROM tidings_ready WHERE subscription = ?1 AND key = keys.key) "
            f"AND lane IN ({marks(len(lanes), 3)}) ORDER BY position LIMIT ?2",
            (subscription, limit, *lanes),
        )
        return [held_of(row) for row in rows]

    async def letters(self, states: Sequence[str], subscription: str | None, after: int, limit: int) -> list[Held]:
        """Return exceptions in some states after a position, of one subscription or of all."""
        rows = self._db.rows(
            f"SELECT {HELD_COLUMNS} FROM tidings_held WHERE state IN ({marks(len(states), 4)}) AND position > ?2 "
            "AND (?1 IS NULL OR subscription = ?1) ORDER BY position, subscription LIMIT ?3",
            (subscription, after, limit, *states),
        )
        return [held_of(row) for row in rows]

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return how many exceptions each subscription has, by state; work waiting and running as "ready"."""
        rows = self._db.rows(
            "SELECT subscription, state, count(*) FROM tidings_held GROUP BY subscription, state UNION ALL "
            "SELECT subscription, 'ready', count(*) FROM tidings_ready GROUP BY subscription"
        )
        return {(row[0], row[1]): row[2] for row in rows}
