"""The worker: plans an export into batches, renders each batch in processes, stores the files, then says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from adexport.arguments import numbered, table
from adexport.errors import AdExportError
from adexport.events import (
    AdExportRequested,
    AdGenerated,
    AdGenerationFailed,
    CellOrder,
    CleaningDue,
    ExportCheckDue,
    FailedCell,
    GeneratedFile,
    RenderBatchRequested,
    SnapshotKeptBack,
)
from adexport.export import RENDER_ATTEMPTS, Check, Standing, State, check, next_check
from adexport.planning import Cell, batch
from adexport.ports import FileStore, Rendered, Renderer, RenderJob
from adexport.projections import as_json, files_word, finish, hold_standing, microseconds, note
from adexport.retention import arm_cleaning
from adexport.snapshot import Snapshot, decode_snapshot
from adexport.waiting import UNTIL_STORED, store_waiting, stored, waits
from tidings import RetryPolicy, Service, Transaction, Work

_LOG = logging.getLogger("adexport.worker")
_PENDING = """SELECT position, key, feed_row, width, height, format, limit_bytes, wanted_quality FROM adexport_cell
 WHERE export_id = $1 AND state = 'pending' ORDER BY position"""
_REMEMBER = """INSERT INTO adexport_render (key, sha256, bytes, quality, created_us)
 SELECT file.*, CAST($1 AS BIGINT) FROM ({files}) AS file WHERE true ON CONFLICT DO NOTHING"""
# Failures that a further try may cure, in the words that statistics use.
_CAUSES = {"RenderingCrashedError": "crashed", "RenderingTimedOutError": "timed_out", "StorageError": "storage"}


async def request_missing(tx: Transaction, export_id: str, round: int) -> tuple[int, int]:
    """Publish batches for every pending cell of the export; return the numbers of cells and batches."""
    rows = await tx.fetch_all(_PENDING, export_id)
    cells = {
        row["position"]: Cell(
            index=row["position"],
            key=row["key"],
            row=row["feed_row"] - 1,
            width=row["width"],
            height=row["height"],
            format=row["format"],
            max_bytes=row["limit_bytes"],
            quality=row["wanted_quality"],
        )
        for row in rows
    }
    snapshot = await tx.fetch_value("SELECT snapshot FROM adexport_export WHERE id = $1", export_id)
    batches = batch(cells.values())
    for part in batches:
        orders = [_order(cells[index]) for index in part.cells]
        tx.publish(RenderBatchRequested(export_id=export_id, round=round, snapshot=str(snapshot), cells=orders))
    return len(cells), len(batches)


def _order(cell: Cell) -> CellOrder:
    return CellOrder(
        index=cell.index,
        key=cell.key,
        row=cell.row,
        width=cell.width,
        height=cell.height,
        format=cell.format,
        max_bytes=cell.max_bytes,
        quality=cell.quality,
    )


async def plan_export(event: AdExportRequested, tx: Transaction) -> None:
    """Cut the missing files of an export into batches and set its timer, and that of cleaning."""
    arm_cleaning(tx)
    standing = await hold_standing(tx, event.export_id)
    if standing is None or not standing.active or standing.round != event.round:
        return  # cancelled, or asked for again, before a worker came to it
    if not await waits(tx, event.export_id):
        await _begin(tx, event.export_id, standing)
    _set_timer(tx, event.export_id, standing)


async def _begin(tx: Transaction, export_id: str, standing: Standing) -> None:
    """Publish the batches of an export, unless that was done already."""
    if standing.state is not State.PENDING:
        return
    await tx.execute("UPDATE adexport_export SET state = $2 WHERE id = $1", export_id, State.RUNNING.value)
    files, batches = await request_missing(tx, export_id, standing.round)
    plural = "batch" if batches == 1 else "batches"
    await note(tx, export_id, "planned", f"Picked up by a worker: {files_word(files)} in {batches} {plural}")


async def check_export(event: ExportCheckDue, tx: Transaction) -> None:
    """The timer went off: ask again for what is missing, or give up at the deadline."""
    standing = await hold_standing(tx, event.export_id)
    if standing is None:
        return
    verdict = check(standing, round=event.round, settled_before=event.settled, now=tx.now())
    if verdict is Check.GIVE_UP:
        await give_up(tx, event.export_id)
    if verdict is Check.ASK_AGAIN and not await waits(tx, event.export_id):
        files, _ = await request_missing(tx, event.export_id, event.round)
        await note(tx, event.export_id, "asked_again", f"Nothing arrived lately: asked again for {files_word(files)}")
    if verdict in (Check.WAIT, Check.ASK_AGAIN):
        _set_timer(tx, event.export_id, standing)


def _set_timer(tx: Transaction, export_id: str, standing: Standing) -> None:
    timer = ExportCheckDue(export_id=export_id, round=standing.round, settled=standing.settled)
    tx.publish(timer, at=next_check(tx.now(), standing.deadline))


def subscribe_planning(service: Service, files: FileStore) -> None:
    """Planning and the durable timer: database work only, but for snapshots that could not be stored at once."""
    service.subscribe(AdExportRequested)(plan_export)
    service.subscribe(ExportCheckDue)(check_export)
    service.register(CleaningDue)

    @service.subscribe(SnapshotKeptBack, retry=UNTIL_STORED, pause_after=None)
    async def store_snapshot(event: SnapshotKeptBack, work: Work) -> None:
        await store_waiting(service, files, event.snapshot)
        async with work.finish() as tx:
            await stored(tx, event.snapshot)
            standing = await hold_standing(tx, event.export_id)
            if standing is not None:
                await _begin(tx, event.export_id, standing)


async def give_up(tx: Transaction, export_id: str) -> None:
    """The deadline came: what is missing is dead, and the export ends with what it has."""
    reason = "Not ready by the deadline. Retry it; if it happens again, look at the worker's log."
    missing = await tx.execute(
        "UPDATE adexport_cell SET state = 'dead', cause = 'deadline', reason = $2"
        " WHERE export_id = $1 AND state = 'pending'",
        export_id,
        reason,
    )
    await tx.execute("UPDATE adexport_export SET failed = failed + $2 WHERE id = $1", export_id, missing)
    await finish(tx, export_id, State.DEAD, failure=f"{files_word(missing)} not ready by the deadline.")


class BatchRendering:
    """What happens to one batch outside a transaction: reuse, render, store."""

    def __init__(self, service: Service, files: FileStore, renderer: Renderer) -> None:
        """Reads through `service`, stores in `files`, renders with `renderer`."""
        self._service = service
        self._files = files
        self._renderer = renderer

    async def wanted(self, event: RenderBatchRequested) -> bool:
        """False once the export is over (cancelled, past its deadline) or a newer round replaced this one."""
        row = await self._service.fetch_one("SELECT state, round FROM adexport_export WHERE id = $1", event.export_id)
        active = (State.PENDING.value, State.RUNNING.value)
        return row is not None and row["state"] in active and row["round"] == event.round

    async def run(self, event: RenderBatchRequested, *, last: bool) -> tuple[list[GeneratedFile], list[FailedCell]]:
        """The files and the failures of a batch. Unless this is the `last` try, what a further try may cure raises.

        On the last try cells are rendered one drawing at a time, so that the one which crashes its process is found
        and the others get their files.
        """
        reused = await self._reuse(event.cells)
        done = {file.index for file in reused}
        orders = [cell for cell in event.cells if cell.index not in done]
        if not orders:
            return reused, []
        snapshot = decode_snapshot(await self._files.read(event.snapshot))
        files: list[GeneratedFile] = []
        failed: list[FailedCell] = []
        for part in _drawings(orders) if last else [orders]:
            try:
                made, unmade = await self._make(snapshot, part)
            except Exception as error:
                if not last and getattr(error, "retryable", True):
                    raise
                _LOG.exception("A batch of export %s failed on its last try", event.export_id)
                made, unmade = [], [_failure(cell.index, error) for cell in part]
            files += made
            failed += unmade
        return reused + files, failed

    async def _reuse(self, orders: Sequence[CellOrder]) -> list[GeneratedFile]:
        keys = list(dict.fromkeys(order.key for order in orders))
        rows = await self._service.fetch_all(
            f"SELECT key, sha256, bytes, quality FROM adexport_render WHERE key IN ({numbered(len(keys))})", *keys
        )
        present = await self._files.present([row["sha256"] for row in rows])
        known = {row["key"]: row for row in rows if row["sha256"] in present}
        return [self._reused(order, known[order.key]) for order in orders if order.key in known]

    def _reused(self, order: CellOrder, row: Any) -> GeneratedFile:
        return self._file(order, row["sha256"], row["bytes"], row["quality"], seconds=0.0, reused=True)

    async def _make(
        self, snapshot: Snapshot, orders: Sequence[CellOrder]
    ) -> tuple[list[GeneratedFile], list[FailedCell]]:
        # Several placements may ask for the very same file: it is made once.
        first = {order.key: order for order in reversed(orders)}
        job = await self._job(snapshot, sorted(first.values(), key=lambda order: order.index))
        results = await self._renderer.render(job)
        made = [result for result in results if not result.cause]
        digests = await self._files.put([result.data or b"" for result in made])
        stored = {result.index: digest for result, digest in zip(made, digests, strict=True)}
        by_index = {result.index: result for result in results}
        pairs = [(order, by_index[first[order.key].index]) for order in orders]
        files = [self._stored(order, result, stored[result.index]) for order, result in pairs if result.index in stored]
        failed = [
            FailedCell(index=order.index, cause=result.cause, reason=result.reason, best_bytes=result.best_bytes)
            for order, result in pairs
            if result.index not in stored
        ]
        return files, failed

    async def _job(self, snapshot: Snapshot, orders: list[CellOrder]) -> RenderJob:
        assets = {name: str(await self._files.local(name.removeprefix("sha256:"))) for name in snapshot.assets}
        rows = {order.row: snapshot.rows[order.row] for order in orders}
        return RenderJob(design=as_json(snapshot.design).encode(), rows=rows, cells=orders, assets=assets)

    def _stored(self, order: CellOrder, result: Rendered, digest: str) -> GeneratedFile:
        return self._file(order, digest, len(result.data or b""), result.quality, seconds=result.seconds)

    def _file(
        self, order: CellOrder, digest: str, size: int, quality: str, *, seconds: float, reused: bool = False
    ) -> GeneratedFile:
        return GeneratedFile(
            index=order.index,
            key=order.key,
            url=self._files.url(digest),
            format=order.format,
            width=order.width,
            height=order.height,
            bytes=size,
            sha256=digest,
            seconds=round(seconds, 4),
            quality=quality,
            reused=reused,
        )


def _drawings(orders: Sequence[CellOrder]) -> list[list[CellOrder]]:
    """The orders, those that share one drawing together."""
    groups: dict[tuple[int, int, int], list[CellOrder]] = {}
    for order in orders:
        groups.setdefault((order.row, order.width, order.height), []).append(order)
    return list(groups.values())


def _failure(index: int, error: Exception) -> FailedCell:
    known = isinstance(error, AdExportError)
    reason = str(error) if known else f"The worker failed with {type(error).__name__}. Retry; then look at its log."
    return FailedCell(index=index, cause=_CAUSES.get(type(error).__name__, "render"), reason=reason)


def subscribe_rendering(service: Service, rendering: BatchRendering, *, concurrency: int) -> None:
    """Rendering: competing work, `concurrency` batches at a time in this process."""
    retry = RetryPolicy(attempts=RENDER_ATTEMPTS, backoff=timedelta(seconds=1))

    # Never paused: many batches of one design that crash in a row are no outage for the exports of others.
    @service.subscribe(RenderBatchRequested, concurrency=concurrency, retry=retry, pause_after=None)
    async def render_batch(event: RenderBatchRequested, work: Work) -> None:
        if not await rendering.wanted(event):
            return
        files, failed = await rendering.run(event, last=work.attempt >= RENDER_ATTEMPTS)
        async with work.finish() as tx:
            if files:
                await _remember(tx, [file for file in files if not file.reused])
                tx.publish(_generated(event, files))
            if failed:
                tx.publish(
                    AdGenerationFailed(export_id=event.export_id, round=event.round, count=len(failed), cells=failed)
                )


async def _remember(tx: Transaction, files: list[GeneratedFile]) -> None:
    """Let later exports reuse these files."""
    # In the order of their keys: batches that made the same files at the same time must not wait for each other.
    known = sorted({(file.key, file.sha256, file.bytes, file.quality) for file in files})
    if known:
        rows, args = table(("TEXT", "TEXT", "BIGINT", "TEXT"), known, first=2)
        await tx.execute(_REMEMBER.format(files=rows), microseconds(tx), *args)


def _generated(event: RenderBatchRequested, files: list[GeneratedFile]) -> AdGenerated:
    return AdGenerated(
        export_id=event.export_id,
        round=event.round,
        count=len(files),
        total_bytes=sum(file.bytes for file in files),
        seconds=round(sum(file.seconds for file in files), 4),
        files=files,
    )
