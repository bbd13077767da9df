"""Statements on subscriptions, workers and the progress chain."""

from collections.abc import Sequence

from tidings.backends.postgres.statements.speaker import Speaker
from tidings.rows import LaneStep, SubscriptionRow, WorkerRow
from tidings.store import PROGRESS_CHANGED, SUBSCRIPTION_CHANGED

_SUBSCRIPTION = "name, service, kind, ordered, types, start, version, paused_by, paused_because"
_OWNED_BY_SUBSCRIPTION = ("tidings.progress", "tidings.ready", "tidings.held")

# Of a name that came again: no step of its old chain, which a worker may still carry in memory, fits the new one.
_FIRST_STEP = "(SELECT (version::bigint - 1) << 32 FROM tidings.subscription WHERE name = $1)"
# The newest step must be the one before: a chain that another owner has carried on refuses, also where old steps are
# gone. Of two that insert the same step at once the second waits for the first, then inserts nothing.
_ADVANCE = """
INSERT INTO tidings.progress (subscription, lane, step, position, owner)
SELECT $1, next.lane, next.step, next.position, next.owner
  FROM unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::text[]) AS next(lane, step, position, owner)
 WHERE (SELECT max(step) FROM tidings.progress p WHERE p.subscription = $1 AND p.lane = next.lane) = next.step - 1
ON CONFLICT DO NOTHING
"""
# Each lane's newest by the index: under an old snapshot there may be millions of deleted steps below.
NEWEST = """
SELECT newest.*
  FROM generate_series(0, (SELECT CAST(value AS integer) - 1 FROM tidings.meta WHERE name = 'lanes')) AS number
 CROSS JOIN LATERAL (
  SELECT lane, step, position, owner FROM tidings.progress
   WHERE subscription = $1 AND lane = number ORDER BY step DESC LIMIT 1) AS newest
 ORDER BY newest.lane
"""
# Lane by lane (OFFSET 0 keeps it so), each by its own range of the index: as a join it was planned as one walk over all
# steps of the subscription, and under an old snapshot those that were deleted are among them.
_FORGET_STEPS = """
DELETE FROM tidings.progress WHERE ctid = ANY (ARRAY(
  SELECT old.ctid FROM unnest($2::smallint[], $3::bigint[]) AS newest(lane, step)
   CROSS JOIN LATERAL (
    SELECT p.ctid FROM tidings.progress p
     WHERE p.subscription = $1 AND p.lane = newest.lane AND p.step < newest.step AND p.step >= newest.step - $4
    OFFSET 0) AS old))
"""
_FENCE_LANES = """
INSERT INTO tidings.progress (subscription, lane, step, position, owner)
SELECT $1, newest.lane, newest.step + 1, newest.position, newest.owner FROM unnest($2::smallint[]) AS number
 CROSS JOIN LATERAL (
  SELECT lane, step, position, owner FROM tidings.progress
   WHERE subscription = $1 AND lane = number ORDER BY step DESC LIMIT 1) AS newest
 ORDER BY newest.lane
ON CONFLICT DO NOTHING RETURNING lane
"""

# What is written of a lane without matching events may lag, for ever if no worker runs: the first event that is pending
# counts, as far as it is looked for.
_FLOORS = """
SELECT s.name, least(
    coalesce(
      (SELECT l.position - 1 FROM tidings.log l JOIN tidings.progress n ON n.lane = l.lane
        WHERE n.subscription = s.name
          AND n.step = (SELECT max(step) FROM tidings.progress p WHERE p.subscription = s.name AND p.lane = n.lane)
          AND l.position > n.position AND l.position > written.lowest AND l.position <= looked_at.last
          AND (s.kind = 'relay' OR l.type = ANY (s.types)) ORDER BY l.position LIMIT 1), looked_at.last),
    (SELECT min(position) - 1 FROM tidings.ready r WHERE r.subscription = s.name),
    (SELECT min(position) - 1 FROM tidings.held h WHERE h.subscription = s.name AND h.state IN ('retry', 'behind')))
  FROM tidings.subscription s
 CROSS JOIN LATERAL (SELECT min(newest) AS lowest FROM (
   SELECT max(position) AS newest FROM tidings.progress p WHERE p.subscription = s.name GROUP BY p.lane) lanes) written
 CROSS JOIN LATERAL (SELECT least($1, written.lowest + $2) AS last) looked_at
"""

LOOKED_AT = 1_000_000
"""Positions beyond its progress among which a pending event of a subscription is looked for: a second or two."""

STEPS_KEPT = 64
"""Old steps of a lane are deleted in chunks of this size."""


class ProgressStatements(Speaker):
    """Part of PostgresStatements."""

    async def registering(self) -> None:
        """Keep every other transaction that registers, lands or takes lanes waiting until this one has ended."""
        await self._db.script("LOCK TABLE tidings.subscription IN EXCLUSIVE MODE")

    async def register(self, row: SubscriptionRow) -> None:
        """Write a subscription. The first time, its lanes begin at `start`; later, only what it declares changes."""
        await self._db.run(
            f"INSERT INTO tidings.subscription ({_SUBSCRIPTION}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
            "ON CONFLICT (name) DO UPDATE SET service = $2, kind = $3, ordered = $4, types = $5",
            row.name,
            row.service,
            row.kind,
            row.ordered,
            list(row.types),
            row.start,
            max(row.version, await self._last_version(row.name) + 1),
            row.paused_by,
            row.paused_because,
        )
        await self._db.run(
            "INSERT INTO tidings.progress (subscription, lane, step, position, owner) "
            f"SELECT $1, lane, {_FIRST_STEP}, $2, NULL FROM generate_series(0, $3 - 1) AS lane "
            "WHERE NOT EXISTS (SELECT FROM tidings.progress p WHERE p.subscription = $1) ON CONFLICT DO NOTHING",
            row.name,
            row.start,
            self._lanes,
        )
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def subscriptions(self, *, steady: bool = False) -> list[SubscriptionRow]:
        """Return every subscription on this log. `steady`: nobody registers until this transaction has ended."""
        lock = "FOR KEY SHARE" if steady else ""  # conflicts with `registering`, not with pausing
        rows = await self._db.rows(f"SELECT {_SUBSCRIPTION} FROM tidings.subscription ORDER BY name {lock}")
        return [
            SubscriptionRow(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[6], row[7], row[8])
            for row in rows
        ]

    async def fence(self, subscription: str) -> None:
        """Insert a step that moves nothing in every lane: whoever owns one must take it anew before it commits."""
        left = [step.lane for step in await self.steps(subscription)]
        while left:  # an owner that commits its own step at this moment is waited for, and fenced after it
            rows = await self._db.rows(_FENCE_LANES, subscription, left)
            fenced = {row[0] for row in rows}
            left = [lane for lane in left if lane not in fenced]
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def rename(self, old: str, new: str) -> None:
        """Give a subscription another name; its progress and exceptions go with it."""
        await self._keep_version(old)
        sql = "UPDATE tidings.subscription SET name = $2, version = greatest(version, $3) WHERE name = $1"
        await self._db.run(sql, old, new, await self._last_version(new) + 1)
        for table in _OWNED_BY_SUBSCRIPTION:
            await self._db.run(f"UPDATE {table} SET subscription = $2 WHERE subscription = $1", old, new)
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def forget(self, name: str) -> None:
        """Remove a subscription with its progress and exceptions."""
        await self._keep_version(name)
        await self._db.run("DELETE FROM tidings.subscription WHERE name = $1", name)
        for table in _OWNED_BY_SUBSCRIPTION:
            await self._db.run(f"DELETE FROM {table} WHERE subscription = $1", name)
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def _keep_version(self, name: str) -> None:
        """Remember the version of a subscription whose name becomes free: what it published has ids of it."""
        await self._db.run(
            "INSERT INTO tidings.meta (name, value) SELECT 'version:' || name, version::text FROM tidings.subscription "
            "WHERE name = $1 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            name,
        )

    async def _last_version(self, name: str) -> int:
        rows = await self._db.rows("SELECT value FROM tidings.meta WHERE name = $1", f"version:{name}")
        return int(rows[0][0]) if rows else 0

    async def pause(self, name: str, actor: str | None, reason: str | None) -> bool:
        """Pause a subscription in somebody's name, or resume it (no actor); say whether there is such a one."""
        self.touched.add(SUBSCRIPTION_CHANGED)
        sql = "UPDATE tidings.subscription SET paused_by = $2, paused_because = $3 WHERE name = $1"
        return bool(await self._db.run(sql, name, actor, reason))

    async def beat(self, row: WorkerRow, now: int) -> None:
        """Write a worker's heartbeat. Its lease ends by this database's clock, `row.expires - now` from here."""
        lease = row.expires - now
        expires = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        if await self._db.run(f"UPDATE tidings.worker SET expires = {expires} + $2 WHERE id = $1", row.id, lease):
            return
        await self._db.run(
            "INSERT INTO tidings.worker (id, service, host, pid, started, expires, roles) "
            f"VALUES ($1, $2, $3, $4, $5, {expires} + $6, $7)",
            row.id,
            row.service,
            row.host,
            row.pid,
            row.started,
            lease,
            list(row.roles),
        )
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def workers(self) -> list[WorkerRow]:
        """Return every worker that has not retired, the dead included; expiry 0 if it has passed by this clock."""
        rows = await self._db.rows(
            "SELECT id, service, host, pid, started, "
            "CASE WHEN expires > extract(epoch FROM clock_timestamp()) * 1000000 THEN expires ELSE 0 END, roles "
            "FROM tidings.worker ORDER BY id"
        )
        return [WorkerRow(row[0], row[1], row[2], row[3], row[4], row[5], tuple(row[6])) for row in rows]

    async def retire(self, worker: str) -> None:
        """Remove a worker."""
        await self._db.run("DELETE FROM tidings.worker WHERE id = $1", worker)
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def steps(self, subscription: str) -> list[LaneStep]:
        """Return the newest step of each lane."""
        return [LaneStep(*row) for row in map(tuple, await self._db.rows(NEWEST, subscription))]

    async def advance(self, subscription: str, steps: Sequence[LaneStep]) -> bool:
        """Insert the lanes' next steps; False if one has another owner: then nothing of this may commit."""
        if not steps:
            return True
        ordered = sorted(steps, key=lambda step: step.lane)  # always in one order, or two would wait for each other
        self.touched.add(PROGRESS_CHANGED)
        if any(step.owner is None for step in steps):
            self.touched.add(SUBSCRIPTION_CHANGED)  # a lane is free
        inserted = await self._db.run(
            _ADVANCE,
            subscription,
            [step.lane for step in ordered],
            [step.step for step in ordered],
            [step.position for step in ordered],
            [step.owner for step in ordered],
        )
        old = [step for step in ordered if step.step % STEPS_KEPT == 0]
        if old:
            await self._db.run(
                _FORGET_STEPS,
                subscription,
                [step.lane for step in old],
                [step.step for step in old],
                4 * STEPS_KEPT,
            )
        return inserted == len(ordered)

    async def floors(self) -> dict[str, int]:
        """Return for each subscription the position up to which it needs no event but those of its dead letters."""
        safe = await self._fence.look()  # first: what is decided by then, the statement sees
        return {row[0]: row[1] for row in await self._db.rows(_FLOORS, safe, LOOKED_AT)}

    async def pending(self, subscription: str, types: Sequence[str] | None) -> tuple[int, int | None]:
        """Return how many events a subscription has not reached yet, and the time of the oldest (microseconds)."""
        rows = await self._db.rows(
            f"WITH newest AS ({NEWEST}) SELECT count(*), min(log.time) FROM tidings.log log "
            "JOIN newest USING (lane) WHERE log.position > (SELECT min(position) FROM newest) "
            "AND log.position > newest.position AND ($2::text[] IS NULL OR log.type = ANY ($2))",
            subscription,
            None if types is None else list(types),
        )
        return rows[0][0], rows[0][1]
