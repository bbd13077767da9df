"""Planning: cuts an export into batches, asks again for what does not come, and gives up at the deadline."""

from __future__ import annotations

from adexport.events import (
    AdExportRequested,
    AdGenerationFailed,
    CellOrder,
    CleaningDue,
    ExportCheckDue,
    FailedCell,
    RenderBatchRequested,
    SnapshotKeptBack,
)
from adexport.export import Check, Standing, State, check, next_check
from adexport.planning import Cell, batch
from adexport.ports import FileStore
from adexport.projections import files_word, finish, hold_standing, note
from adexport.retention import arm_cleaning
from adexport.waiting import UNTIL_STORED, store_waiting, stored, waits
from tidings import Service, Transaction, Undelivered, Work

_PENDING = """SELECT position, key, feed_row, width, height, format, limit_bytes, wanted_quality FROM adexport_cell
 WHERE export_id = $1 AND state = 'pending' ORDER BY position"""


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
    _set_timer(tx, event.export_id, standing, asked=0)


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
        _set_timer(tx, event.export_id, standing, asked=event.asked + 1 if verdict is Check.ASK_AGAIN else 0)


def _set_timer(tx: Transaction, export_id: str, standing: Standing, *, asked: int) -> None:
    timer = ExportCheckDue(export_id=export_id, round=standing.round, settled=standing.settled, asked=asked)
    tx.publish(timer, at=next_check(tx.now(), standing.deadline, asked=asked))


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


def subscribe_undelivered(service: Service) -> None:
    """Where batches go to workers elsewhere: what their queue has given up is said to have failed, as a worker would.

    Redriven, such a batch is made after all: its files count while the export is active, and ended ones are retried.
    """

    @service.subscribe(Undelivered, pause_after=None)
    async def fail_undelivered(event: Undelivered, tx: Transaction) -> None:
        batch = service.original(event)
        if not isinstance(batch, RenderBatchRequested):
            return
        reason = f"No worker came through with it. {event.reason} Retry it; if it happens again, look at their log."
        cells = [FailedCell(index=cell.index, cause="undelivered", reason=reason) for cell in batch.cells]
        tx.publish(AdGenerationFailed(export_id=batch.export_id, round=batch.round, count=len(cells), cells=cells))


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
