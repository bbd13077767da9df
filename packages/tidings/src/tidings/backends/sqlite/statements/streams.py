"""Statements on streams: heads, reading, snapshots."""

from tidings.backends.sqlite.statements.log import WINDOW
from tidings.backends.sqlite.statements.rows import Speaker
from tidings.columns import RECORDED_COLUMNS
from tidings.rows import SnapshotRow, StreamHead
from tidings.statements import RecordedRow

# An upsert would accept "expected 5" on a stream that is not there.
_BEGIN = "INSERT INTO tidings_stream (stream, version) VALUES (?1, ?2) ON CONFLICT DO NOTHING RETURNING version"
_MOVE = (
    "UPDATE tidings_stream SET version = version + ?2 WHERE stream = ?1 AND version = ?3 AND archived IS NULL "
    "RETURNING version"
)
_MOVE_ANY = (
    "INSERT INTO tidings_stream (stream, version) VALUES (?1, ?2) ON CONFLICT (stream) "
    "DO UPDATE SET version = version + excluded.version WHERE archived IS NULL RETURNING version"
)
_NOT_ARCHIVED = "NOT EXISTS (SELECT 1 FROM tidings_stream WHERE stream = ?1 AND archived IS NOT NULL)"
# Mostly none is, which one look at the index tells.
_NONE_ARCHIVED = (
    "(NOT EXISTS (SELECT 1 FROM tidings_stream WHERE archived IS NOT NULL) OR NOT EXISTS "
    "(SELECT 1 FROM tidings_stream s WHERE s.stream = tidings_log.stream AND s.archived IS NOT NULL))"
)
_OF_PREFIX = "(?1 = '' OR substr(stream, 1, length(?1)) = ?1)"
_KEEP = """
INSERT INTO tidings_snapshot (stream, decider, state_version, stream_version, time, state)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (stream, decider) DO UPDATE SET state_version = excluded.state_version,
       stream_version = excluded.stream_version, time = excluded.time, state = excluded.state
 WHERE excluded.state_version <> state_version OR excluded.stream_version > stream_version
"""


class StreamStatements(Speaker):
    """Part of SqliteStatements."""

    async def move_head(self, stream: str, expected: int | None, count: int) -> int | None:
        """Move a stream's head on, if it is at `expected` (0: there is none; None: any) and not archived."""
        if expected is None:
            rows = self._db.rows(_MOVE_ANY, (stream, count))
        elif expected == 0:
            rows = self._db.rows(_BEGIN, (stream, count))
        else:
            rows = self._db.rows(_MOVE, (stream, count, expected))
        return int(rows[0][0]) if rows else None

    async def stream_head(self, stream: str) -> StreamHead | None:
        """Return how far a stream goes, None if there is none."""
        rows = self._db.rows("SELECT stream, version, archived FROM tidings_stream WHERE stream = ?1", (stream,))
        return StreamHead(*rows[0]) if rows else None

    async def stream_heads(self, prefix: str, after: str, limit: int, *, archived: bool) -> list[StreamHead]:
        """Return the streams whose names begin with `prefix` and come after a name, in order of name."""
        which = "" if archived else "AND archived IS NULL "
        sql = (
            "SELECT stream, version, archived FROM tidings_stream WHERE stream > ?2 AND stream >= ?1 "
            f"AND {_OF_PREFIX} {which}ORDER BY stream LIMIT ?3"
        )
        return [StreamHead(*row) for row in self._db.rows(sql, (prefix, after, limit))]

    async def archive_stream(self, stream: str, at: int | None) -> bool:
        """Archive a stream (`at` is the time), or bring it back (None); False if there is no such stream."""
        return self._db.run("UPDATE tidings_stream SET archived = ?2 WHERE stream = ?1", (stream, at)) > 0

    async def stream_events(
        self, stream: str, after: int, before: int, since: int, limit: int, *, backward: bool, archived: bool
    ) -> list[RecordedRow]:
        """Read the events of a stream between two versions (both left out), not older than a time (microseconds)."""
        which = "" if archived else f"AND {_NOT_ARCHIVED} "
        sql = (
            f"SELECT {RECORDED_COLUMNS} FROM tidings_log WHERE stream = ?1 AND stream_version > ?2 AND "
            f"stream_version < ?3 AND time >= ?4 {which}ORDER BY stream_version {'DESC' if backward else ''} LIMIT ?5"
        )
        return list(self._db.rows(sql, (stream, after, before, since, limit)))

    async def events_of_streams(
        self, after: int, prefix: str, limit: int, *, archived: bool
    ) -> tuple[list[RecordedRow], int]:
        """Read the events of streams after a position, and say up to which all of them were looked at."""
        last = min(await self._newest(), after + WINDOW)
        if last <= after:
            return [], after
        rows = self._some(prefix, after, last, limit, "ASC", archived=archived)
        return rows, rows[-1][0] if len(rows) == limit else last

    async def events_of_streams_back(
        self, before: int | None, prefix: str, limit: int, *, archived: bool
    ) -> tuple[list[RecordedRow], int]:
        """Read the events of streams before a position (None: the newest on), the last one first."""
        last = await self._newest() if before is None else before - 1
        after = max(0, last - WINDOW)
        rows = self._some(prefix, after, last, limit, "DESC", archived=archived)
        return rows, rows[-1][0] if len(rows) == limit else after + 1

    async def _newest(self) -> int:
        return int(self._db.rows("SELECT ifnull(max(position), 0) FROM tidings_log")[0][0])

    def _some(self, prefix: str, after: int, last: int, limit: int, order: str, *, archived: bool) -> list[RecordedRow]:
        which = "" if archived else f"AND {_NONE_ARCHIVED} "
        sql = (
            f"SELECT {RECORDED_COLUMNS} FROM tidings_log WHERE position > ?2 AND position <= ?3 AND stream IS NOT NULL "
            f"AND {_OF_PREFIX} {which}ORDER BY position {order} LIMIT ?4"
        )
        return list(self._db.rows(sql, (prefix, after, last, limit)))

    async def snapshot_of(self, stream: str, decider: str) -> SnapshotRow | None:
        """Return the state that a decider kept of a stream."""
        sql = (
            "SELECT stream, decider, state_version, stream_version, time, state FROM tidings_snapshot "
            "WHERE stream = ?1 AND decider = ?2"
        )
        rows = self._db.rows(sql, (stream, decider))
        return SnapshotRow(*rows[0]) if rows else None

    async def keep_snapshot(self, row: SnapshotRow) -> None:
        """Keep a state in place of an older one, or of one that another version of its class wrote."""
        values = (row.stream, row.decider, row.state_version, row.stream_version, row.time, row.state)
        self._db.run(_KEEP, values)
