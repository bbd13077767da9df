"""Statements on projections: their versions, how far each is, and what they have handled inline."""

from collections.abc import Sequence

import msgspec

from tidings.backends.sqlite.statements.log import WINDOW
from tidings.backends.sqlite.statements.rows import Speaker, marks
from tidings.events import Envelope
from tidings.rows import BarePage, ProjectionRow
from tidings.store import HELD_CHANGED, PROGRESS_CHANGED, SUBSCRIPTION_CHANGED

_PROJECTION = "name, version, service, subscription, tables, inline, live"
_BARE = "SELECT position, lane, time, type, version, data FROM tidings_log"
_OWNED = ("tidings_held", "tidings_ready", "tidings_inlined")

# SQLite takes the bare columns from the row that holds the maximum.
_NEWEST = "SELECT lane, max(step) AS step, position FROM tidings_progress WHERE subscription = ?1 GROUP BY lane"
_TYPES = "SELECT value FROM tidings_subscription s, json_each(s.types) WHERE s.name = ?1"
_INLINED = "EXISTS (SELECT 1 FROM tidings_inlined i WHERE i.subscription = {} AND i.id = l.id AND i.source = l.source)"
# CROSS JOIN: the log is read from where the slowest lane stands, not from its beginning.
_PENDING = (
    f"FROM tidings_log l CROSS JOIN ({_NEWEST}) n ON n.lane = l.lane "
    f"WHERE l.position > (SELECT min(position) FROM ({_NEWEST})) AND l.position > n.position "
    f"AND l.type IN ({_TYPES}) AND NOT {_INLINED.format('?1')}"
)


class ProjectionStatements(Speaker):
    """Part of SqliteStatements."""

    async def projections(self) -> list[ProjectionRow]:
        """Return every version of every projection on this log, by name and version."""
        rows = self._db.rows(f"SELECT {_PROJECTION} FROM tidings_projection ORDER BY name, version")
        return [
            ProjectionRow(
                row[0], row[1], row[2], row[3], tuple(msgspec.json.decode(row[4])), bool(row[5]), bool(row[6])
            )
            for row in rows
        ]

    async def live_version(self, name: str) -> int | None:
        """Return the version of a projection that queries read; None if there is none."""
        rows = self._db.rows("SELECT version FROM tidings_projection WHERE name = ?1 AND live = 1", (name,))
        return int(rows[0][0]) if rows else None

    async def register_projection(self, row: ProjectionRow) -> None:
        """Write a version; of one that is known, only its tables and `inline` change."""
        tables = msgspec.json.encode(row.tables).decode()
        self._db.run(
            f"INSERT INTO tidings_projection ({_PROJECTION}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) "
            "ON CONFLICT (name, version) DO UPDATE SET tables = ?5, inline = ?6",
            (row.name, row.version, row.service, row.subscription, tables, row.inline, row.live),
        )
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def go_live(self, name: str, version: int) -> None:
        """Let queries read this version of a projection, and no other."""
        self._db.run("UPDATE tidings_projection SET live = 0 WHERE name = ?1 AND live = 1", (name,))
        self._db.run("UPDATE tidings_projection SET live = 1 WHERE name = ?1 AND version = ?2", (name, version))
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def forget_projection(self, row: ProjectionRow) -> None:
        """Remove a version with its subscription and its tables."""
        for table in row.tables:
            self._db.run(f'DROP TABLE IF EXISTS "{table}"')
        for table in (*_OWNED, "tidings_progress"):
            self._db.run(f"DELETE FROM {table} WHERE subscription = ?1", (row.subscription,))
        self._db.run("DELETE FROM tidings_subscription WHERE name = ?1", (row.subscription,))
        self._db.run("DELETE FROM tidings_projection WHERE name = ?1 AND version = ?2", (row.name, row.version))
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def rewind(self, row: ProjectionRow) -> None:
        """Empty a version's tables, forget its exceptions, and set its lanes back to where it started."""
        for table in row.tables:
            self._db.run(f'DELETE FROM "{table}"')
        for table in _OWNED:
            self._db.run(f"DELETE FROM {table} WHERE subscription = ?1", (row.subscription,))
        self._db.run(
            "INSERT INTO tidings_progress (subscription, lane, step, position, owner) SELECT p.subscription, p.lane, "
            "max(p.step) + 1, s.start, NULL FROM tidings_progress p JOIN tidings_subscription s ON s.name = "
            "p.subscription WHERE p.subscription = ?1 GROUP BY p.lane",
            (row.subscription,),
        )
        self.touched |= {SUBSCRIPTION_CHANGED, PROGRESS_CHANGED, HELD_CHANGED}

    async def replay(self, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int) -> BarePage:
        """Read as `read` does, but only what a replay needs of each event."""
        in_lanes = "" if len(lanes) == self._lanes else f" AND lane IN ({', '.join(map(str, lanes))})"
        of_types = "" if types is None else f" AND type IN ({marks(len(types), 4)})"
        sql = f"{_BARE} WHERE position > ?1 AND position <= ?2{of_types}{in_lanes} ORDER BY position LIMIT ?3"
        # Only below a head read beforehand does finding nothing mean that there is nothing.
        head = int(self._db.rows("SELECT ifnull(max(position), 0) FROM tidings_log")[0][0])
        last = min(after + WINDOW, max(after, head))
        rows = self._db.rows(sql, (after, last, limit, *(types or ())))
        return BarePage(rows, rows[-1][0] if len(rows) == limit else last)

    async def behind(self, subscription: str, other: str) -> int:
        """Return how many of its events a subscription has not reached that another one has passed."""
        newest = _NEWEST.replace("?1", "?2")
        rows = self._db.rows(
            f"SELECT count(*) {_PENDING} AND (l.position <= (SELECT position FROM ({newest}) o WHERE o.lane = l.lane) "
            f"OR {_INLINED.format('?2')})",
            (subscription, other),
        )
        return int(rows[0][0])

    async def reached(self, subscription: str, position: int) -> bool:
        """Say whether a subscription has passed every event of its own up to a position."""
        return not self._db.rows(f"SELECT 1 {_PENDING} AND l.position <= ?2 LIMIT 1", (subscription, position))

    async def count(self, types: Sequence[str], after: int) -> int:
        """Return how many events of some types lie after a position."""
        sql = f"SELECT count(*) FROM tidings_log WHERE position > ?1 AND type IN ({marks(len(types), 2)})"
        return int(self._db.rows(sql, (after, *types))[0][0])

    async def wait_for_inline_turn(self, subscription: str, envelopes: Sequence[Envelope]) -> None:
        """Do nothing: one transaction writes at a time."""

    async def lanes_without_backlog(self, subscription: str, lanes: Sequence[int]) -> set[int]:
        """Return in which lanes a subscription that is not paused has handled everything, inline or in turn."""
        # The name is that of a known subscription, or nothing is handled inline.
        known = "SELECT 1 FROM tidings_subscription WHERE name = ?1 AND paused_by IS NULL"
        if not self._db.rows(known, (subscription,)):
            return set()
        sql = f"SELECT 1 {_PENDING} AND l.lane = ?2 LIMIT 1"
        return {lane for lane in lanes if not self._db.rows(sql, (subscription, lane))}

    async def mark_inline(self, subscription: str, envelopes: Sequence[Envelope]) -> None:
        """Note events that were handled within the transaction that publishes them."""
        self._db.many(
            "INSERT INTO tidings_inlined (subscription, id, source) VALUES (?1, ?2, ?3)",
            [(subscription, envelope.id, envelope.source) for envelope in envelopes],
        )
        self.touched.add(PROGRESS_CHANGED)

    async def any_inline(self, subscription: str) -> bool:
        """Say whether events are noted that the subscription's lanes have not passed."""
        return bool(self._db.rows("SELECT 1 FROM tidings_inlined WHERE subscription = ?1 LIMIT 1", (subscription,)))

    async def take_inline(self, subscription: str, envelopes: Sequence[Envelope]) -> set[tuple[str, str]]:
        """Forget the notes of some events, which a lane passes; return (source, id) of those that had one."""
        sql = "DELETE FROM tidings_inlined WHERE subscription = ?1 AND id = ?2 AND source = ?3"
        return {(one.source, one.id) for one in envelopes if self._db.run(sql, (subscription, one.id, one.source))}
