"""The figures on exports: a projection of their streams that catches up, and the questions that it answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from adexport.events import (
    AdExportRequested,
    ExportAdopted,
    ExportCompleted,
    ExportFailed,
    FilesFailed,
    FilesMade,
    Tally,
)
from tidings import Projection, ReadModel, Service

FIGURES = "figures"
FIGURES_VERSION = 1
_SCHEMA = """CREATE TABLE IF NOT EXISTS {adexport_days} (
  day BIGINT PRIMARY KEY, exports BIGINT NOT NULL, files BIGINT NOT NULL, bytes BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS {adexport_shares} (
  day BIGINT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, files BIGINT NOT NULL, bytes BIGINT NOT NULL,
  PRIMARY KEY (day, kind, name)
);
CREATE TABLE IF NOT EXISTS {adexport_ready} (
  day BIGINT NOT NULL, export_id TEXT NOT NULL, round BIGINT NOT NULL, seconds DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (day, export_id, round)
)"""
_ADD_DAY = """INSERT INTO {adexport_days} (day, exports, files, bytes) VALUES ($1, $2, $3, $4) ON CONFLICT (day)
 DO UPDATE SET exports = {adexport_days}.exports + excluded.exports, files = {adexport_days}.files + excluded.files,
 bytes = {adexport_days}.bytes + excluded.bytes"""
_ADD_SHARE = """INSERT INTO {adexport_shares} (day, kind, name, files, bytes) VALUES ($1, $2, $3, $4, $5)
 ON CONFLICT (day, kind, name) DO UPDATE SET files = {adexport_shares}.files + excluded.files,
 bytes = {adexport_shares}.bytes + excluded.bytes"""
_ADD_READY = "INSERT INTO {adexport_ready} (day, export_id, round, seconds) VALUES ($1, $2, $3, $4)"
_MOST_WAITS = 100_000
Counted = AdExportRequested | FilesMade | FilesFailed | ExportCompleted | ExportFailed | ExportAdopted


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """The exports asked for on one UTC day ("2026-11-24"), and the files made on it."""

    day: str
    exports: int
    files: int


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How many files fall to one format or one cause of failure, and their weight."""

    name: str
    files: int
    bytes: int


class Analytics(msgspec.Struct, frozen=True, kw_only=True):
    """What the top of the exports page shows.

    Files count on the day on which they were made or failed; one that failed and was made by a retry counts as both.
    Seconds to ready are of exports that ended as done on these days; None without any.
    """

    days: list[Day]
    formats: list[Share]
    failures: list[Share]
    exports: int
    files: int
    bytes: int
    p50_seconds: float | None
    p95_seconds: float | None


class _Sums:
    """What some events add to the figures."""

    def __init__(self) -> None:
        self.days: dict[int, Counter[str]] = defaultdict(Counter)
        self.shares: dict[tuple[int, str, str], Counter[str]] = defaultdict(Counter)
        self.ready: list[tuple[int, str, int, float]] = []

    def add(self, event: Counted, day: int) -> None:
        """Add one event that was published on `day`, a number of days since 1970.

        Those from before streams say neither what an export is about nor when it ended: adoptions tell of these.
        """
        match event:
            case AdExportRequested(round=1, about=about) if about is not None:
                self.days[day]["exports"] += 1
            case FilesMade(formats=formats):
                self._made(day, formats)
            case FilesFailed(causes=causes):
                self._failed(day, causes)
            case ExportFailed(overdue=overdue) if overdue:
                self._failed(day, {"deadline": overdue})
            case ExportCompleted(export_id=name, round=round, seconds=seconds, ended_at=ended) if ended is not None:
                self.ready.append((day, name, round, seconds))
            case ExportAdopted():
                self._adopted(event)

    def _made(self, day: int, formats: dict[str, Tally]) -> None:
        for name, tally in formats.items():
            self.days[day].update(files=tally.files, bytes=tally.bytes)
            self.shares[day, "format", name].update(files=tally.files, bytes=tally.bytes)

    def _failed(self, day: int, causes: dict[str, int]) -> None:
        for name, files in causes.items():
            self.shares[day, "cause", name].update(files=files)

    def _adopted(self, event: ExportAdopted) -> None:
        day = _day(event.created_at)
        self.days[day]["exports"] += 1
        self._made(day, event.formats)
        self._failed(day, event.causes)
        if event.state == "done" and event.finished_at is not None:
            seconds = (event.finished_at - event.started_at).total_seconds()
            self.ready.append((_day(event.finished_at), event.export_id, event.round, seconds))


def project_figures(service: Service, version: int = FIGURES_VERSION) -> Projection:
    """Declare a version of the figures.

    It catches up: all exports of a day share its rows, and a transaction that kept them would hold up every other one.
    """
    figures = service.projection(FIGURES, version=version, schema=_SCHEMA)

    @figures.on(AdExportRequested, FilesMade, FilesFailed, ExportCompleted, ExportFailed, ExportAdopted, batched=True)
    async def count(events: Sequence[Counted], model: ReadModel) -> None:
        sums = _Sums()
        for event, time in zip(events, model.times, strict=True):
            sums.add(event, _day(time))
        # In one order: several lanes may come to the same rows at once.
        for day, adds in sorted(sums.days.items()):
            await model.execute(_ADD_DAY, day, adds["exports"], adds["files"], adds["bytes"])
        for (day, kind, name), adds in sorted(sums.shares.items()):
            await model.execute(_ADD_SHARE, day, kind, name, adds["files"], adds["bytes"])
        for row in sums.ready:
            await model.execute(_ADD_READY, *row)

    return figures


class Figures:
    """Asks the projection. `now` gives the current time, up to which the days are counted."""

    def __init__(self, projection: Projection, now: Callable[[], datetime]) -> None:
        """Reads the live version; opens nothing itself."""
        self._projection = projection
        self._now = now

    async def wait_until_caught_up(self) -> None:
        """Wait until the figures hold all that has been said. Raises ProjectionError where that takes too long."""
        await self._projection.wait_until_caught_up()

    async def analytics(self, *, days: int = 14) -> Analytics:
        """Exports per UTC day, formats, causes of failure and seconds to ready over the last `days` days."""
        last = _day(self._now())
        first = last - days + 1
        per_day = await self._projection.fetch_all(
            "SELECT day, exports, files, bytes FROM {adexport_days} WHERE day BETWEEN $1 AND $2", first, last
        )
        waits = await self._projection.fetch_all(
            "SELECT seconds FROM {adexport_ready} WHERE day BETWEEN $1 AND $2 ORDER BY seconds LIMIT $3",
            first,
            last,
            _MOST_WAITS,
        )
        seconds = [float(row[0]) for row in waits]
        return Analytics(
            days=list(_days(first, last, {row["day"]: row for row in per_day})),
            formats=await self._shares("format", first, last),
            failures=await self._shares("cause", first, last),
            exports=sum(row["exports"] for row in per_day),
            files=sum(row["files"] for row in per_day),
            bytes=sum(row["bytes"] for row in per_day),
            p50_seconds=_percentile(seconds, 0.5),
            p95_seconds=_percentile(seconds, 0.95),
        )

    async def _shares(self, kind: str, first: int, last: int) -> list[Share]:
        rows = await self._projection.fetch_all(
            "SELECT name, CAST(sum(files) AS BIGINT) AS files, CAST(sum(bytes) AS BIGINT) AS bytes"
            " FROM {adexport_shares} WHERE kind = $1 AND day BETWEEN $2 AND $3 GROUP BY name ORDER BY 2 DESC, 1",
            kind,
            first,
            last,
        )
        return [Share(**row.as_dict()) for row in rows]


def _day(moment: datetime) -> int:
    return (moment.astimezone(UTC).date() - date(1970, 1, 1)).days


def _days(first: int, last: int, known: dict[int, Any]) -> Iterable[Day]:
    for number in range(first, last + 1):
        row = known.get(number)
        day = (date(1970, 1, 1) + timedelta(days=number)).isoformat()
        yield Day(day=day, exports=row["exports"] if row else 0, files=row["files"] if row else 0)


def _percentile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
