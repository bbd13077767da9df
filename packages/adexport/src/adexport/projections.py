"""The list of exports: a projection of their streams."""

from __future__ import annotations

from datetime import datetime

from adexport.arguments import as_json, microseconds
from adexport.events import (
    About,
    AdExportRequested,
    ExportAdopted,
    ExportCancelled,
    ExportCompleted,
    ExportExpired,
    ExportFailed,
    ExportPlanned,
    FilesAskedAgain,
    FilesFailed,
    FilesMade,
)
from tidings import Projection, ReadModel, Service

LIST = "exports"
LIST_VERSION = 1
_SCHEMA = """CREATE TABLE IF NOT EXISTS {adexport_exports} (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, design TEXT NOT NULL, design_title TEXT NOT NULL,
  snapshot TEXT NOT NULL, networks TEXT NOT NULL, sizes TEXT NOT NULL, formats TEXT NOT NULL, row_count BIGINT NOT NULL,
  state TEXT NOT NULL, round BIGINT NOT NULL, total BIGINT NOT NULL, done BIGINT NOT NULL, failed BIGINT NOT NULL,
  bytes BIGINT NOT NULL, estimate_seconds DOUBLE PRECISION NOT NULL, created_us BIGINT NOT NULL,
  started_us BIGINT NOT NULL, finished_us BIGINT, deadline_us BIGINT NOT NULL, failure TEXT, version BIGINT NOT NULL,
  UNIQUE (created_us, id)
)"""
_INSERT = """INSERT INTO {adexport_exports} (id, title, design, design_title, networks, sizes, formats, row_count,
 estimate_seconds, snapshot, state, round, total, done, failed, bytes, created_us, started_us, finished_us, deadline_us,
 failure, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
 $21, $22)"""
_RETRIED = """UPDATE {adexport_exports} SET state = 'pending', round = $2, failed = 0, finished_us = NULL,
 failure = NULL, started_us = $3, deadline_us = $4, version = version + 1 WHERE id = $1"""
_COUNT = """UPDATE {adexport_exports} SET done = done + $2, failed = failed + $3, bytes = bytes + $4,
 version = version + 1 WHERE id = $1"""
_END = """UPDATE {adexport_exports} SET state = $2, finished_us = $3, failure = $4, failed = failed + $5,
 version = version + 1 WHERE id = $1"""


def project_list(service: Service, version: int = LIST_VERSION) -> Projection:
    """Declare a version of the list.

    It catches up (decision 52). One export alone is read from its stream.
    Facts of exports from before streams find no row here, and change none.
    """
    exports = service.projection(LIST, version=version, schema=_SCHEMA)
    _project_beginnings(exports)
    _project_results(exports)
    _project_endings(exports)
    return exports


def _about(about: About) -> tuple[str, str, str, str, str, str, int, float]:
    lists = as_json(about.networks), as_json(about.sizes), as_json(about.formats)
    return about.title, about.design, about.design_title, *lists, about.rows, about.estimate_seconds


def _ended(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def _project_beginnings(exports: Projection) -> None:
    @exports.on(AdExportRequested)
    async def requested(event: AdExportRequested, model: ReadModel) -> None:
        if event.started_at is None or event.deadline is None:
            return
        started, ends = microseconds(event.started_at), microseconds(event.deadline)
        if event.about is None:
            await model.execute(_RETRIED, event.export_id, event.round, started, ends)
            return
        about, standing = _about(event.about), (event.snapshot, "pending", event.round, event.files, 0, 0, 0)
        await model.execute(_INSERT, event.export_id, *about, *standing, started, started, None, ends, None, 1)

    @exports.on(ExportAdopted)
    async def adopted(event: ExportAdopted, model: ReadModel) -> None:
        counts = event.total, len(event.made), len(event.lost), sum(each.bytes for each in event.formats.values())
        times = (
            microseconds(event.created_at),
            microseconds(event.started_at),
            _ended(event.finished_at),
            microseconds(event.deadline),
        )
        standing = event.snapshot, event.state, event.round, *counts, *times, event.failure, event.entries
        await model.execute(_INSERT, event.export_id, *_about(event.about), *standing)

    @exports.on(ExportPlanned)
    async def planned(event: ExportPlanned, model: ReadModel) -> None:
        sql = "UPDATE {adexport_exports} SET state = 'running', version = version + 1 WHERE id = $1"
        await model.execute(sql, event.export_id)


def _project_results(exports: Projection) -> None:
    @exports.on(FilesMade)
    async def made(event: FilesMade, model: ReadModel) -> None:
        weight = sum(each.bytes for each in event.formats.values())
        await model.execute(_COUNT, event.export_id, len(event.files), -event.revived, weight)

    @exports.on(FilesFailed)
    async def failed(event: FilesFailed, model: ReadModel) -> None:
        await model.execute(_COUNT, event.export_id, 0, len(event.files), 0)

    @exports.on(FilesAskedAgain)
    async def asked_again(event: FilesAskedAgain, model: ReadModel) -> None:
        await model.execute(_COUNT, event.export_id, 0, 0, 0)


def _project_endings(exports: Projection) -> None:
    @exports.on(ExportCompleted)
    async def completed(event: ExportCompleted, model: ReadModel) -> None:
        await model.execute(_END, event.export_id, "done", _ended(event.ended_at), None, 0)

    @exports.on(ExportFailed)
    async def ended(event: ExportFailed, model: ReadModel) -> None:
        await model.execute(_END, event.export_id, "dead", _ended(event.ended_at), event.reason, event.overdue)

    @exports.on(ExportCancelled)
    async def cancelled(event: ExportCancelled, model: ReadModel) -> None:
        await model.execute(_END, event.export_id, "cancelled", _ended(event.ended_at), None, 0)

    @exports.on(ExportExpired)
    async def expired(event: ExportExpired, model: ReadModel) -> None:
        await model.execute("DELETE FROM {adexport_exports} WHERE id = $1", event.export_id)
