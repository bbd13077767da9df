"""The listener: results become facts of their export, in any order, and its files what they say."""

from __future__ import annotations

from typing import Any

from adexport.arguments import table
from adexport.deciding import TakeFailures, TakeFiles
from adexport.events import AdGenerated, AdGenerationFailed, FilesFailed, FilesMade
from adexport.life import Export, ExportEvent
from adexport.timeline import decide, tell
from tidings import Decision, Service, Transaction

# MATERIALIZED, because SQLite would else go through every cell of the export for every batch (3 s instead of 1 ms, with
# 20,000 cells).
_DONE = """WITH file (place, weight, digest, encoded, spent) AS MATERIALIZED ({files})
 UPDATE adexport_cell SET state = 'done', bytes = weight, sha256 = digest, quality = encoded, seconds = spent,
 verdict = 'ok', cause = NULL, reason = NULL FROM file WHERE export_id = $1 AND position = place"""
_DONE_TYPES = ("BIGINT", "BIGINT", "TEXT", "TEXT", "DOUBLE PRECISION")
_DEAD = """WITH failure (place, weight, why, told) AS MATERIALIZED ({failures})
 UPDATE adexport_cell SET state = 'dead', bytes = weight, cause = why, reason = told,
 verdict = CASE why WHEN 'cannot_fit' THEN 'cannot_fit' END FROM failure WHERE export_id = $1 AND position = place"""
_DEAD_TYPES = ("BIGINT", "BIGINT", "TEXT", "TEXT")


def _changed(index: int, state: str, size: int | None, outcome: str, reason: str | None) -> dict[str, Any]:
    """What the live stream says of a file that changed."""
    verdict = outcome if outcome in ("ok", "cannot_fit") else None
    return {"index": index, "state": state, "bytes": size, "verdict": verdict, "reason": reason}


def _settled(decision: Decision[Export, ExportEvent]) -> set[int]:
    """The files that a decision has settled."""
    return {index for event in decision.events if isinstance(event, FilesMade | FilesFailed) for index in event.files}


async def _take_files(service: Service, event: AdGenerated, tx: Transaction) -> None:
    decision = await decide(service, TakeFiles(export_id=event.export_id, files=event.files, now=tx.now()), tx)
    fresh = {file.index: file for file in event.files if file.index in _settled(decision)}
    if fresh:
        values = [(file.index, file.bytes, file.sha256, file.quality, file.seconds) for file in fresh.values()]
        files, args = table(_DONE_TYPES, values, first=2)
        await tx.execute(_DONE.format(files=files), event.export_id, *args)
        cells = [_changed(file.index, "done", file.bytes, "ok", None) for file in fresh.values()]
        await tell(tx, decision, cells=cells)


async def _take_failures(service: Service, event: AdGenerationFailed, tx: Transaction) -> None:
    command = TakeFailures(export_id=event.export_id, round=event.round, cells=event.cells, now=tx.now())
    decision = await decide(service, command, tx)
    fresh = {cell.index: cell for cell in event.cells if cell.index in _settled(decision)}
    if fresh:
        values = [(cell.index, cell.best_bytes, cell.cause, cell.reason) for cell in fresh.values()]
        failures, args = table(_DEAD_TYPES, values, first=2)
        await tx.execute(_DEAD.format(failures=failures), event.export_id, *args)
        cells = [_changed(cell.index, "dead", cell.best_bytes, cell.cause, cell.reason) for cell in fresh.values()]
        await tell(tx, decision, cells=cells)


async def take_results(service: Service, event: AdGenerated | AdGenerationFailed, tx: Transaction) -> None:
    """Results become facts; they come in any order, their effects commute, and repeating them changes nothing more."""
    if isinstance(event, AdGenerated):
        await _take_files(service, event, tx)
    else:
        await _take_failures(service, event, tx)


def subscribe_results(service: Service) -> None:
    """The listener of the API service."""

    @service.subscribe(AdGenerated, AdGenerationFailed)
    async def update_read_model(event: AdGenerated | AdGenerationFailed, tx: Transaction) -> None:
        await take_results(service, event, tx)
