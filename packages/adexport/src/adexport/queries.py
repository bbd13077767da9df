"""Every read of the read model, with typed answers: the API, the streams and the pages ask only here."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from adexport.deciding import EXPORT, stream_of
from adexport.errors import AdExportError
from adexport.life import Export
from tidings import ProjectionLagError

if TYPE_CHECKING:
    from tidings import Projection, Service

# The seven words of the product; an export is never "parked" and a cell never "waiting to retry" in this version.
STATES = ("pending", "running", "waiting to retry", "parked", "done", "dead", "cancelled")
MAX_PAGE = 500
_PATIENCE = timedelta(seconds=1)
_SUMMARY = """SELECT id, title, design, design_title, state, round, total, done, failed, bytes, row_count, networks,
 sizes, formats, estimate_seconds, created_us, started_us, finished_us, deadline_us, failure, version, snapshot
 FROM {adexport_exports}"""
_CELL = """SELECT position, feed_row, row_label, width, height, format, network, placement, limit_bytes, name, state,
 verdict, bytes, sha256, quality, seconds, cause, reason FROM adexport_cell"""
_OTHER_CAUSE = "coalesce(cause, '') NOT IN ('cannot_fit', 'cannot_draw')"
_CELL_ORDER = {
    "size": "width * height DESC, width, feed_row, position",
    "row": "feed_row, width * height DESC, width, format, position",
    "position": "position",
}


class CursorError(AdExportError):
    """A page cursor that this service did not write."""

    retryable = False


class ExportSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One export, as the list and the head of its page show it.

    `state` is one of pending, running, done, dead, cancelled. `done` and `failed` count files, `total` all files asked
    for. `bytes` is the weight of the files that are ready. `version` grows with every visible change (the ETag).
    `round` is 1, and one more for every retry of failed files. `started_at` is when it was asked for; a retry
    moves it, so that the time between the end and the retry does not count as time it took.
    """

    id: str
    title: str
    design: str
    design_title: str
    state: str
    round: int
    total: int
    done: int
    failed: int
    bytes: int
    rows: int
    networks: list[str]
    sizes: list[str]
    formats: list[str]
    estimate_seconds: float
    created_at: datetime
    started_at: datetime
    finished_at: datetime | None
    deadline: datetime
    failure: str | None
    version: int
    snapshot: str

    @property
    def over(self) -> bool:
        """True when nothing more will happen unless a person asks for it."""
        return self.state in ("done", "dead", "cancelled")

    @property
    def seconds_to_ready(self) -> float | None:
        """Seconds that it was awaited, from the request to the end; a retry adds its own. None while it runs."""
        return None if self.finished_at is None else (self.finished_at - self.started_at).total_seconds()


class ExportPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of exports, newest first; `next_cursor` is None on the last page."""

    items: list[ExportSummary]
    next_cursor: str | None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an export: feed row × size × format (× the placement whose rules it obeys).

    `row` counts from 1. `state` is pending, done, dead or cancelled. `verdict` is "ok" when done and
    "cannot_fit" when no allowed quality reaches `limit_bytes` (then `bytes` is the best size reached).
    `cause` is a short code for statistics (cannot_fit, cannot_draw, render, crashed, timed_out, deadline,
    undelivered, storage);
    `reason` is the sentence for people.
    """

    index: int
    row: int
    row_label: str
    width: int
    height: int
    format: str
    network: str
    placement: str
    limit_bytes: int | None
    name: str
    state: str
    verdict: str | None
    bytes: int | None
    sha256: str | None
    quality: str | None
    seconds: float | None
    cause: str | None
    reason: str | None


class CellGroup(msgspec.Struct, frozen=True, kw_only=True):
    """How far the files of one size ("300x250") or one feed row are; `key` is the size, or the row number as text."""

    key: str
    label: str
    total: int
    done: int
    failed: int
    bytes: int


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to an export. `sequence` counts from 1 without gaps and is the id of the live stream.

    `kind` is accepted, planned, files, failures, asked_again, retried, completed, failed or cancelled.
    `detail` holds {"done", "failed", "total", "bytes", "state"} after it, and "cells": [{"index", "state", "bytes",
    "verdict", "reason"}] for the files it changed. `event_id` is the event that caused it (`tidings where` knows it).
    """

    sequence: int
    at: datetime
    kind: str
    text: str
    event_id: str | None
    detail: dict[str, Any]


def moment(microseconds: int) -> datetime:
    """The aware UTC time of `microseconds` since 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _summary(row: Any) -> ExportSummary:
    values = row.as_dict()
    for name in ("networks", "sizes", "formats"):
        values[name] = json.loads(values[name])
    for name in ("created_us", "started_us", "deadline_us"):
        values[name.replace("_us", "_at") if name != "deadline_us" else "deadline"] = moment(values.pop(name))
    finished = values.pop("finished_us")
    return ExportSummary(
        rows=values.pop("row_count"), finished_at=None if finished is None else moment(finished), **values
    )


def summary(export_id: str, export: Export) -> ExportSummary | None:
    """An export as its stream tells of it; None if there is none, or it was removed."""
    standing, about = export.standing, export.about
    if standing is None or about is None or export.expired:
        return None
    assert export.created_at is not None
    assert export.started_at is not None
    return ExportSummary(
        **{name: getattr(about, name) for name in about.__struct_fields__},
        id=export_id,
        state=standing.state.value,
        round=standing.round,
        total=standing.total,
        done=standing.done,
        failed=standing.failed,
        bytes=export.weight,
        created_at=export.created_at,
        started_at=export.started_at,
        finished_at=export.ended_at,
        deadline=standing.deadline,
        failure=export.failure,
        version=export.entries,
        snapshot=export.snapshot,
    )


def _cell(row: Any) -> Cell:
    values = row.as_dict()
    return Cell(index=values.pop("position"), row=values.pop("feed_row"), **values)


def _write_cursor(created_us: int, export_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_us}.{export_id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        created, export_id = text.split(".", 1)
        if not (created.isascii() and created.isdigit() and len(created) <= 18 and export_id.isprintable()):
            raise ValueError(created)
        return int(created), export_id
    except (ValueError, UnicodeError, binascii.Error) as error:
        raise CursorError(
            "The cursor was not written by this service. Take it from the Link header or start without one."
        ) from error


def _escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


class Queries:
    """Reads of committed state."""

    def __init__(self, service: Service, exports: Projection) -> None:
        """Reads through `service`, and `exports`, the list; opens nothing itself."""
        self._service = service
        self._exports = exports

    async def list_exports(
        self, *, search: str = "", state: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> ExportPage:
        """Exports, newest first; `search` looks in title, design and id. Raises CursorError."""
        await self._catch_up()
        limit = max(1, min(limit, MAX_PAGE))
        where, args = ["TRUE"], list[Any]()
        if search:
            args.append(f"%{_escape_like(search)}%")
            # Stores differ in whether LIKE minds capitals.
            columns = (f"lower({name}) LIKE lower(${len(args)}) ESCAPE '\\'" for name in ("title", "design", "id"))
            where.append(f"({' OR '.join(columns)})")
        if state:
            args.append(state)
            where.append(f"state = ${len(args)}")
        if cursor:
            args.extend(_read_cursor(cursor))
            where.append(f"(created_us, id) < (${len(args) - 1}, ${len(args)})")
        args.append(limit + 1)
        sql = f"{_SUMMARY} WHERE {' AND '.join(where)} ORDER BY created_us DESC, id DESC LIMIT ${len(args)}"
        rows = await self._exports.fetch_all(sql, *args)
        last = rows[limit - 1] if len(rows) > limit else None
        following = _write_cursor(last["created_us"], last["id"]) if last is not None else None
        return ExportPage(items=[_summary(row) for row in rows[:limit]], next_cursor=following)

    async def _catch_up(self) -> None:
        """Wait a little for the list, so that people find what they just asked for; then show it as far as it is."""
        with contextlib.suppress(ProjectionLagError):
            await self._exports.wait_until_caught_up(patience=_PATIENCE)

    async def get_export(self, export_id: str) -> ExportSummary | None:
        """The export as it stands now, from its stream, or None."""
        loaded = await self._service.load(EXPORT, stream_of(export_id))
        return summary(export_id, loaded.state)

    async def export_cells(
        self,
        export_id: str,
        *,
        group: Literal["size", "row", "position"] = "position",
        state: str | None = None,
        only: str | None = None,
        offset: int = 0,
        limit: int = MAX_PAGE,
    ) -> list[Cell]:
        """Files of an export in the order of `group`; `only` keeps one group: a size ("300x250") or a row number."""
        where, args = ["export_id = $1"], list[Any]([export_id])
        if state:
            args.append(state)
            where.append(f"state = ${len(args)}")
        if only and group != "position":
            args.append(only)
            named = "width || 'x' || height" if group == "size" else "CAST(feed_row AS TEXT)"
            where.append(f"{named} = ${len(args)}")
        args.extend((max(1, min(limit, MAX_PAGE)), max(0, offset)))
        rows = await self._service.fetch_all(
            f"{_CELL} WHERE {' AND '.join(where)} ORDER BY {_CELL_ORDER[group]}"
            f" LIMIT ${len(args) - 1} OFFSET ${len(args)}",
            *args,
        )
        return [_cell(row) for row in rows]

    async def may_differ(self, export_id: str) -> bool:
        """True when a retry of the failed files may end differently: not all of them are what they are by their order.

        Such are files too heavy for their limit, and those whose design does not suit their row.
        """
        sql = f"SELECT 1 FROM adexport_cell WHERE export_id = $1 AND state = 'dead' AND {_OTHER_CAUSE} LIMIT 1"
        return await self._service.fetch_one(sql, export_id) is not None

    async def all_cells(self, export_id: str) -> list[Cell]:
        """Every file of an export, at most 20,000, for the archive and the manifest."""
        rows = await self._service.fetch_all(f"{_CELL} WHERE export_id = $1 ORDER BY position", export_id)
        return [_cell(row) for row in rows]

    async def get_cell(self, export_id: str, index: int) -> Cell | None:
        """One file of an export by its index, or None."""
        row = await self._service.fetch_one(f"{_CELL} WHERE export_id = $1 AND position = $2", export_id, index)
        return None if row is None else _cell(row)

    async def export_groups(self, export_id: str, group: Literal["size", "row"]) -> list[CellGroup]:
        """Counts per size or per feed row, largest size or first row first."""
        key = "width || 'x' || height" if group == "size" else "CAST(feed_row AS TEXT)"
        label = key if group == "size" else "min(row_label)"
        order = "max(width * height) DESC, 1" if group == "size" else "min(feed_row)"
        rows = await self._service.fetch_all(
            f"SELECT {key} AS key, {label} AS label, count(*) AS total, count(*) FILTER (WHERE state = 'done') AS done,"
            " count(*) FILTER (WHERE state = 'dead') AS failed,"
            " CAST(coalesce(sum(bytes) FILTER (WHERE state = 'done'), 0) AS BIGINT) AS bytes"
            f" FROM adexport_cell WHERE export_id = $1 GROUP BY {key} ORDER BY {order}",
            export_id,
        )
        return [CellGroup(**row.as_dict()) for row in rows]

    async def export_timeline(self, export_id: str, *, after: int = 0, limit: int = MAX_PAGE) -> list[TimelineEntry]:
        """What happened to an export, in order, from `after` (exclusive) on."""
        rows = await self._service.fetch_all(
            "SELECT sequence, at_us, kind, text, event_id, detail FROM adexport_progress"
            " WHERE export_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
            export_id,
            after,
            limit,
        )
        return [
            TimelineEntry(
                sequence=row["sequence"],
                at=moment(row["at_us"]),
                kind=row["kind"],
                text=row["text"],
                event_id=row["event_id"],
                detail=json.loads(row["detail"]),
            )
            for row in rows
        ]
