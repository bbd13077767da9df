"""Statements on subscriptions, workers and the progress chain."""

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from tidings.backends.sqlite.statements.rows import Speaker, marks
from tidings.rows import LaneStep, SubscriptionRow, WorkerRow
from tidings.store import PROGRESS_CHANGED, SUBSCRIPTION_CHANGED

_SUBSCRIPTION = "name, service, kind, ordered, types, start, version, paused_by, paused_because"
_WORKER = "id, service, host, pid, started, expires, roles"
_OWNED_BY_SUBSCRIPTION = ("tidings_progress", "tidings_ready", "tidings_held")

STEPS_KEPT = 64
"""Old steps of a lane are deleted in chunks of this size."""

_FORGET_STEPS = "DELETE FROM tidings_progress WHERE subscription = ?1 AND lane = ?2 AND step < ?3"


@lru_cache
def _advance(steps: int) -> str:
    """Return the statement that inserts so many steps, at half the time of as many statements."""
    values = ", ".join(f"({marks(4, 2 + 4 * number)})" for number in range(steps))
    return (
        "INSERT INTO tidings_progress (subscription, lane, step, position, owner) "
        f"SELECT ?1, column1, column2, column3, column4 FROM (VALUES {values}) WHERE column2 - 1 = "
        "(SELECT max(step) FROM tidings_progress WHERE subscription = ?1 AND lane = column1)"
    )


class ProgressStatements(Speaker):
    """Part of SqliteStatements."""

    async def registering(self) -> None:
        """Nothing: a SQLite file has one writer at a time."""

    async def register(self, row: SubscriptionRow) -> None:
        """Write a subscription. The first time, its lanes begin at `start`; later, only what it declares changes."""
        new = not self._db.rows("SELECT 1 FROM tidings_subscription WHERE name = ?1", (row.name,))
        version = max(row.version, self._last_version(row.name) + 1)
        self._db.run(
            f"INSERT INTO tidings_subscription ({_SUBSCRIPTION}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) "
            "ON CONFLICT (name) DO UPDATE SET service = ?2, kind = ?3, ordered = ?4, types = ?5",
            (
                row.name,
                row.service,
                row.kind,
                row.ordered,
                msgspec.json.encode(row.types).decode(),
                row.start,
                version,
                row.paused_by,
                row.paused_because,
            ),
        )
        if new:
            # Of a name that came again: no step of its old chain, which a worker may still carry, fits the new one.
            first = (version - 1) << 32
            self._db.many(
                "INSERT INTO tidings_progress (subscription, lane, step, position, owner) "
                "VALUES (?1, ?2, ?3, ?4, NULL)",
                [(row.name, lane, first, row.start) for lane in range(self._lanes)],
            )
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def subscriptions(self, *, steady: bool = False) -> list[SubscriptionRow]:
        """Return every subscription on this log. `steady`: nobody registers until this transaction has ended."""
        rows = self._db.rows(f"SELECT {_SUBSCRIPTION} FROM tidings_subscription ORDER BY name")
        return [
            SubscriptionRow(
                row[0], row[1], row[2], bool(row[3]), tuple(msgspec.json.decode(row[4])), row[5], row[6], row[7], row[8]
            )
            for row in rows
        ]

    async def fence(self, subscription: str) -> None:
        """Insert a step that moves nothing in every lane: whoever owns one must take it anew before it commits."""
        self._db.run(
            "INSERT INTO tidings_progress (subscription, lane, step, position, owner) SELECT subscription, lane, "
            "max(step) + 1, position, owner FROM tidings_progress WHERE subscription = ?1 GROUP BY lane",
            (subscription,),
        )
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def rename(self, old: str, new: str) -> None:
        """Give a subscription another name; its progress and exceptions go with it."""
        self._keep_version(old)
        sql = "UPDATE tidings_subscription SET name = ?2, version = max(version, ?3) WHERE name = ?1"
        self._db.run(sql, (old, new, self._last_version(new) + 1))
        for table in _OWNED_BY_SUBSCRIPTION:
            self._db.run(f"UPDATE {table} SET subscription = ?2 WHERE subscription = ?1", (old, new))
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def forget(self, name: str) -> None:
        """Remove a subscription with its progress and exceptions."""
        self._keep_version(name)
        self._db.run("DELETE FROM tidings_subscription WHERE name = ?1", (name,))
        for table in _OWNED_BY_SUBSCRIPTION:
            self._db.run(f"DELETE FROM {table} WHERE subscription = ?1", (name,))
        self.touched.add(SUBSCRIPTION_CHANGED)

    def _keep_version(self, name: str) -> None:
        """Remember the version of a subscription whose name becomes free: what it published has ids of it."""
        self._db.run(
            "INSERT OR REPLACE INTO tidings_meta (name, value) SELECT 'version:' || name, version "
            "FROM tidings_subscription WHERE name = ?1",
            (name,),
        )

    def _last_version(self, name: str) -> int:
        rows = self._db.rows("SELECT value FROM tidings_meta WHERE name = ?1", (f"version:{name}",))
        return int(rows[0][0]) if rows else 0

    async def pause(self, name: str, actor: str | None, reason: str | None) -> bool:
        """Pause a subscription in somebody's name, or resume it (no actor); say whether there is such a one."""
        self.touched.add(SUBSCRIPTION_CHANGED)
        sql = "UPDATE tidings_subscription SET paused_by = ?2, paused_because = ?3 WHERE name = ?1"
        return bool(self._db.run(sql, (name, actor, reason)))

    async def beat(self, row: WorkerRow, now: int) -> None:
        """Write a worker's heartbeat. All processes of a file share one clock, so `now` is that of its row."""
        if self._db.run("UPDATE tidings_worker SET expires = ?2 WHERE id = ?1", (row.id, row.expires)):
            return
        self._db.run(
            f"INSERT INTO tidings_worker ({_WORKER}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (row.id, row.service, row.host, row.pid, row.started, row.expires, "\n".join(row.roles)),
        )
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def workers(self) -> list[WorkerRow]:
        """Return every worker that has not retired, the dead included."""
        rows = self._db.rows(f"SELECT {_WORKER} FROM tidings_worker ORDER BY id")
        return [
            WorkerRow(row[0], row[1], row[2], row[3], row[4], row[5], tuple(row[6].split("\n")) if row[6] else ())
            for row in rows
        ]

    async def retire(self, worker: str) -> None:
        """Remove a worker."""
        self._db.run("DELETE FROM tidings_worker WHERE id = ?1", (worker,))
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def steps(self, subscription: str) -> list[LaneStep]:
        """Return the newest step of each lane."""
        # SQLite takes the bare columns from the row that holds the maximum.
        rows = self._db.rows(
            "SELECT lane, max(step), position, owner FROM tidings_progress WHERE subscription = ?1 GROUP BY lane",
            (subscription,),
        )
        return [LaneStep(*row) for row in rows]

    async def advance(self, subscription: str, steps: Sequence[LaneStep]) -> bool:
        """Insert the lanes' next steps; False if one has another owner: then nothing of this may commit."""
        if not steps:
            return True
        values = [value for step in steps for value in (step.lane, step.step, step.position, step.owner)]
        inserted = self._db.run(_advance(len(steps)), (subscription, *values))
        self.touched.add(PROGRESS_CHANGED)
        if any(step.owner is None for step in steps):
            self.touched.add(SUBSCRIPTION_CHANGED)  # a lane is free
        for step in steps:
            if step.step % STEPS_KEPT == 0:
                self._db.run(_FORGET_STEPS, (subscription, step.lane, step.step))
        return inserted == len(steps)

    async def floors(self) -> dict[str, int]:
        """Return for each subscription the position up to which it needs no event but those of its dead letters."""
        # What is written of a lane without matching events may lag: the first event that is pending counts.
        rows = self._db.rows(
            "WITH newest AS (SELECT subscription, lane, max(step), position FROM tidings_progress "
            "GROUP BY subscription, lane) SELECT s.name, min("
            "ifnull((SELECT l.position - 1 FROM tidings_log l CROSS JOIN newest n "
            "  WHERE n.subscription = s.name AND n.lane = l.lane AND l.position > n.position "
            "  AND l.position > (SELECT min(position) FROM newest WHERE subscription = s.name) "
            "  AND (s.kind = 'relay' OR l.type IN (SELECT value FROM json_each(s.types))) "
            "  ORDER BY l.position LIMIT 1), (SELECT ifnull(max(position), 0) FROM tidings_log)),"
            "ifnull((SELECT min(position) - 1 FROM tidings_ready WHERE subscription = s.name), 9223372036854775807),"
            "ifnull((SELECT min(position) - 1 FROM tidings_held WHERE subscription = s.name "
            "  AND state IN ('retry', 'behind')), 9223372036854775807)"
            ") FROM tidings_subscription s"
        )
        return {row[0]: row[1] for row in rows}

    async def pending(self, subscription: str, types: Sequence[str] | None) -> tuple[int, int | None]:
        """Return how many events a subscription has not reached yet, and the time of the oldest (microseconds)."""
        of_types = "" if types is None else f"AND log.type IN ({marks(len(types), 2)})"
        rows = self._db.rows(
            "WITH newest AS (SELECT lane, max(step), position FROM tidings_progress WHERE subscription = ?1 "
            "GROUP BY lane) SELECT count(*), min(log.time) FROM tidings_log log JOIN newest USING (lane) "
            "WHERE log.position > (SELECT min(position) FROM newest) AND log.position > newest.position "
            f"{of_types}",
            (subscription, *(types or ())),
        )
        return rows[0][0], rows[0][1]
