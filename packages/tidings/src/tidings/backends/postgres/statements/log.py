"""Statements on the log: append, admit, read behind the fence, find, drop."""

from collections.abc import Sequence
from functools import cache
from itertools import chain

from tidings.backends.postgres.driver import HeldSession
from tidings.backends.postgres.statements.speaker import Speaker
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

_TYPES = {"time": "bigint", "extensions": "bytea", "data": "bytea", "stream_version": "bigint"}
_ARRAYS = ", ".join(f"${n}::{_TYPES.get(name, 'text')}[]" for n, name in enumerate(ENVELOPE_NAMES, 2))
# WITH ORDINALITY and ORDER BY: positions are drawn in the order of the arrays.
_APPEND = (
    f"INSERT INTO tidings.log (lane, {ENVELOPE_COLUMNS}) SELECT lane, {ENVELOPE_COLUMNS} "
    f"FROM unnest($1::smallint[], {_ARRAYS}) WITH ORDINALITY AS row(lane, {ENVELOPE_COLUMNS}, ordinal) ORDER BY ordinal"
)
FEW = 16
"""So many events, and no more, are inserted by VALUES, each number by a statement of its own: planned once, it costs
the server 0.6 of `unnest` for one event, and the driver too. Of arrays of many there is one statement."""

MANY = 100
"""So many events, and more, are copied into the table: 0.67 of the time of arrays, of whose every value the driver asks
whether it is an array too."""


@cache
def _append_few(count: int) -> str:
    width = len(ENVELOPE_NAMES) + 1
    rows = [", ".join(f"${row * width + n}" for n in range(1, width + 1)) for row in range(count)]
    return f"INSERT INTO tidings.log (lane, {ENVELOPE_COLUMNS}) VALUES ({'), ('.join(rows)})"


@cache
def _append_few_and_notify(count: int) -> str:
    arguments = count * (len(ENVELOPE_NAMES) + 1)
    return f"WITH written AS ({_append_few(count)}) SELECT pg_notify(${arguments + 1}, ${arguments + 2})"


_VALUES = ", ".join(f"CAST(${n} AS {_TYPES.get(name, 'text')})" for n, name in enumerate(ENVELOPE_NAMES, 2))
APPEND_ONE = (
    f"INSERT INTO tidings.log (lane, {ENVELOPE_COLUMNS}) SELECT mod(CAST($1 AS bigint), "
    f"(SELECT CAST(value AS bigint) FROM tidings.meta WHERE name = 'lanes')), {_VALUES}"
)
"""One event, its lane reckoned by the database: for drivers that know nothing of the store."""

_RECORD = f"SELECT position, lane, {ENVELOPE_COLUMNS} FROM tidings.log"
_ADMIT = (
    "INSERT INTO tidings.admitted (time, source, id, arrived) SELECT *, $4::bigint FROM "
    "unnest($1::bigint[], $2::text[], $3::text[]) AS come(time, source, id) WHERE NOT EXISTS "
    "(SELECT FROM tidings.log l WHERE l.id = come.id AND l.source = come.source) "
    "ON CONFLICT DO NOTHING RETURNING source, id"
)

# Not DISTINCT over the log: a partition says which class it is of.
_KEEPS = """
SELECT substring(relname FROM '^log_keep_([0-9]+)$') AS keep FROM pg_inherits JOIN pg_class leaf ON leaf.oid = inhrelid
 WHERE inhparent = 'tidings.log'::regclass AND relname ~ '^log_keep_[0-9]+$'
UNION SELECT DISTINCT keep FROM tidings.log_other
UNION SELECT 'forever' WHERE EXISTS (SELECT FROM tidings.log_forever) ORDER BY keep
"""

WINDOW = 5000
"""Positions that one read looks at, at most."""


class LogStatements(Speaker):
    """Part of PostgresStatements."""

    async def append(self, envelopes: Sequence[Envelope], notice: tuple[str, str] | None = None) -> None:
        """Write events to the end of the log, in this order. `notice`: what a few shall tell others as they commit."""
        if not envelopes:
            return
        rows = [(lane_of(envelope, self._lanes), *envelope_row(envelope)) for envelope in envelopes]
        if notice is not None:
            await self._db.run(_append_few_and_notify(len(rows)), *chain.from_iterable(rows), *notice)
        elif len(rows) <= FEW:
            await self._db.run(_append_few(len(rows)), *chain.from_iterable(rows))
        elif len(rows) >= MANY and isinstance(self._db, HeldSession):
            await self._db.copy("log", ("lane", *ENVELOPE_NAMES), rows)
        else:
            # An array that is shorter is filled up with NULL: what no event has is sent as no array at all.
            columns = [() if column.count(None) == len(rows) else column for column in zip(*rows, strict=True)]
            await self._db.run(_APPEND, *columns)
        self.touched.update([envelope.type for envelope in envelopes])
        self.touched.add(LOG_CHANGED)

    async def admit(self, envelopes: Sequence[Envelope], *, undated_at: int | None = None) -> list[Envelope]:
        """Note that these have come; return those that had not come before.

        An envelope's time is part of its identity's partition, unless it is not the same on every copy: then
        `undated_at` says when these came.
        """
        # In a fixed order: two transactions that admit the same in different orders would wait for each other.
        unique = {(envelope.source, envelope.id): envelope for envelope in reversed(envelopes)}
        ordered = sorted(unique)
        times = [microseconds(unique[identity].time) if undated_at is None else 0 for identity in ordered]
        if not ordered:
            return []
        sources, ids = [one[0] for one in ordered], [one[1] for one in ordered]
        rows = await self._db.rows(_ADMIT, times, sources, ids, undated_at)
        fresh = {(row[0], row[1]) for row in rows}
        return [envelope for key, envelope in reversed(unique.items()) if key in fresh]

    async def read(self, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int) -> Page:
        """Read the events of some types (None: of every type) and lanes after a position, in order of position."""
        if self._fence.safe <= after and not self._locking:
            page = await self._read_without_gap(after, types, lanes, limit)
            if page is not None:
                return page
        last = min(await self._fence.look() if self._fence.safe <= after else self._fence.safe, after + WINDOW)
        if last <= after:
            return Page([], after)
        rows = await self._db.rows(
            f"{_RECORD} WHERE position > $1 AND position <= $2 AND ($4::text[] IS NULL OR type = ANY ($4)) "
            "AND ($5::smallint[] IS NULL OR lane = ANY ($5)) ORDER BY position LIMIT $3",
            after,
            last,
            limit,
            None if types is None else list(types),
            None if len(lanes) == self._lanes else list(lanes),
        )
        return Page([record(row) for row in rows], rows[-1][0] if len(rows) == limit else last)

    async def _read_without_gap(
        self, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int
    ) -> Page | None:
        """Read what follows the decided positions without a gap, in one round trip; None if there is nothing."""
        safe, history = self._fence.safe, self._fence.history
        rows = await self._db.rows(f"{_RECORD} WHERE position > $1 ORDER BY position LIMIT $2", safe, limit)
        last = self._fence.pass_on(safe, [row[0] for row in rows], history)
        if last <= after:
            return None
        wanted = None if types is None else frozenset(types)
        mine = frozenset(lanes)
        found = [
            row for row in rows if after < row[0] <= last and row[1] in mine and (wanted is None or row[2] in wanted)
        ]
        return Page([record(row) for row in found], last)

    async def records(self, positions: Sequence[int]) -> dict[int, Record]:
        """Return the events at some positions."""
        rows = await self._db.rows(f"{_RECORD} WHERE position = ANY ($1::bigint[])", list(positions))
        return {row[0]: record(row) for row in rows}

    async def find(self, event_id: str) -> list[Record]:
        """Return the events with an id: at most one for each source."""
        rows = await self._db.rows(f"{_RECORD} WHERE id = $1 ORDER BY position", event_id)
        return [record(row) for row in rows]

    async def caused_by(self, correlation: str) -> list[Record]:
        """Return every event that followed from a first one, which is not among them."""
        sql = f"{_RECORD} WHERE correlation = $1 AND causation IS NOT NULL ORDER BY position"
        return [record(row) for row in await self._db.rows(sql, correlation)]

    async def recent(self, after: int, limit: int) -> list[Record]:
        """Return events after a position, whatever their type."""
        safe = await self._fence.look()
        sql = f"{_RECORD} WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3"
        return [record(row) for row in await self._db.rows(sql, after, safe, limit)]

    async def head(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        return await self._fence.head()

    async def position_at(self, time: int) -> int:
        """Return the position after which events are not older than a time (microseconds)."""
        await self._fence.head()
        safe = self._fence.safe  # beyond it an older position may come yet, whatever the statement finds
        sql = "SELECT min(position) - 1 FROM tidings.log WHERE time >= $1"
        found = (await self._db.rows(sql, time))[0][0]
        return safe if found is None else min(int(found), safe)

    async def keeps(self) -> list[str]:
        """Return the retention classes that the log holds, or has a partition for."""
        return [row[0] for row in await self._db.rows(_KEEPS)]

    async def drop(self, keep: str, after: int, through: int, older_than: int) -> int:
        """Drop events of a retention class between two positions that are older than a time; return how many.

        What a subscription has not settled stays, whatever its age: a dead letter keeps its bytes.
        """
        return await self._db.run(
            "DELETE FROM tidings.log WHERE position > $2 AND position <= $3 AND keep = $1 AND time < $4 "
            "AND NOT EXISTS (SELECT FROM tidings.held h WHERE h.position = log.position AND h.state <> 'discarded') "
            "AND NOT EXISTS (SELECT FROM tidings.ready r WHERE r.position = log.position)",
            keep,
            after,
            through,
            older_than,
        )

    async def forget_admitted(self, before: int, limit: int) -> int:
        """Forget what was admitted with a time before one (microseconds), or without and before it; return how many."""
        return await self._db.run(
            "DELETE FROM tidings.admitted WHERE (time, source, id) IN (SELECT time, source, id FROM tidings.admitted "
            "WHERE (time > 0 AND time < $1) OR (time = 0 AND arrived < $1) LIMIT $2)",
            before,
            limit,
        )

    async def followed(self, log: str) -> Followed | None:
        """Return how far the log of another service was read, None if it never was."""
        rows = await self._db.rows("SELECT value FROM tidings.meta WHERE name = $1", f"{FOLLOWED}{log}")
        return followed_row(rows[0][0]) if rows else None

    async def followed_logs(self) -> dict[str, Followed]:
        """Return every log that was followed from here, by its place, and how far it was read."""
        rows = await self._db.rows("SELECT name, value FROM tidings.meta WHERE name LIKE $1", f"{FOLLOWED}%")
        return {row[0].removeprefix(FOLLOWED): followed_row(row[1]) for row in rows}

    async def follow(self, log: str, before: Followed | None, after: Followed) -> bool:
        """Write how far a log was read, if it was at `before`; False if it was not: then nothing of this may commit."""
        name, value = f"{FOLLOWED}{log}", followed_value(after)
        if before is None:
            sql = "INSERT INTO tidings.meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING"
            return bool(await self._db.run(sql, name, value))
        sql = "UPDATE tidings.meta SET value = $2 WHERE name = $1 AND value = $3"
        return bool(await self._db.run(sql, name, value, followed_value(before)))

    async def horizon(self) -> int:
        """Return the longest horizon that a service has said (microseconds), 0 if none has."""
        sql = "SELECT coalesce(max(value::bigint), 0) FROM tidings.meta WHERE name LIKE 'horizon:%'"
        return int((await self._db.rows(sql))[0][0])
