"""The figures: what has happened to each export and file, and what that adds up to."""

from collections.abc import AsyncIterator
from datetime import timedelta
from statistics import median

from events import Cancelled, Completed, Failed, Generated, GenerationFailed, Requested

from tidings import Projection, ReadModel, Service

SCHEMA = """
CREATE TABLE IF NOT EXISTS {exports} (
  export_id TEXT PRIMARY KEY, day TEXT NOT NULL, state TEXT NOT NULL, round BIGINT NOT NULL, seconds DOUBLE PRECISION,
  unmade BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS {files} (
  export_id TEXT NOT NULL, number BIGINT NOT NULL, format TEXT, cause TEXT, PRIMARY KEY (export_id, number)
);
"""
LATE = timedelta(minutes=10)
"""So long the replay of a long history may take before a wait for it is given up."""

# Results that come once an export is over are not its own any more.
RUNNING = "EXISTS (SELECT 1 FROM {exports} WHERE export_id = $1 AND state = 'running')"
MADE = (
    "INSERT INTO {files} (export_id, number, format) SELECT $1, $2, $3 WHERE " + RUNNING + " "
    "ON CONFLICT (export_id, number) DO UPDATE SET format = excluded.format, cause = NULL"
)
NOT_MADE = (
    "INSERT INTO {files} (export_id, number, cause) SELECT $1, $2, $3 WHERE " + RUNNING + " "
    "ON CONFLICT (export_id, number) DO NOTHING"
)
END = "UPDATE {exports} SET state = $2 WHERE export_id = $1"
# How files ended is counted for exports that have ended by themselves: of a cancelled one some come too late.
ENDED = "FROM {files} JOIN {exports} USING (export_id) WHERE state IN ('completed', 'failed')"


async def requested(event: Requested, model: ReadModel) -> None:
    """An export began, or began again."""
    await model.execute(
        "INSERT INTO {exports} (export_id, day, state, round) VALUES ($1, $2, 'running', $3) "
        "ON CONFLICT (export_id) DO UPDATE SET state = 'running', round = excluded.round, unmade = 0, seconds = NULL",
        event.export_id,
        model.times[0].date().isoformat(),
        event.round,
    )
    await model.execute("DELETE FROM {files} WHERE export_id = $1 AND format IS NULL", event.export_id)


async def generated(event: Generated, model: ReadModel) -> None:
    """Files were made; a file beats a failure, and twice is once."""
    for file in event.files:
        await model.execute(MADE, event.export_id, file.index, file.format)


async def failed(event: GenerationFailed, model: ReadModel) -> None:
    """Files could not be made, unless an earlier round says so."""
    rounds = await model.fetch_value("SELECT round FROM {exports} WHERE export_id = $1", event.export_id)
    for cell in event.cells if rounds == event.round else ():
        await model.execute(NOT_MADE, event.export_id, cell.index, cell.cause)


async def completed(event: Completed, model: ReadModel) -> None:
    """An export is ready."""
    await model.execute(END, event.export_id, "completed")
    await model.execute("UPDATE {exports} SET seconds = $2 WHERE export_id = $1", event.export_id, event.seconds)


async def gave_up(event: Failed, model: ReadModel) -> None:
    """An export has failed; what has no failure of its own was not ready by the deadline."""
    told = "SELECT count(*) FROM {files} WHERE export_id = $1 AND cause IS NOT NULL"
    unmade = event.failed - (await model.fetch_value(told, event.export_id) or 0)
    await model.execute(END, event.export_id, "failed")
    await model.execute("UPDATE {exports} SET unmade = $2 WHERE export_id = $1", event.export_id, unmade)


async def cancelled(event: Cancelled, model: ReadModel) -> None:
    """A person stopped an export."""
    await model.execute(END, event.export_id, "cancelled")


class Figures:
    """What is asked of the projection."""

    def __init__(self, service: Service, projection: Projection) -> None:
        self._service = service
        self.projection = projection

    async def now(self) -> dict[str, dict[str, float]]:
        """Return every figure, by title and name."""
        seconds = [row[0] for row in await self._all("SELECT seconds FROM {exports} WHERE state = 'completed'")]
        causes = await self._counts("SELECT cause, count(*) " + ENDED + " AND cause IS NOT NULL GROUP BY cause")
        unmade = await self.projection.fetch_value("SELECT sum(unmade) FROM {exports} WHERE state = 'failed'")
        if unmade:
            causes["deadline"] = causes.get("deadline", 0) + int(unmade)
        return {
            "exports_by_day": await self._counts("SELECT day, count(*) FROM {exports} GROUP BY day ORDER BY day"),
            "exports_by_end": await self._counts("SELECT state, count(*) FROM {exports} GROUP BY state ORDER BY state"),
            "files_by_format": await self._counts(
                "SELECT format, count(*) " + ENDED + " AND format IS NOT NULL GROUP BY format ORDER BY format"
            ),
            "seconds_to_ready": {"median": median(seconds), "longest": max(seconds)} if seconds else {},
            "failures_by_cause": causes,
        }

    async def changes(self) -> AsyncIterator[None]:
        """Yield whenever events have come that were counted."""
        async for _ in self._service.changes(Requested, Generated, GenerationFailed, Completed, Failed, Cancelled):
            await self.projection.wait_until_caught_up(patience=LATE)
            yield

    async def _all(self, sql: str) -> list[tuple[float]]:
        return [(float(row[0]),) for row in await self.projection.fetch_all(sql)]

    async def _counts(self, sql: str) -> dict[str, float]:
        return {str(row[0]): int(row[1]) for row in await self.projection.fetch_all(sql)}


def declare(service: Service) -> Figures:
    """Declare the projection of a service; return the figures that it gives."""
    figures = service.projection("figures", schema=SCHEMA)
    figures.on(Requested)(requested)
    figures.on(Generated)(generated)
    figures.on(GenerationFailed)(failed)
    figures.on(Completed)(completed)
    figures.on(Failed)(gave_up)
    figures.on(Cancelled)(cancelled)
    return Figures(service, figures)
