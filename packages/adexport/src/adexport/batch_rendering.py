"""The worker: renders one batch in processes, stores the files, then says so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from adexport.arguments import as_json
from adexport.errors import AdExportError
from adexport.events import (
    AdGenerated,
    AdGenerationFailed,
    CellOrder,
    FailedCell,
    GeneratedFile,
    RenderBatchRequested,
)
from adexport.export import RENDER_ATTEMPTS
from adexport.ports import FileStore, Made, Rendered, Renderer, RenderJob, RenderMemory
from adexport.snapshot import Snapshot, decode_snapshot
from tidings import RetryPolicy, Service, Work

_LOG = logging.getLogger("adexport.worker")
# Failures that a further try may cure, in the words that statistics use.
_CAUSES = {"RenderingCrashedError": "crashed", "RenderingTimedOutError": "timed_out", "StorageError": "storage"}


class BatchRendering:
    """What happens to one batch outside a transaction: reuse, render, store."""

    def __init__(self, memory: RenderMemory, files: FileStore, renderer: Renderer) -> None:
        """Asks `memory` what is wanted and known, stores in `files`, renders with `renderer`."""
        self._memory = memory
        self._files = files
        self._renderer = renderer

    async def handle(self, event: RenderBatchRequested, work: Work) -> None:
        """Make the files of a batch, unless nobody wants them any more, and publish what came of it."""
        if not await self._memory.wanted(event):
            return
        files, failed = await self.run(event, last=work.attempt >= RENDER_ATTEMPTS)
        fresh = {file.key: _made(file) for file in files if not file.reused}
        async with work.finish() as tx:
            await self._memory.remember(tx, fresh)
            if files:
                tx.publish(_generated(event, files))
            if failed:
                tx.publish(
                    AdGenerationFailed(export_id=event.export_id, round=event.round, count=len(failed), cells=failed)
                )

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
        known = await self._memory.known(list(dict.fromkeys(order.key for order in orders)))
        present = await self._files.present([made.sha256 for made in known.values()])
        return [
            self._file(order, made.sha256, made.bytes, made.quality, seconds=0.0, reused=True)
            for order in orders
            if (made := known.get(order.key)) is not None and made.sha256 in present
        ]

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


def _made(file: GeneratedFile) -> Made:
    return Made(sha256=file.sha256, bytes=file.bytes, quality=file.quality)


def subscribe_rendering(
    service: Service, handle: Callable[[RenderBatchRequested, Work], Awaitable[None]], *, concurrency: int
) -> None:
    """Rendering: competing work, `concurrency` batches at a time in this process. `handle` is BatchRendering's."""
    service.register(AdGenerated, AdGenerationFailed)
    retry = RetryPolicy(attempts=RENDER_ATTEMPTS, backoff=timedelta(seconds=1))

    # Never paused: many batches of one design that crash in a row are no outage for the exports of others.
    @service.subscribe(RenderBatchRequested, concurrency=concurrency, retry=retry, pause_after=None)
    async def render_batch(event: RenderBatchRequested, work: Work) -> None:
        await handle(event, work)


def _generated(event: RenderBatchRequested, files: list[GeneratedFile]) -> AdGenerated:
    return AdGenerated(
        export_id=event.export_id,
        round=event.round,
        count=len(files),
        total_bytes=sum(file.bytes for file in files),
        seconds=round(sum(file.seconds for file in files), 4),
        files=files,
    )
