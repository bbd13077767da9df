"""The listener: results become the read model, in any order, and the export ends when none is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from adexport.arguments import numbered, table
from adexport.events import (
    AdGenerated,
    AdGenerationFailed,
    ExportCompleted,
    ExportFailed,
    ExportProgressed,
)
from adexport.export import Standing, State, ending
from adexport.queries import moment
from tidings import Event, Service, Transaction

_STATES = "SELECT position, state, round FROM adexport_cell WHERE export_id = $1 AND position IN ({places})"
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
_STANDING = "state, round, total, done, failed, deadline_us"
# Setting a column to itself holds the row: several transactions run at once on Postgres, and SQLite has no FOR UPDATE.
_HOLD = f"UPDATE adexport_export SET version = version WHERE id = $1 RETURNING {_STANDING}"
_ADD = f"""UPDATE adexport_export SET done = done + $2, failed = failed + $3, bytes = bytes + $4 WHERE id = $1
 RETURNING {_STANDING}"""


def as_json(value: object) -> str:
    """`value` as JSON text for columns."""
    return msgspec.json.encode(value).decode()


async def hold_standing(tx: Transaction, export_id: str) -> Standing | None:
    """Where the export stands, or None. Until the transaction ends, no other one changes it."""
    row = await tx.fetch_one(_HOLD, export_id)
    return None if row is None else _standing(row)


def _standing(row: Any) -> Standing:
    return Standing(
        state=State(row["state"]),
        round=row["round"],
        total=row["total"],
        done=row["done"],
        failed=row["failed"],
        deadline=moment(row["deadline_us"]),
    )


async def note(
    tx: Transaction,
    export_id: str,
    kind: str,
    text: str,
    *,
    event_id: str | None = None,
    cells: Sequence[dict[str, Any]] = (),
) -> None:
    """Add the next entry to the export's timeline and tell those who watch it. `event_id` defaults to the cause."""
    if event_id is None and tx.envelope is not None:
        event_id = tx.envelope.id
    export = await tx.fetch_one(
        "UPDATE adexport_export SET version = version + 1 WHERE id = $1"
        " RETURNING version, state, round, total, done, failed, bytes",
        export_id,
    )
    assert export is not None
    detail: dict[str, Any] = {name: export[name] for name in ("state", "round", "total", "done", "failed", "bytes")}
    detail["cells"] = cells
    await tx.execute(
        "INSERT INTO adexport_progress (export_id, sequence, at_us, kind, text, event_id, detail)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        export_id,
        export["version"],
        microseconds(tx),
        kind,
        text,
        event_id,
        json.dumps(detail),
    )
    tx.publish(ExportProgressed(export_id=export_id, sequence=export["version"]))


def microseconds(tx: Transaction) -> int:
    """The transaction's time in microseconds since 1970."""
    now = tx.now()
    return int(now.timestamp()) * 1_000_000 + now.microsecond


def files_word(count: int) -> str:
    """ "1 file", "48 files"."""
    return f"{count} file{'' if count == 1 else 's'}"


async def finish(tx: Transaction, export_id: str, state: State, *, failure: str | None = None) -> None:
    """End the export as `state` (done or dead): the read model, the timeline, and the event that says so."""
    row = await tx.fetch_one(
        "UPDATE adexport_export SET state = $2, finished_us = $3, failure = $4 WHERE id = $1"
        " RETURNING round, total, done, failed, bytes, started_us, finished_us",
        export_id,
        state.value,
        microseconds(tx),
        failure,
    )
    assert row is not None
    if state is State.DONE:
        seconds = (row["finished_us"] - row["started_us"]) / 1_000_000
        event: Event = ExportCompleted(
            export_id=export_id,
            round=row["round"],
            done=row["done"],
            failed=row["failed"],
            total_bytes=row["bytes"],
            seconds=seconds,
        )
        rest = f", {row['failed']} failed" if row["failed"] else ""
        took = f"{seconds:.1f} s" if seconds >= 0.05 else "under 0.1 s"
        text = f"Done in {took}: {files_word(row['done'])} ready{rest}"
    else:
        reason = failure or "No file could be made."
        event = ExportFailed(
            export_id=export_id, round=row["round"], done=row["done"], failed=row["failed"], reason=reason
        )
        text = f"Ended without all files: {reason}"
    envelope = tx.publish(event)
    await note(tx, export_id, "completed" if state is State.DONE else "failed", text, event_id=envelope.id)


async def _end_if_complete(tx: Transaction, export_id: str, counted: Any, why: str = "") -> None:
    end = ending(_standing(counted))
    if end is not None:
        failure = f"No file could be made. {why}" if end is State.DEAD else None
        await finish(tx, export_id, end, failure=failure)


async def _states(tx: Transaction, export_id: str, indexes: list[int]) -> dict[int, tuple[str, int]]:
    """State and round of these cells; nothing for an export that is over."""
    standing = await hold_standing(tx, export_id)
    if standing is None or not standing.active or not indexes:
        return {}
    rows = await tx.fetch_all(_STATES.format(places=numbered(len(indexes), first=2)), export_id, *indexes)
    return {row["position"]: (row["state"], row["round"]) for row in rows}


def _changed(index: int, state: str, size: int | None, outcome: str, reason: str | None) -> dict[str, Any]:
    """What the live stream says of a file that changed."""
    verdict = outcome if outcome in ("ok", "cannot_fit") else None
    return {"index": index, "state": state, "bytes": size, "verdict": verdict, "reason": reason}


async def apply_generated(event: AdGenerated, tx: Transaction) -> None:
    """Files are ready: mark their cells done. Repeating it changes nothing more.

    A file beats a failure: the late success of an earlier try counts while the export is active.
    """
    known = await _states(tx, event.export_id, [file.index for file in event.files])
    fresh = [file for file in event.files if known.get(file.index, ("", 0))[0] in ("pending", "dead")]
    if not fresh:
        return
    revived = sum(known[file.index][0] == "dead" for file in fresh)
    values = [(file.index, file.bytes, file.sha256, file.quality, file.seconds) for file in fresh]
    files, args = table(_DONE_TYPES, values, first=2)
    await tx.execute(_DONE.format(files=files), event.export_id, *args)
    counted = await tx.fetch_one(_ADD, event.export_id, len(fresh), -revived, sum(file.bytes for file in fresh))
    cells = [_changed(file.index, "done", file.bytes, "ok", None) for file in fresh]
    await note(tx, event.export_id, "files", f"{files_word(len(fresh))} ready", cells=cells)
    await _end_if_complete(tx, event.export_id, counted)


async def apply_failed(event: AdGenerationFailed, tx: Transaction) -> None:
    """Files cannot be made: mark their cells dead with the reason, unless they are done or belong to a newer try."""
    known = await _states(tx, event.export_id, [cell.index for cell in event.cells])
    fresh = [cell for cell in event.cells if known.get(cell.index) == ("pending", event.round)]
    if not fresh:
        return
    values = [(cell.index, cell.best_bytes, cell.cause, cell.reason) for cell in fresh]
    failures, args = table(_DEAD_TYPES, values, first=2)
    await tx.execute(_DEAD.format(failures=failures), event.export_id, *args)
    counted = await tx.fetch_one(_ADD, event.export_id, 0, len(fresh), 0)
    cells = [_changed(cell.index, "dead", cell.best_bytes, cell.cause, cell.reason) for cell in fresh]
    await note(tx, event.export_id, "failures", f"{files_word(len(fresh))} failed: {fresh[0].reason}", cells=cells)
    await _end_if_complete(tx, event.export_id, counted, fresh[0].reason)


async def update_read_model(event: AdGenerated | AdGenerationFailed, tx: Transaction) -> None:
    """Results become the read model; they come in any order and their effects commute."""
    if isinstance(event, AdGenerated):
        await apply_generated(event, tx)
    else:
        await apply_failed(event, tx)


def subscribe(service: Service) -> None:
    """The listener of the API service."""
    service.subscribe(AdGenerated, AdGenerationFailed)(update_read_model)
