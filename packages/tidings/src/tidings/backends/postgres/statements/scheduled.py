"""Statements on what is not an event yet."""

from collections.abc import Sequence
from typing import Any

from tidings.backends.postgres.statements.speaker import Speaker
from tidings.columns import pack_envelope, unpack_envelope
from tidings.rows import Scheduled
from tidings.store import SCHEDULED_CHANGED


class ScheduledStatements(Speaker):
    """Part of PostgresStatements."""

    async def schedule(self, rows: Sequence[Scheduled]) -> None:
        """Keep publishes until they are due. What is already kept under its source and id stays as it is."""
        await self._db.run(
            "INSERT INTO tidings.scheduled (source, id, due, envelope) SELECT * FROM "
            "unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[]) ON CONFLICT DO NOTHING",
            [row.envelope.source for row in rows],
            [row.envelope.id for row in rows],
            [row.due for row in rows],
            [pack_envelope(row.envelope) for row in rows],
        )
        self.touched.add(SCHEDULED_CHANGED)

    async def cancel(self, source: str, event_id: str) -> bool:
        """Forget a scheduled publish; False if it has become an event, or never was scheduled."""
        sql = "DELETE FROM tidings.scheduled WHERE id = $1 AND source = $2"
        return bool(await self._db.run(sql, event_id, source))

    async def fire(self, now: int, limit: int) -> list[Scheduled]:
        """Take away and return what is due, the earliest first. What another process takes now is passed over."""
        rows = await self._db.rows(
            "DELETE FROM tidings.scheduled WHERE (id, source) IN (SELECT id, source FROM tidings.scheduled "
            "WHERE due <= $1 ORDER BY due, id, source LIMIT $2 FOR UPDATE SKIP LOCKED) "
            "RETURNING due, envelope, id, source",
            now,
            limit,
        )
        if rows:
            self.touched.add(SCHEDULED_CHANGED)
        return [_scheduled(row) for row in sorted(rows, key=lambda row: (row[0], row[2], row[3]))]

    async def next_scheduled(self) -> int | None:
        """Return when the next one is due (microseconds)."""
        due: int | None = (await self._db.rows("SELECT min(due) FROM tidings.scheduled"))[0][0]
        return due

    async def scheduled(self, event_id: str) -> list[Scheduled]:
        """Return the scheduled publishes with an id: at most one for each source."""
        sql = "SELECT due, envelope FROM tidings.scheduled WHERE id = $1 ORDER BY source"
        return [_scheduled(row) for row in await self._db.rows(sql, event_id)]

    async def all_scheduled(self, limit: int) -> list[Scheduled]:
        """Return what is scheduled, the earliest first."""
        sql = "SELECT due, envelope FROM tidings.scheduled ORDER BY due, id LIMIT $1"
        return [_scheduled(row) for row in await self._db.rows(sql, limit)]


def _scheduled(row: Any) -> Scheduled:
    envelope = unpack_envelope(row[1])
    assert envelope is not None  # the column is NOT NULL
    return Scheduled(row[0], envelope)
