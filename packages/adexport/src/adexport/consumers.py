"""Planning: cuts an export into batches, asks again for what does not come, and gives up at the deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adexport.deciding import EXPORT, CheckUp, Plan, stream_of
from adexport.events import (
    AdExportRequested,
    AdGenerationFailed,
    CellOrder,
    CleaningDue,
    ExportCheckDue,
    FailedCell,
    FilesAskedAgain,
    RenderBatchRequested,
    SnapshotKeptBack,
)
from adexport.export import Check, Standing, check, next_check
from adexport.life import Export
from adexport.planning import Batch, Cell, batch
from adexport.ports import FileStore
from adexport.retention import arm_cleaning
from adexport.timeline import decide, tell
from adexport.waiting import UNTIL_STORED, store_waiting, stored, waits
from tidings import Service, Transaction, Undelivered, Work

_PENDING = """SELECT position, key, feed_row, width, height, format, limit_bytes, wanted_quality FROM adexport_cell
 WHERE export_id = $1 AND state = 'pending' ORDER BY position"""
_OVERDUE = """UPDATE adexport_cell SET state = 'dead', cause = 'deadline', reason = $2
 WHERE export_id = $1 AND state = 'pending'"""


async def _missing(tx: Transaction, export_id: str) -> dict[int, Cell]:
    """The pending cells of an export by their index."""
    rows = await tx.fetch_all(_PENDING, export_id)
    return {
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


def _publish(
    tx: Transaction, export_id: str, round: int, snapshot: str, cells: Mapping[int, Cell], batches: Sequence[Batch]
) -> None:
    for part in batches:
        orders = [_order(cells[index]) for index in part.cells]
        tx.publish(RenderBatchRequested(export_id=export_id, round=round, snapshot=snapshot, cells=orders))


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


async def plan(service: Service, event: AdExportRequested, tx: Transaction) -> None:
    """Cut the missing files of an export into batches and set its timer, and that of cleaning."""
    arm_cleaning(tx)
    if await waits(tx, event.snapshot):
        export = (await service.load(EXPORT, stream_of(event.export_id), tx=tx)).state
    else:
        export = await begin(service, event.export_id, event.round, event.snapshot, tx)
    # Else it was cancelled, or asked for again, before a worker came to it.
    if export.active is not None and export.active.round == event.round:
        _set_timer(tx, event.export_id, export.active, asked=0)


async def begin(service: Service, export_id: str, round: int, snapshot: str, tx: Transaction) -> Export:
    """Publish the batches of an export, unless that was done already, or it is over; return it as it is then."""
    cells = await _missing(tx, export_id)
    batches = batch(cells.values())
    command = Plan(export_id=export_id, round=round, files=len(cells), batches=len(batches))
    decision = await decide(service, command, tx)
    if decision.events:
        _publish(tx, export_id, round, snapshot, cells, batches)
        await tell(tx, decision)
    return decision.state


async def check_up(service: Service, event: ExportCheckDue, tx: Transaction) -> None:
    """The timer went off: ask again for what is missing, or give up at the deadline."""
    name = event.export_id
    snapshot = (await service.load(EXPORT, stream_of(name), tx=tx)).state.snapshot
    may_ask = not await waits(tx, snapshot)
    command = CheckUp(export_id=name, round=event.round, settled=event.settled, now=tx.now(), may_ask=may_ask)
    decision = await decide(service, command, tx)
    for said in decision.events:
        if isinstance(said, FilesAskedAgain):
            cells = await _missing(tx, name)
            _publish(tx, name, event.round, snapshot, cells, batch(cells.values()))
        else:
            await tx.execute(
                _OVERDUE, name, "Not ready by the deadline. Retry it; if it happens again, look at the worker's log."
            )
    if decision.events:
        await tell(tx, decision)
    standing = decision.state.active
    if standing is not None and standing.round == event.round:
        verdict = check(standing, round=event.round, settled_before=event.settled, now=tx.now())
        _set_timer(tx, name, standing, asked=event.asked + 1 if verdict is Check.ASK_AGAIN else 0)


def _set_timer(tx: Transaction, export_id: str, standing: Standing, *, asked: int) -> None:
    timer = ExportCheckDue(export_id=export_id, round=standing.round, settled=standing.settled, asked=asked)
    tx.publish(timer, at=next_check(tx.now(), standing.deadline, asked=asked))


def subscribe_planning(service: Service, files: FileStore) -> None:
    """Planning and the durable timer: database work only, but for snapshots that could not be stored at once."""
    service.register(CleaningDue)

    @service.subscribe(AdExportRequested)
    async def plan_export(event: AdExportRequested, tx: Transaction) -> None:
        await plan(service, event, tx)

    @service.subscribe(ExportCheckDue)
    async def check_export(event: ExportCheckDue, tx: Transaction) -> None:
        await check_up(service, event, tx)

    @service.subscribe(SnapshotKeptBack, retry=UNTIL_STORED, pause_after=None)
    async def store_snapshot(event: SnapshotKeptBack, work: Work) -> None:
        await store_waiting(service, files, event.snapshot)
        async with work.finish() as tx:
            await stored(tx, event.snapshot)
            standing = (await service.load(EXPORT, stream_of(event.export_id), tx=tx)).state.active
            if standing is not None:
                await begin(service, event.export_id, standing.round, event.snapshot, tx)


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
