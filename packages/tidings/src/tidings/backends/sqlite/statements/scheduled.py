"""Statements on what is not an event yet."""

from collections.abc import Sequence
from typing import Any

from tidings.backends.sqlite.statements.rows import Speaker
from tidings.columns import pack_envelope, unpack_envelope
from tidings.rows import Scheduled
from tidings.store import SCHEDULED_CHANGED

_DELETE = "DELETE FROM tidings_scheduled WHERE id = ?1 AND source = ?2"


class ScheduledStatements(Speaker):
    """Part of SqliteStatements."""

    async def schedule(self, rows: Sequence[Scheduled]) -> None:
        """Keep publishes until they are due. What is already kept under its source and id stays as it is."""
        self._db.many(
            "INSERT INTO tidings_scheduled (source, id, due, envelope) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            [(row.envelope.source, row.envelope.id, row.due, pack_envelope(row.envelope)) for row in rows],
        )
        self.touched.add(SCHEDULED_CHANGED)

    async def cancel(self, source: str, event_id: str) -> bool:
        """Forget a scheduled publish; False if it has become an event, or never was scheduled."""
        return bool(self._db.run(_DELETE, (event_id, source)))

    async def fire(self, now: int, limit: int) -> list[Scheduled]:
        """Take away and return what is due, the earliest first."""
        rows = self._db.rows(
            "SELECT due, envelope, id, source FROM tidings_scheduled WHERE due <= ?1 ORDER BY due, id, source LIMIT ?2",
            (now, limit),
        )
        self._db.many(_DELETE, [row[2:] for row in rows])
        if rows:
            self.touched.add(SCHEDULED_CHANGED)
        return [_scheduled(row) for row in rows]

    async def next_scheduled(self) -> int | None:
        """Return when the next one is due (microseconds)."""
        due: int | None = self._db.rows("SELECT min(due) FROM tidings_scheduled")[0][0]
        return due

    async def scheduled(self, event_id: str) -> list[Scheduled]:
        """Return the scheduled publishes with an id: at most one for each source."""
        rows = self._db.rows("SELECT due, envelope FROM tidings_scheduled WHERE id = ?1 ORDER BY source", (event_id,))
        return [_scheduled(row) for row in rows]

    async def all_scheduled(self, limit: int) -> list[Scheduled]:
        """Return what is scheduled, the earliest first."""
        rows = self._db.rows("SELECT due, envelope FROM tidings_scheduled ORDER BY due, id LIMIT ?1", (limit,))
        return [_scheduled(row) for row in rows]


def _scheduled(row: tuple[Any, ...]) -> Scheduled:
    envelope = unpack_envelope(row[1])
    assert envelope is not None  # the column is NOT NULL
    return Scheduled(row[0], envelope)
