"""The timeline of an export: what was decided, in words, told to those who watch it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from adexport.arguments import microseconds
from adexport.deciding import EXPORT, Command
from adexport.events import (
    AdExportRequested,
    ExportCancelled,
    ExportCompleted,
    ExportFailed,
    ExportPlanned,
    ExportProgressed,
    FilesAskedAgain,
    FilesFailed,
    FilesMade,
)
from adexport.export import Standing, State
from adexport.life import Export, ExportEvent
from tidings import Decision, Service, Transaction

_WRITE = """INSERT INTO adexport_progress (export_id, sequence, at_us, kind, text, event_id, detail)
 VALUES ($1, $2, $3, $4, $5, $6, $7)"""
# Whoever decides in a transaction waits for the one before; to lose so often against others, it must be a crowd.
_TRIES = 100


def files_word(count: int) -> str:
    """ "1 file", "48 files"."""
    return f"{count} file{'' if count == 1 else 's'}"


async def decide(service: Service, command: Command, tx: Transaction) -> Decision[Export, ExportEvent]:
    """Decide on an export within a transaction. Until it ends nobody else decides on this one. Raises NotNowError."""
    return await service.decide(EXPORT, command, tx=tx, retries=_TRIES)


async def tell(
    tx: Transaction, decision: Decision[Export, ExportEvent], *, cells: Sequence[dict[str, Any]] = ()
) -> None:
    """Write what was decided into the timeline, and tell those who watch. `cells` are the files that changed by it."""
    standing = decision.state.standing
    assert standing is not None  # of an export about which something was decided
    last = len(decision.events) - 1
    for number, (event, envelope) in enumerate(zip(decision.events, decision.envelopes, strict=True)):
        kind, text, is_of_cause = _words(event, standing)
        sequence = decision.state.entries - (last - number)
        # What ends an export follows, in the same decision, the results that do.
        state = standing.state if number == last else State.RUNNING
        detail = {
            "state": state.value,
            "round": standing.round,
            "total": standing.total,
            "done": standing.done,
            "failed": standing.failed,
            "bytes": decision.state.weight,
            "cells": cells if is_of_cause else (),
        }
        cause = tx.envelope.id if is_of_cause and tx.envelope is not None else envelope.id
        at = microseconds(envelope.time)
        await tx.execute(_WRITE, event.export_id, sequence, at, kind, text, cause, json.dumps(detail))
        tx.publish(ExportProgressed(export_id=event.export_id, sequence=sequence))


def _words(event: ExportEvent, standing: Standing) -> tuple[str, str, bool]:
    """The kind of the entry, its text, and whether what was handled caused it and names it."""
    match event:
        case AdExportRequested(files=files, about=None):
            return "retried", f"Asked again for {files_word(files)}", False
        case AdExportRequested(files=files, about=about) if about is not None:
            return "accepted", f"Accepted: {files_word(files)} of {about.design_title}", False
        case ExportPlanned(files=files, batches=batches):
            plural = "batch" if batches == 1 else "batches"
            return "planned", f"Picked up by a worker: {files_word(files)} in {batches} {plural}", True
        case FilesMade(files=made):
            return "files", f"{files_word(len(made))} ready", True
        case FilesFailed(files=failed, reason=reason):
            return "failures", f"{files_word(len(failed))} failed: {reason}", True
        case FilesAskedAgain(files=files):
            return "asked_again", f"Nothing arrived lately: asked again for {files_word(files)}", True
    return _ending(event, standing)


def _ending(event: ExportEvent, standing: Standing) -> tuple[str, str, bool]:
    match event:
        case ExportCompleted(done=done, failed=failed, seconds=seconds):
            rest = f", {failed} failed" if failed else ""
            took = f"{seconds:.1f} s" if seconds >= 0.05 else "under 0.1 s"
            return "completed", f"Done in {took}: {files_word(done)} ready{rest}", False
        case ExportFailed(reason=reason):
            return "failed", f"Ended without all files: {reason}", False
        case ExportCancelled(done=done):
            return "cancelled", f"Cancelled: {files_word(done)} ready, {standing.missing} not made", False
    raise TypeError(event)  # an adopted export has its timeline, one that has expired none
