"""Old exports go: once a day their rows, then the files that no export left over has used."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, time, timedelta

from adexport.arguments import microseconds
from adexport.deciding import Expire
from adexport.events import CleaningDue
from adexport.ports import FileStore
from adexport.queries import moment
from adexport.timeline import decide
from tidings import Projection, Service, Transaction, Work

_LOG = logging.getLogger("adexport.retention")
_HOUR = time(3, tzinfo=UTC)
# Which files nobody needs any more, the list tells, and it follows what was just removed.
_PATIENCE = timedelta(minutes=1)
# Files know by the clock of their own machine when they were used last; this much may it differ.
_MARGIN = timedelta(days=1)
_OLD = """SELECT id, round FROM {adexport_exports} WHERE state IN ('done', 'dead', 'cancelled') AND finished_us < $1
"""
_PARTS = ("adexport_cell", "adexport_progress", "adexport_idempotency")


def arm_cleaning(tx: Transaction) -> None:
    """Set the durable timer of the next day, unless it is set already."""
    day = tx.now().astimezone(UTC).date() + timedelta(days=1)
    tx.publish(CleaningDue(day=day.isoformat()), id=f"cleaning-{day}", at=datetime.combine(day, _HOUR))


class Retention:
    """Removes exports that ended more than `keep` ago; with None nothing is ever removed.

    `exports` is the list. `claim` raises unless the files are those of this database: it did not come to that if they
    were away at the start.
    """

    def __init__(
        self,
        service: Service,
        exports: Projection,
        files: FileStore,
        keep: timedelta | None,
        claim: Callable[[], Awaitable[None]],
    ) -> None:
        """Opens nothing itself."""
        self._service = service
        self._exports = exports
        self._files = files
        self._keep = keep
        self._claim = claim

    async def clean(self, now: datetime) -> tuple[int, int]:
        """Remove what is too old at `now`; return how many exports and how many files. Doing it again does no harm."""
        if self._keep is None:
            return 0, 0
        exports = await self._remove_exports(now - self._keep)
        files = await self._remove_files(now - self._keep)
        if exports or files:
            _LOG.info("Removed %d exports that ended before %s, and %d files", exports, now - self._keep, files)
        return exports, files

    async def _remove_exports(self, before: datetime) -> int:
        removed = 0
        for row in await self._exports.fetch_all(_OLD, microseconds(before)):
            # Each in a transaction of its own: one may have 20,000 files.
            async with self._service.transaction() as tx:
                decision = await decide(self._service, Expire(export_id=row["id"], round=row["round"]), tx)
                if not decision.events:
                    continue  # asked for again meanwhile
                for part in _PARTS:
                    await tx.execute(f"DELETE FROM {part} WHERE export_id = $1", row["id"])
            removed += 1
        if removed:
            await self._exports.wait_until_caught_up(patience=_PATIENCE)
        return removed

    async def _remove_files(self, before: datetime) -> int:
        """Remove what was last used before the oldest export left: whatever an export uses, it has used since."""
        await self._claim()
        oldest = await self._exports.fetch_value("SELECT min(created_us) FROM {adexport_exports}")
        unused = min(before, before if oldest is None else moment(oldest)) - _MARGIN
        async with self._service.transaction() as tx:
            await tx.execute("DELETE FROM adexport_render WHERE created_us < $1", microseconds(unused))
        uploads = await self._service.fetch_all("SELECT id FROM adexport_feed UNION SELECT digest FROM adexport_asset")
        return await self._files.forget(unused, {row[0] for row in uploads})


def subscribe_cleaning(service: Service, retention: Retention) -> None:
    """Cleaning: one worker a day, which sets the timer of the next."""

    @service.subscribe(CleaningDue, concurrency=1)
    async def clean_up(event: CleaningDue, work: Work) -> None:
        await retention.clean(work.now())
        async with work.finish() as tx:
            arm_cleaning(tx)
