"""Statements on projections: their versions, how far each is, and what they have handled inline."""

from collections.abc import Sequence

from tidings.backends.postgres.statements.log import WINDOW
from tidings.backends.postgres.statements.progress import NEWEST
from tidings.backends.postgres.statements.speaker import Speaker
from tidings.events import Envelope
from tidings.rows import BarePage, ProjectionRow
from tidings.store import HELD_CHANGED, PROGRESS_CHANGED, SUBSCRIPTION_CHANGED

_PROJECTION = "name, version, service, subscription, tables, inline, live"
_BARE = "SELECT position, lane, time, type, version, data FROM tidings.log"
_OWNED = ("tidings.held", "tidings.ready", "tidings.inlined")
_INLINED = "EXISTS (SELECT FROM tidings.inlined i WHERE i.subscription = {} AND i.id = l.id AND i.source = l.source)"
_TYPES = "(SELECT types FROM tidings.subscription s WHERE s.name = $1)"
_PENDING = (
    f"FROM tidings.log l JOIN ({NEWEST}) n USING (lane) WHERE l.position > n.position "
    f"AND l.type = ANY ({_TYPES}::text[]) "
    f"AND l.position > (SELECT min(position) FROM ({NEWEST}) lowest) AND NOT {_INLINED.format('$1')}"
)

_REWIND = """
INSERT INTO tidings.progress (subscription, lane, step, position, owner)
SELECT $1, lane, step + 1, (SELECT start FROM tidings.subscription WHERE name = $1), NULL FROM (
  SELECT DISTINCT ON (lane) lane, step FROM tidings.progress
   WHERE subscription = $1 AND lane = ANY ($2::smallint[]) ORDER BY lane, step DESC) newest ORDER BY lane
ON CONFLICT DO NOTHING RETURNING lane
"""


class ProjectionStatements(Speaker):
    """Part of PostgresStatements."""

    async def projections(self) -> list[ProjectionRow]:
        """Return every version of every projection on this log, by name and version."""
        rows = await self._db.rows(f"SELECT {_PROJECTION} FROM tidings.projection ORDER BY name, version")
        return [ProjectionRow(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[6]) for row in rows]

    async def live_version(self, name: str) -> int | None:
        """Return the version of a projection that queries read; None if there is none."""
        rows = await self._db.rows("SELECT version FROM tidings.projection WHERE name = $1 AND live", name)
        return int(rows[0][0]) if rows else None

    async def register_projection(self, row: ProjectionRow) -> None:
        """Write a version; of one that is known, only its tables and `inline` change."""
        await self._db.run(
            f"INSERT INTO tidings.projection ({_PROJECTION}) VALUES ($1, $2, $3, $4, $5, $6, $7) "
            "ON CONFLICT (name, version) DO UPDATE SET tables = $5, inline = $6",
            row.name,
            row.version,
            row.service,
            row.subscription,
            list(row.tables),
            row.inline,
            row.live,
        )
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def go_live(self, name: str, version: int) -> None:
        """Let queries read this version of a projection, and no other."""
        await self._db.run("UPDATE tidings.projection SET live = false WHERE name = $1 AND live", name)
        sql = "UPDATE tidings.projection SET live = true WHERE name = $1 AND version = $2"
        await self._db.run(sql, name, version)
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def forget_projection(self, row: ProjectionRow) -> None:
        """Remove a version with its subscription and its tables."""
        for table in row.tables:
            await self._db.run(f'DROP TABLE IF EXISTS "{table}"')
        for table in (*_OWNED, "tidings.progress"):
            await self._db.run(f"DELETE FROM {table} WHERE subscription = $1", row.subscription)
        await self._db.run("DELETE FROM tidings.subscription WHERE name = $1", row.subscription)
        sql = "DELETE FROM tidings.projection WHERE name = $1 AND version = $2"
        await self._db.run(sql, row.name, row.version)
        self.touched.add(SUBSCRIPTION_CHANGED)

    async def rewind(self, row: ProjectionRow) -> None:
        """Empty a version's tables, forget its exceptions, and set its lanes back to where it started."""
        # Tables first, then lanes: in the order in which a settling transaction takes them.
        for table in row.tables:
            await self._db.run(f'TRUNCATE "{table}"')
        left = [step[0] for step in await self._db.rows(f"SELECT lane FROM ({NEWEST}) n", row.subscription)]
        while left:  # an owner that commits its own step at this moment is waited for, and set back after it
            done = {step[0] for step in await self._db.rows(_REWIND, row.subscription, left)}
            left = [lane for lane in left if lane not in done]
        for table in _OWNED:
            await self._db.run(f"DELETE FROM {table} WHERE subscription = $1", row.subscription)
        self.touched |= {SUBSCRIPTION_CHANGED, PROGRESS_CHANGED, HELD_CHANGED}

    async def replay(self, after: int, types: Sequence[str] | None, lanes: Sequence[int], limit: int) -> BarePage:
        """Read as `read` does, but only what a replay needs of each event."""
        last = min(await self._fence.look() if self._fence.safe <= after else self._fence.safe, after + WINDOW)
        if last <= after:
            return BarePage((), after)
        rows = await self._db.rows(
            f"{_BARE} WHERE position > $1 AND position <= $2 AND ($4::text[] IS NULL OR type = ANY ($4)) "
            "AND ($5::smallint[] IS NULL OR lane = ANY ($5)) ORDER BY position LIMIT $3",
            after,
            last,
            limit,
            None if types is None else list(types),
            None if len(lanes) == self._lanes else list(lanes),
        )
        return BarePage(rows, rows[-1][0] if len(rows) == limit else last)

    async def behind(self, subscription: str, other: str) -> int:
        """Return how many of its events a subscription has not reached that another one has passed."""
        newest = NEWEST.replace("$1", "$2")
        rows = await self._db.rows(
            f"SELECT count(*) {_PENDING} AND (l.position <= (SELECT position FROM ({newest}) o "
            f"WHERE o.lane = l.lane) OR {_INLINED.format('$2')})",
            subscription,
            other,
        )
        return int(rows[0][0])

    async def reached(self, subscription: str, position: int) -> bool:
        """Say whether a subscription has passed every event of its own up to a position."""
        sql = f"SELECT 1 {_PENDING} AND l.position <= $2 LIMIT 1"
        return not await self._db.rows(sql, subscription, position)

    async def count(self, types: Sequence[str], after: int) -> int:
        """Return how many events of some types lie after a position."""
        sql = "SELECT count(*) FROM tidings.log WHERE position > $1 AND type = ANY ($2::text[])"
        return int((await self._db.rows(sql, after, list(types)))[0][0])

    async def wait_for_inline_turn(self, subscription: str, envelopes: Sequence[Envelope]) -> None:
        """Wait until no other transaction handles inline what these events might meet, and let none before the end.

        One event goes beside others of other keys. Several go alone: two transactions that change the same rows in
        another order would wait for each other, until Postgres ends one of them after a second.
        """
        name = f"tidings.inline/{subscription}"
        if len(envelopes) > 1:
            await self._db.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
            return
        await self._db.rows("SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))", name)
        if (key := envelopes[0].key) is not None:
            # Else what comes after one that is left to its lane would not see it there.
            await self._db.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", f"{name}/{key}")

    async def lanes_without_backlog(self, subscription: str, lanes: Sequence[int]) -> set[int]:
        """Return in which lanes a subscription that is not paused has handled everything, inline or in turn."""
        rows = await self._db.rows(
            "SELECT asked.lane FROM unnest($2::smallint[]) AS asked(lane) "
            "WHERE EXISTS (SELECT FROM tidings.subscription WHERE name = $1 AND paused_by IS NULL) "
            f"AND NOT EXISTS (SELECT {_PENDING} AND l.lane = asked.lane)",
            subscription,
            list(lanes),
        )
        return {row[0] for row in rows}

    async def mark_inline(self, subscription: str, envelopes: Sequence[Envelope]) -> None:
        """Note events that were handled within the transaction that publishes them."""
        await self._db.run(
            "INSERT INTO tidings.inlined (subscription, id, source) SELECT $1, * FROM unnest($2::text[], $3::text[])",
            subscription,
            [envelope.id for envelope in envelopes],
            [envelope.source for envelope in envelopes],
        )
        self.touched.add(PROGRESS_CHANGED)

    async def any_inline(self, subscription: str) -> bool:
        """Say whether events are noted that the subscription's lanes have not passed."""
        return bool(await self._db.rows("SELECT 1 FROM tidings.inlined WHERE subscription = $1 LIMIT 1", subscription))

    async def take_inline(self, subscription: str, envelopes: Sequence[Envelope]) -> set[tuple[str, str]]:
        """Forget the notes of some events, which a lane passes; return (source, id) of those that had one."""
        rows = await self._db.rows(
            "DELETE FROM tidings.inlined i USING unnest($2::text[], $3::text[]) AS passed(id, source) "
            "WHERE i.subscription = $1 AND i.id = passed.id AND i.source = passed.source RETURNING i.source, i.id",
            subscription,
            [envelope.id for envelope in envelopes],
            [envelope.source for envelope in envelopes],
        )
        return {(row[0], row[1]) for row in rows}
