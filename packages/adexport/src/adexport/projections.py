"""The listener: results become the read model, in any order, and the export ends when none is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from adexport.events import (
    AdGenerated,
    AdGenerationFailed,
    ExportCompleted,
    ExportFailed,
    ExportProgressed,
)
from adexport.export import Standing, State, ending
from adexport.queries import moment
from tidings import Event, Row, Service, Transaction

# A file beats a failure: a late success of an earlier try counts while the export is active.
_DONE = """UPDATE adexport_cell SET state = 'done', bytes = json_extract(file.value, '$.bytes'),
 sha256 = json_extract(file.value, '$.sha256'), quality = json_extract(file.value, '$.quality'),
 seconds = json_extract(file.value, '$.seconds'), verdict = 'ok', cause = NULL, reason = NULL
 FROM json_each($1) AS file WHERE export_id = $2 AND position = json_extract(file.value, '$.index')
 AND state IN ('pending', 'dead') RETURNING position, state, bytes, verdict, reason"""
# A failure counts only against the try that it belongs to.
_DEAD = """UPDATE adexport_cell SET state = 'dead', bytes = json_extract(cell.value, '$.best_bytes'),
 cause = json_extract(cell.value, '$.cause'), reason = json_extract(cell.value, '$.reason'),
 verdict = CASE json_extract(cell.value, '$.cause') WHEN 'cannot_fit' THEN 'cannot_fit' END
 FROM json_each($1) AS cell WHERE export_id = $2 AND position = json_extract(cell.value, '$.index')
 AND round = $3 AND state = 'pending' RETURNING position, state, bytes, verdict, reason"""
_COUNT = """UPDATE adexport_export SET (done, failed, bytes) = (SELECT coalesce(sum(state = 'done'), 0),
 coalesce(sum(state = 'dead'), 0), coalesce(sum(CASE state WHEN 'done' THEN bytes END), 0)
 FROM adexport_cell WHERE export_id = $1) WHERE id = $1"""


def as_json(value: object) -> str:
    """`value` as JSON text for json_each and for columns."""
    return msgspec.json.encode(value).decode()


async def read_standing(tx: Transaction, export_id: str) -> Standing | None:
    """Where the export stands inside this transaction, or None."""
    row = await tx.fetch_one(
        "SELECT state, round, total, done, failed, deadline_us FROM adexport_export WHERE id = $1", export_id
    )
    if row is None:
        return None
    return Standing(
        state=State(row["state"]),
        round=row["round"],
        total=row["total"],
        done=row["done"],
        failed=row["failed"],
        deadline=moment(row["deadline_us"]),
    )


async def note(
    tx: Transaction, export_id: str, kind: str, text: str, *, event_id: str | None = None, cells: Sequence[Row] = ()
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
    detail["cells"] = [
        {name: row[name] for name in ("state", "bytes", "verdict", "reason")} | {"index": row["position"]}
        for row in cells
    ]
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
        text = f"Done in {seconds:.1f} s: {files_word(row['done'])} ready{rest}"
    else:
        reason = failure or "No file could be made."
        event = ExportFailed(
            export_id=export_id, round=row["round"], done=row["done"], failed=row["failed"], reason=reason
        )
        text = f"Ended without all files: {reason}"
    envelope = tx.publish(event)
    await note(tx, export_id, "completed" if state is State.DONE else "failed", text, event_id=envelope.id)


async def _after_results(tx: Transaction, export_id: str) -> None:
    standing = await read_standing(tx, export_id)
    end = None if standing is None else ending(standing)
    if end is not None:
        await finish(tx, export_id, end)


async def apply_generated(event: AdGenerated, tx: Transaction) -> None:
    """Files are ready: mark their cells done. Repeating it, or doing it late, changes nothing more."""
    standing = await read_standing(tx, event.export_id)
    if standing is None or not standing.active:
        return
    changed = await tx.fetch_all(_DONE, as_json(event.files), event.export_id)
    if not changed:
        return
    await tx.execute(_COUNT, event.export_id)
    await note(tx, event.export_id, "files", f"{files_word(len(changed))} ready", cells=changed)
    await _after_results(tx, event.export_id)


async def apply_failed(event: AdGenerationFailed, tx: Transaction) -> None:
    """Files cannot be made: mark their cells dead with the reason, unless they are done or belong to a newer try."""
    standing = await read_standing(tx, event.export_id)
    if standing is None or not standing.active:
        return
    changed = await tx.fetch_all(_DEAD, as_json(event.cells), event.export_id, event.round)
    if not changed:
        return
    await tx.execute(_COUNT, event.export_id)
    text = f"{files_word(len(changed))} failed: {changed[0]['reason']}"
    await note(tx, event.export_id, "failures", text, cells=changed)
    await _after_results(tx, event.export_id)


async def update_read_model(event: AdGenerated | AdGenerationFailed, tx: Transaction) -> None:
    """Results become the read model; they come in any order and their effects commute."""
    if isinstance(event, AdGenerated):
        await apply_generated(event, tx)
    else:
        await apply_failed(event, tx)


def subscribe(service: Service) -> None:
    """The listener of the API service."""
    service.subscribe(AdGenerated, AdGenerationFailed)(update_read_model)
