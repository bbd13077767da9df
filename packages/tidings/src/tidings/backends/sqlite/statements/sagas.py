"""Statements on sagas."""

from collections.abc import Sequence

from tidings.backends.sqlite.statements.rows import Speaker, marks
from tidings.columns import SAGA_COLUMNS, needed, saga, saga_row
from tidings.rows import SagaRow
from tidings.store import SAGA_CHANGED

_COUNT = len(SAGA_COLUMNS.split(","))
_UPDATE = (
    "UPDATE tidings_saga SET status = ?3, version = ?4, state_version = ?5, state = ?6, needs = ?7, timers = ?8, "
    "journal = ?9, reason = ?10, started = ?11, updated = ?12, expires = ?13 WHERE saga = ?1 AND id = ?2 AND "
    "version = ?4 - 1"
)
_INSERT = f"INSERT INTO tidings_saga ({SAGA_COLUMNS}) VALUES ({marks(_COUNT)}) ON CONFLICT DO NOTHING"


class SagaStatements(Speaker):
    """Part of SqliteStatements."""

    async def load_saga(self, saga_name: str, saga_id: str) -> SagaRow | None:
        """Return a saga as it is now, None if none has begun."""
        sql = f"SELECT {SAGA_COLUMNS} FROM tidings_saga WHERE saga = ?1 AND id = ?2"
        rows = self._db.rows(sql, (saga_name, saga_id))
        return saga(rows[0]) if rows else None

    async def save_saga(self, row: SagaRow) -> bool:
        """Write a saga in the version after the one that the store has; False if the store has another."""
        self.touched.add(SAGA_CHANGED)
        return bool(self._db.run(_INSERT if row.version == 1 else _UPDATE, saga_row(row)))

    async def sagas(
        self, saga_name: str | None, statuses: Sequence[str], after: tuple[str, str], limit: int
    ) -> list[SagaRow]:
        """Return sagas in some states, in order of name and id, after one of them; of one name or of all."""
        rows = self._db.rows(
            f"SELECT {SAGA_COLUMNS} FROM tidings_saga WHERE (?1 IS NULL OR saga = ?1) AND (saga, id) > (?2, ?3) "
            f"AND status IN ({marks(len(statuses), 5)}) ORDER BY saga, id LIMIT ?4",
            (saga_name, *after, limit, *statuses),
        )
        return [saga(row) for row in rows]

    async def saga_counts(self) -> dict[tuple[str, str], int]:
        """Return how many sagas of each name are in each state."""
        rows = self._db.rows("SELECT saga, status, count(*) FROM tidings_saga GROUP BY saga, status")
        return {(row[0], row[1]): row[2] for row in rows}

    async def saga_needs(self, saga_name: str) -> list[tuple[tuple[str, ...], int]]:
        """Return what the unfinished sagas of a name need of the code, each once, and how many need it."""
        sql = "SELECT needs, count(*) FROM tidings_saga WHERE saga = ?1 AND expires IS NULL GROUP BY needs"
        return [(needed(row[0]), row[1]) for row in self._db.rows(sql, (saga_name,))]

    async def forget_sagas(self, now: int, limit: int) -> int:
        """Forget finished sagas that have expired; return how many."""
        sql = "SELECT rowid FROM tidings_saga WHERE expires <= ?1 ORDER BY expires LIMIT ?2"
        return self._db.run(f"DELETE FROM tidings_saga WHERE rowid IN ({sql})", (now, limit))
