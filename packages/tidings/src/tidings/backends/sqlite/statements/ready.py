"""Statements on work: fill, claim in turn by share, settle fenced by the attempt."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from tidings.backends.sqlite.statements.rows import Speaker, marks
from tidings.columns import READY_COLUMNS, ready_of, ready_row
from tidings.rows import Ready
from tidings.store import KEY_RELEASED, PROGRESS_CHANGED, READY_CHANGED

_FENCE = "subscription = ?1 AND share = ?2 AND position = ?3 AND owner = ?4 AND attempt = ?5"


class ReadyStatements(Speaker):
    """Part of SqliteStatements."""

    async def fill(self, rows: Sequence[Ready]) -> None:
        """Add work that waits, or that an owner has."""
        self._db.many(
            f"INSERT INTO tidings_ready ({READY_COLUMNS}) VALUES ({marks(9)})",
            [ready_row(row) for row in rows],
        )
        self.touched.add(READY_CHANGED)

    async def claim(self, subscription: str, owner: str, after: str, limit: int, now: int) -> list[Ready]:
        """Take work that waits, the shares in turn from the one after `after`; each start counts as an attempt."""
        shares = self._waiting_shares(subscription, after, limit)
        taken: list[Ready] = []
        for number, share in enumerate(shares):
            quota = -(-(limit - len(taken)) // (len(shares) - number))
            rows = self._db.rows(
                f"SELECT {READY_COLUMNS} FROM tidings_ready WHERE subscription = ?1 AND share = ?2 AND owner IS NULL "
                "ORDER BY position LIMIT ?3",
                (subscription, share, quota),
            )
            taken.extend(ready_of(row) for row in rows)
        claimed = [replace(row, owner=owner, attempt=row.attempt + 1, since=now) for row in taken]
        self._db.many(
            "UPDATE tidings_ready SET owner = ?4, attempt = ?5, since = ?6 "
            "WHERE subscription = ?1 AND share = ?2 AND position = ?3",
            [(*_fence(row), now) for row in claimed],
        )
        return claimed

    def _waiting_shares(self, subscription: str, after: str, limit: int) -> list[str]:
        """Return shares with work that waits, at most `limit`, beginning after one and going round."""
        next_share = "SELECT min(share) FROM tidings_ready WHERE subscription = ?1 AND owner IS NULL AND share > "
        rows = self._db.rows(
            f"WITH RECURSIVE shares(share, n) AS (SELECT ({next_share} ?2), 1 UNION ALL "
            f"SELECT ({next_share} shares.share), n + 1 FROM shares WHERE share IS NOT NULL AND n < ?3) "
            "SELECT share FROM shares WHERE share IS NOT NULL",
            (subscription, after, limit),
        )
        found = [row[0] for row in rows]
        if len(found) < limit:
            rows = self._db.rows(
                "SELECT DISTINCT share FROM tidings_ready WHERE subscription = ?1 AND owner IS NULL AND share <= ?2 "
                "ORDER BY share LIMIT ?3",
                (subscription, after, limit - len(found)),
            )
            found.extend(row[0] for row in rows)
        return found

    async def unready(self, row: Ready) -> bool:
        """Remove work that this attempt has settled; False if the attempt is not the current one any more."""
        self.touched.add(PROGRESS_CHANGED)
        if row.key is not None:
            self.touched.add(KEY_RELEASED)
        return bool(self._db.run(f"DELETE FROM tidings_ready WHERE {_FENCE}", _fence(row)))

    async def give_back(self, row: Ready, *, counted: bool) -> bool:
        """Let work wait again; `counted` says whether the attempt stays counted."""
        self.touched.add(READY_CHANGED)
        attempt = "attempt" if counted else "attempt - 1"
        return bool(
            self._db.run(
                f"UPDATE tidings_ready SET owner = NULL, since = NULL, attempt = {attempt} WHERE {_FENCE}", _fence(row)
            )
        )

    async def running(self, subscription: str) -> list[Ready]:
        """Return the work that an owner has."""
        sql = (
            f"SELECT {READY_COLUMNS} FROM tidings_ready WHERE subscription = ?1 AND owner IS NOT NULL ORDER BY position"
        )
        return [ready_of(row) for row in self._db.rows(sql, (subscription,))]

    async def ready(self, positions: Sequence[int]) -> list[Ready]:
        """Return the work at some positions, of all subscriptions."""
        sql = f"SELECT {READY_COLUMNS} FROM tidings_ready WHERE position IN ({marks(len(positions))})"
        return [ready_of(row) for row in self._db.rows(sql, tuple(positions))]


def _fence(row: Ready) -> tuple[Any, ...]:
    return (row.subscription, row.share, row.position, row.owner, row.attempt)
