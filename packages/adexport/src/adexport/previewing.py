"""The preview is the export: one file made by the same renderer, with its weight against the limit."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from adexport.catalogue import Catalogue, StoredDesign
from adexport.errors import AdExportError
from adexport.events import CellOrder
from adexport.exporting import ENGINE, DesignFacts, Exporting, choose_targets
from adexport.pictures_named import check_pictures
from adexport.planning import Target, plan
from adexport.ports import FileStore, Renderer, RenderJob
from adexport.requests import MAX_SIDE, ExportRequest, PreviewRequest, RequestError
from adexport.snapshot import named_digests

_KEPT = 200
_KEPT_BYTES = 2_000_000
MOST_WAITING = 32


class PreviewError(AdExportError):
    """This picture cannot be made; the message is the renderer's."""

    retryable = False


class TooManyPreviewsError(AdExportError):
    """More previews are waiting than the renderer can serve soon."""

    retryable = True


class PreviewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A preview that is checked and planned; equal orders have equal keys and equal pictures."""

    key: str
    job: RenderJob

    @property
    def cell(self) -> CellOrder:
        """The one file of the job."""
        return self.job.cells[0]


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The picture as the export would make it; `verdict` is "ok" or "cannot_fit" (then the smallest one reached)."""

    data: bytes
    verdict: str
    quality: str


class Previews:
    """Makes previews in a pool of their own, so that they never wait behind an export; keeps the last ones."""

    def __init__(self, exporting: Exporting, catalogue: Catalogue, files: FileStore, renderer: Renderer) -> None:
        """Renders with `renderer`; opens nothing itself."""
        self._exporting = exporting
        self._catalogue = catalogue
        self._files = files
        self._renderer = renderer
        self._kept: OrderedDict[str, Preview] = OrderedDict()
        self._waiting = 0

    async def order(self, request: PreviewRequest) -> PreviewOrder:
        """Check a preview. Raises RequestError, UnknownError, DesignError, PlanError and PreviewError."""
        stored = await self._exporting.load_design(request.design)
        row = await self._row(stored, request)
        target = self._target(stored, request)
        used = {name: row[name] for name in stored.design.fields() if name in row}
        problems = await check_pictures(stored.design, [target], [used], self._catalogue)
        if problems:
            raise PreviewError(f"{problems[0].message} {problems[0].action}")
        assets = named_digests(stored.document, [used])
        facts = DesignFacts(stored.design.digest, stored.design.fields())
        known = {name: name for name in assets}
        target = msgspec.structs.replace(target, formats=None)  # a preview may be in any format
        planned = plan(facts, [used], [target], [request.format], engine=ENGINE, assets=known, quality=request.quality)
        cell = planned.cells[0]
        order = CellOrder(
            index=0,
            key=cell.key,
            row=0,
            width=cell.width,
            height=cell.height,
            format=cell.format,
            max_bytes=cell.max_bytes,
            quality=cell.quality,
        )
        paths = {name: str(await self._files.local(name.removeprefix("sha256:"))) for name in assets}
        document = msgspec.json.encode(stored.document)
        return PreviewOrder(key=cell.key, job=RenderJob(design=document, rows={0: used}, cells=[order], assets=paths))

    async def make(self, order: PreviewOrder) -> Preview:
        """The picture. Raises PreviewError when it cannot be made, TooManyPreviewsError when too many wait."""
        if order.key in self._kept:
            self._kept.move_to_end(order.key)
            return self._kept[order.key]
        if self._waiting >= MOST_WAITING:
            raise TooManyPreviewsError("Too many previews are waiting. Ask again in a moment.")
        self._waiting += 1
        try:
            (rendered,) = await self._renderer.render(order.job)
        except AdExportError as error:
            raise PreviewError(str(error)) from error
        finally:
            self._waiting -= 1
        if rendered.data is None:
            raise PreviewError(rendered.reason)
        preview = Preview(data=rendered.data, verdict=rendered.verdict, quality=rendered.quality)
        self._keep(order.key, preview)
        return preview

    def _keep(self, key: str, preview: Preview) -> None:
        if len(preview.data) > _KEPT_BYTES // 10:
            return
        self._kept[key] = preview
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    async def _row(self, stored: StoredDesign, request: PreviewRequest) -> dict[str, str]:
        if request.fields is not None:
            return request.fields
        feed = await self._exporting.load_feed(stored, request.feed, None)
        if request.row > len(feed.rows):
            raise RequestError(f"The feed has {len(feed.rows)} rows; there is no row {request.row}.", "$.row")
        return feed.rows[request.row - 1]

    def _target(self, stored: StoredDesign, request: PreviewRequest) -> Target:
        """The size with the network's limit, as the export would choose it."""
        wanted = ExportRequest(
            design=stored.design.name,
            sizes=(request.size,),
            networks=(request.network,) if request.network else (),
            max_bytes=request.max_bytes,
        )
        (target,) = choose_targets(wanted, stored.design, self._catalogue.networks)
        if max(target.width, target.height) > MAX_SIDE:
            raise RequestError(f"Size {request.size} is over {MAX_SIDE} px a side. Choose a smaller one.", "$.size")
        return target
