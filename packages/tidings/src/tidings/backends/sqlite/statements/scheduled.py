"""Statements on what is not an event yet."""

from collections.abc import Sequence
from typing import Any

from tidings.backends.sqlite.statements.rows import Speaker
from tidings.columns import pack_envelope, unpack_envelope
from tidings.store import SCHEDULED_CHANGED, Scheduled


class ScheduledStatements(Speaker):
    """Part of SqliteStatements."""

    async def schedule(self, rows: Sequence[Scheduled]) -> None:
        """Keep publishes until they are due. An id that is already kept stays as it is."""
        self._db.many(
            "INSERT INTO tidings_scheduled (id, due, envelope) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            [(row.envelope.id, row.due, pack_envelope(row.envelope)) for row in rows],
        )
        self.touched.add(SCHEDULED_CHANGED)

    async def cancel(self, event_id: str) -> bool:
        """Forget a scheduled publish; False if it has become an event, or never was scheduled."""
        return bool(self._db.run("DELETE FROM tidings_scheduled WHERE id = ?1", (event_id,)))

    async def fire(self, now: int, limit: int) -> list[Scheduled]:
        """Take away and return what is due, the earliest first."""
        rows = self._db.rows(
            "SELECT due, envelope, id FROM tidings_scheduled WHERE due <= ?1 ORDER BY due, id LIMIT ?2", (now, limit)
        )
        self._db.many("DELETE FROM tidings_scheduled WHERE id = ?1", [(row[2],) for row in rows])
        if rows:
            self.touched.add(SCHEDULED_CHANGED)
        return [_scheduled(row) for row in rows]

    async def next_scheduled(self) -> int | None:
        """Return when the next one is due (microseconds)."""
        due: int | None = self._db.rows("SELECT min(due) FROM tidings_scheduled")[0][0]
        return due

    async def scheduled(self, event_id: str) -> Scheduled | None:
        """Return a scheduled publish by its id."""
        rows = self._db.rows("SELECT due, envelope FROM tidings_scheduled WHERE id = ?1", (event_id,))
        return _scheduled(rows[0]) if rows else None

    async def all_scheduled(self, limit: int) -> list[Scheduled]:
        """Return what is scheduled, the earliest first."""
        rows = self._db.rows("SELECT due, envelope FROM tidings_scheduled ORDER BY due, id LIMIT ?1", (limit,))
        return [_scheduled(row) for row in rows]


def _scheduled(row: tuple[Any, ...]) -> Scheduled:
    envelope = unpack_envelope(row[1])
    assert envelope is not None  # the column is NOT NULL
    return Scheduled(row[0], envelope)
