"""Statements on the log: append, admit, read, find, drop."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from tidings.backends.sqlite.statements.rows import Appended, Speaker, marks
from tidings.columns import (
    ENVELOPE_COLUMNS,
    ENVELOPE_NAMES,
    FOLLOWED,
    envelope_row,
    followed_row,
    followed_value,
    lane_of,
    record,
)
from tidings.events import Envelope
from tidings.rows import Followed, Page, Record
from tidings.store import LOG_CHANGED
from tidings.world import microseconds

_COLUMNS = ("lane", *ENVELOPE_NAMES)


@lru_cache(maxsize=64)
def _append(present: tuple[int, ...]) -> str:
    names = ", ".join(_COLUMNS[n] for n in present)
    return f"INSERT INTO tidings_log ({names}) VALUES ({marks(len(present))})"


APPEND_ONE = (
    f"INSERT INTO tidings_log (lane, {ENVELOPE_COLUMNS}) SELECT $1 % "
    f"(SELECT CAST(value AS INTEGER) FROM tidings_meta WHERE name = 'lanes'), "
    + ", ".join(f"${number}" for number in range(2, 2 + len(ENVELOPE_NAMES)))
)
"""One event, its lane reckoned by the database: for drivers that know nothing of the store."""

_RECORD = f"SELECT position, lane, {ENVELOPE_COLUMNS} FROM tidings_log"
# What is in the log already, under whatever time, has come before too: one id never means two facts.
_ADMIT = (
    "INSERT INTO tidings_admitted (time, source, id, arrived) SELECT ?1, ?2, ?3, ?4 "
    "WHERE NOT EXISTS (SELECT 1 FROM tidings_log WHERE id = ?3 AND source = ?2) ON CONFLICT DO NOTHING"
)

WINDOW = 5000
"""Positions that one read looks at, at most: about 1 ms when nothing of them matches."""

MOST_IN_MEMORY = 1 << 20
"""Bytes of data up to which the newest events are kept for whoever reads them next."""


def present(rows: Sequence[tuple[Any, ...]]) -> list[int]:
    """Return the places of what some row has: `sqlite3` takes longer to bind NULL than text, all of them a third."""
    return [n for n, column in enumerate(zip(*rows, strict=True)) if column.count(None) < len(rows)]


class LogStatements(Speaker):
    """Part of SqliteStatements."""

    async def append(self, envelopes: Sequence[Envelope]) -> None:
        """Write events to the end of the log, in this order."""
        if not envelopes:
            return
        lanes = self._lanes
        rows = [(lane_of(envelope, lanes), *envelope_row(envelope)) for envelope in envelopes]
        columns = present(rows)
        self._db.many(_append(tuple(columns)), map(itemgetter(*columns), rows))
        last = self._db.rows("SELECT last_insert_rowid()")[0][0]
        small = sum([len(envelope.data) for envelope in envelopes]) <= MOST_IN_MEMORY
        self.appended = Appended(last + 1 - len(envelopes), tuple(envelopes)) if small else None
        self.touched.update([envelope.type for envelope in envelopes])
        self.touched.add(LOG_CHANGED)

    async def admit(self, envelopes: Sequence[Envelope], *, undated_at: int | None = None) -> list[Envelope]:
        """Note that these have come; return those that had not come before.

        An envelope's time is part of its identity's partition, unless it is not the same on every copy: then
        `undated_at` says when these came.
        """
        fresh = []
        for envelope in envelopes:
            time = microseconds(envelope.time) if undated_at is None else 0
            if self._db.run(_ADMIT, (time, envelope.source, envelope.id, undated_at)):
                fresh.append(envelope)
        return fresh

    async def read(self, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int) -> Page:
        """Read the events of some types (None: of every type) and lanes after a position, in order of position."""
        # A snapshot may be older than the tail.
        if self.tail is not None and self.tail.follows(after) and not self._db.in_transaction:
            return self._read_tail(self.tail, after, types, lanes, limit)
        in_lanes = "" if len(lanes) == self._lanes else f" AND lane IN ({', '.join(map(str, lanes))})"
        of_types = "" if types is None else f" AND type IN ({marks(len(types), 4)})"
        sql = f"{_RECORD} WHERE position > ?1 AND position <= ?2{of_types}{in_lanes} ORDER BY position LIMIT ?3"
        last = after + WINDOW
        rows = self._db.rows(sql, (after, last, limit, *(types or ())))
        if not rows:
            # Only below a head read beforehand does finding nothing mean that there is nothing.
            last = min(await self.head(), last)
            if last <= after:
                return Page([], after)
            rows = self._db.rows(sql, (after, last, limit, *(types or ())))
        return Page([record(row) for row in rows], rows[-1][0] if rows else last)

    def _read_tail(
        self, tail: Appended, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int
    ) -> Page:
        """Do what `read` does, from memory: a third of the time from commit to handler was reading a row back."""
        records: list[Record] = []
        position = after
        for position, envelope in enumerate(tail.envelopes[after + 1 - tail.first :], after + 1):
            if types is None or envelope.type in types:
                lane = lane_of(envelope, self._lanes)
                if lane in lanes:
                    records.append(Record(position, lane, envelope))
                    if len(records) == limit:
                        break
        return Page(records, position)

    async def records(self, positions: Sequence[int]) -> dict[int, Record]:
        """Return the events at some positions."""
        found: dict[int, Record] = {}
        for start in range(0, len(positions), 200):
            some = positions[start : start + 200]
            for row in self._db.rows(f"{_RECORD} WHERE position IN ({marks(len(some))})", tuple(some)):
                found[row[0]] = record(row)
        return found

    async def find(self, event_id: str) -> list[Record]:
        """Return the events with an id: at most one for each source."""
        return [record(row) for row in self._db.rows(f"{_RECORD} WHERE id = ?1 ORDER BY position", (event_id,))]

    async def caused_by(self, correlation: str) -> list[Record]:
        """Return every event that followed from a first one, which is not among them."""
        sql = f"{_RECORD} WHERE correlation = ?1 AND causation IS NOT NULL ORDER BY position"
        return [record(row) for row in self._db.rows(sql, (correlation,))]

    async def recent(self, after: int, limit: int) -> list[Record]:
        """Return events after a position, whatever their type."""
        sql = f"{_RECORD} WHERE position > ?1 ORDER BY position LIMIT ?2"
        return [record(row) for row in self._db.rows(sql, (after, limit))]

    async def head(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        return int(self._db.rows("SELECT ifnull(max(position), 0) FROM tidings_log")[0][0])

    async def position_at(self, time: int) -> int:
        """Return the position after which events are not older than a time (microseconds)."""
        sql = "SELECT position - 1 FROM tidings_log WHERE time >= ?1 ORDER BY position LIMIT 1"
        rows = self._db.rows(sql, (time,))
        return int(rows[0][0]) if rows else await self.head()

    async def keeps(self) -> list[str]:
        """Return the retention classes that the log holds."""
        return [row[0] for row in self._db.rows("SELECT DISTINCT keep FROM tidings_log ORDER BY keep")]

    async def drop(self, keep: str, after: int, through: int, older_than: int) -> int:
        """Drop events of a retention class between two positions that are older than a time; return how many.

        What a subscription has not settled stays, whatever its age: a dead letter keeps its bytes.
        """
        return self._db.run(
            "DELETE FROM tidings_log WHERE position > ?2 AND position <= ?3 AND keep = ?1 AND time < ?4 "
            "AND position NOT IN (SELECT position FROM tidings_held WHERE state <> 'discarded') "
            "AND position NOT IN (SELECT position FROM tidings_ready)",
            (keep, after, through, older_than),
        )

    async def forget_admitted(self, before: int, limit: int) -> int:
        """Forget what was admitted with a time before one (microseconds), or without and before it; return how many."""
        return sum(
            self._db.run(
                "DELETE FROM tidings_admitted WHERE (time, source, id) IN (SELECT time, source, id "
                f"FROM tidings_admitted WHERE {old} LIMIT ?2)",
                (before, limit),
            )
            for old in ("time > 0 AND time < ?1", "time = 0 AND arrived < ?1")
        )

    async def followed(self, log: str) -> Followed | None:
        """Return how far the log of another service was read, None if it never was."""
        rows = self._db.rows("SELECT value FROM tidings_meta WHERE name = ?1", (f"{FOLLOWED}{log}",))
        return followed_row(rows[0][0]) if rows else None

    async def followed_logs(self) -> dict[str, Followed]:
        """Return every log that was followed from here, by its place, and how far it was read."""
        rows = self._db.rows("SELECT name, value FROM tidings_meta WHERE name LIKE ?1", (f"{FOLLOWED}%",))
        return {row[0].removeprefix(FOLLOWED): followed_row(row[1]) for row in rows}

    async def follow(self, log: str, before: Followed | None, after: Followed) -> bool:
        """Write how far a log was read, if it was at `before`; False if it was not: then nothing of this may commit."""
        name, value = f"{FOLLOWED}{log}", followed_value(after)
        if before is None:
            sql = "INSERT INTO tidings_meta (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING"
            return bool(self._db.run(sql, (name, value)))
        sql = "UPDATE tidings_meta SET value = ?2 WHERE name = ?1 AND value = ?3"
        return bool(self._db.run(sql, (name, value, followed_value(before))))

    async def horizon(self) -> int:
        """Return the longest horizon that a service has said (microseconds), 0 if none has."""
        sql = "SELECT ifnull(max(CAST(value AS INTEGER)), 0) FROM tidings_meta WHERE name LIKE 'horizon:%'"
        return int(self._db.rows(sql)[0][0])


def types_of(values: Iterable[str]) -> tuple[str, ...]:
    """Return event types in a fixed order, so that the same statement is prepared once."""
    return tuple(sorted(set(values)))
