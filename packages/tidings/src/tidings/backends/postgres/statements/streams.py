"""Statements on streams: heads, appends of a group, reading, snapshots."""

from collections.abc import Sequence
from typing import Any

from tidings.backends.postgres.statements.log import WINDOW
from tidings.backends.postgres.statements.speaker import Speaker
from tidings.columns import ENVELOPE_NAMES, RECORDED_COLUMNS, envelope_row, lane_of
from tidings.rows import Append, SnapshotRow, StreamHead
from tidings.statements import RecordedRow
from tidings.store import LOG_CHANGED

_APPEND_GROUP = f"SELECT tidings.append_to_streams({', '.join(f'${n}' for n in range(1, 23))})"
_APPEND_EVENT = f"SELECT tidings.append_event({', '.join(f'${n}' for n in range(1, 20))})"
_OF_LOG = len(ENVELOPE_NAMES) - 2
"""So many of an envelope's columns the caller says; the function finds out its stream and version there."""

_NOT_ARCHIVED = "NOT EXISTS (SELECT FROM tidings.stream WHERE stream = $1 AND archived IS NOT NULL)"
# Mostly none is, which one look at the index tells. Where some are, each event's stream is looked up: a join would sort
# a whole window for each page. Written as values, because NOT EXISTS becomes such a join, or reads all streams first.
_NONE_ARCHIVED = (
    "((SELECT stream FROM tidings.stream WHERE archived IS NOT NULL ORDER BY stream LIMIT 1) IS NULL "
    "OR (SELECT archived FROM tidings.stream s WHERE s.stream = log.stream AND s.archived IS NOT NULL) IS NULL)"
)
_KEEP = """
INSERT INTO tidings.snapshot AS s (stream, decider, state_version, stream_version, time, state)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (stream, decider) DO UPDATE SET state_version = excluded.state_version,
       stream_version = excluded.stream_version, time = excluded.time, state = excluded.state
 WHERE excluded.state_version <> s.state_version OR excluded.stream_version > s.stream_version
"""


class StreamStatements(Speaker):
    """Part of PostgresStatements."""

    async def append_to_streams(self, appends: Sequence[Append]) -> list[int | None]:
        """Append to streams, each of which comes once; return the version of each, None of a conflict.

        Raises StoreBusyError if another transaction has one of them for more than a moment.
        """
        if len(appends) == 1 and len(appends[0].envelopes) == 1:
            heads = [await self._append_event(appends[0])]
        else:
            heads = await self._append_group(appends)
        for append, head in zip(appends, heads, strict=True):
            if head is not None:
                self.touched.update([envelope.type for envelope in append.envelopes])
                self.touched.add(LOG_CHANGED)
        return heads

    async def _append_event(self, append: Append) -> int | None:
        envelope = append.envelopes[0]
        lane = lane_of(envelope, self._lanes)
        columns = envelope_row(envelope)[:_OF_LOG]
        head: int | None = (await self._db.rows(_APPEND_EVENT, append.stream, append.expected, lane, *columns))[0][0]
        return head

    async def _append_group(self, appends: Sequence[Append]) -> list[int | None]:
        ordered = sorted(range(len(appends)), key=lambda n: appends[n].stream)  # all lock them in this order
        some = [appends[n] for n in ordered]
        rows = [
            (place, nth, lane_of(envelope, self._lanes), *envelope_row(envelope)[:_OF_LOG])
            for place, append in enumerate(some, 1)
            for nth, envelope in enumerate(append.envelopes, 1)
        ]
        # An array that is shorter is filled up with NULL: what no event has is sent as no array at all.
        columns = [() if column.count(None) == len(rows) else column for column in zip(*rows, strict=True)]
        streams = [append.stream for append in some]
        expected = [append.expected for append in some]
        counts = [len(append.envelopes) for append in some]
        heads = (await self._db.rows(_APPEND_GROUP, streams, expected, counts, *columns))[0][0]
        by_place = dict(zip(ordered, heads, strict=True))
        return [by_place[n] for n in range(len(appends))]

    async def move_head(self, stream: str, expected: int | None, count: int) -> int | None:
        """Move a stream's head on, if it is at `expected` (0: there is none; None: any) and not archived."""
        head: int | None = (await self._db.rows("SELECT tidings.move_head($1, $2, $3)", stream, expected, count))[0][0]
        return head

    async def stream_head(self, stream: str) -> StreamHead | None:
        """Return how far a stream goes, None if there is none."""
        rows = await self._db.rows("SELECT stream, version, archived FROM tidings.stream WHERE stream = $1", stream)
        return StreamHead(*rows[0]) if rows else None

    async def stream_heads(self, prefix: str, after: str, limit: int, *, archived: bool) -> list[StreamHead]:
        """Return the streams whose names begin with `prefix` and come after a name, in order of name."""
        rows = await self._db.rows(
            "SELECT stream, version, archived FROM tidings.stream WHERE stream > $2 AND starts_with(stream, $1) "
            "AND ($4 OR archived IS NULL) ORDER BY stream LIMIT $3",
            prefix,
            after,
            limit,
            archived,
        )
        return [StreamHead(*row) for row in rows]

    async def archive_stream(self, stream: str, at: int | None) -> bool:
        """Archive a stream (`at` is the time), or bring it back (None); False if there is no such stream."""
        return await self._db.run("UPDATE tidings.stream SET archived = $2 WHERE stream = $1", stream, at) > 0

    async def stream_events(
        self, stream: str, after: int, before: int, since: int, limit: int, *, backward: bool, archived: bool
    ) -> Sequence[RecordedRow]:
        """Read the events of a stream between two versions (both left out), not older than a time (microseconds)."""
        which = "" if archived else f"AND {_NOT_ARCHIVED} "
        sql = (
            f"SELECT {RECORDED_COLUMNS} FROM tidings.log WHERE stream = $1 AND stream_version > $2 AND "
            f"stream_version < $3 AND time >= $4 {which}ORDER BY stream_version {'DESC' if backward else ''} LIMIT $5"
        )
        return await self._db.rows(sql, stream, after, before, since, limit)

    async def events_of_streams(
        self, after: int, prefix: str, limit: int, *, archived: bool
    ) -> tuple[Sequence[RecordedRow], int]:
        """Read the events of streams after a position, and say up to which all of them were looked at."""
        last = min(await self._fence.look() if self._fence.safe <= after else self._fence.safe, after + WINDOW)
        if last <= after:
            return [], after
        rows = await self._some(prefix, after, last, limit, "ASC", archived=archived)
        return rows, rows[-1][0] if len(rows) == limit else last

    async def events_of_streams_back(
        self, before: int | None, prefix: str, limit: int, *, archived: bool
    ) -> tuple[Sequence[RecordedRow], int]:
        """Read the events of streams before a position (None: the newest on), the last one first."""
        last = await self._fence.head() if before is None else before - 1
        after = max(0, last - WINDOW)
        rows = await self._some(prefix, after, last, limit, "DESC", archived=archived)
        return rows, rows[-1][0] if len(rows) == limit else after + 1

    async def _some(self, prefix: str, after: int, last: int, limit: int, order: str, *, archived: bool) -> list[Any]:
        which = "" if archived else f"AND {_NONE_ARCHIVED} "
        of_prefix, arguments = ("AND starts_with(stream, $4) ", (prefix,)) if prefix else ("", ())
        sql = (
            f"SELECT {RECORDED_COLUMNS} FROM tidings.log WHERE position > $1 AND position <= $2 AND stream IS NOT NULL "
            f"{of_prefix}{which}ORDER BY position {order} LIMIT $3"
        )
        return await self._db.rows(sql, after, last, limit, *arguments)

    async def snapshot_of(self, stream: str, decider: str) -> SnapshotRow | None:
        """Return the state that a decider kept of a stream."""
        sql = (
            "SELECT stream, decider, state_version, stream_version, time, state FROM tidings.snapshot "
            "WHERE stream = $1 AND decider = $2"
        )
        rows = await self._db.rows(sql, stream, decider)
        return SnapshotRow(*rows[0]) if rows else None

    async def keep_snapshot(self, row: SnapshotRow) -> None:
        """Keep a state in place of an older one, or of one that another version of its class wrote."""
        await self._db.run(_KEEP, row.stream, row.decider, row.state_version, row.stream_version, row.time, row.state)
