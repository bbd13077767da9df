"""Finished files over HTTP: one, all as a zip, and the manifest."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from adexport.archive import Entry, archive_name, manifest_csv, manifest_json, stream_archive
from adexport.catalogue import UnknownError
from adexport.entrypoints.bodies import attachment, matches
from adexport.entrypoints.exports_api import ExportId, find, parts
from adexport.entrypoints.manifests import entry_of
from adexport.entrypoints.openapi import gives_bytes
from adexport.entrypoints.problems import ProblemError
from adexport.naming import safe
from adexport.queries import ExportSummary
from adexport.rendering.encoding import FORMATS

# A file never changes under its address: an export's cell gets one file, once.
_FOREVER = "private, max-age=31536000, immutable"
_INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
_ZIP = "application/zip"
_MEDIA_TYPES = {str(name): kind.media_type for name, kind in FORMATS.items()}
_LINKED: dict[int | str, dict[str, str]] = {307: {"description": "The same bytes, at a link that expires soon."}}
router = APIRouter(prefix="/v1/exports/{export_id}", tags=["files"])


@router.get("/files/{index}", responses={**gives_bytes(*_MEDIA_TYPES.values()), **_LINKED}, response_class=Response)
async def get_file(
    request: Request,
    export_id: ExportId,
    index: Annotated[int, Path(ge=0, le=1_000_000)],
    download: Annotated[bool, Query()] = False,
) -> Response:
    """One file of an export; `download=1` saves it under its name."""
    cell = await parts(request).queries.get_cell(export_id, index)
    if cell is None:
        raise UnknownError(f"Export {export_id!r} has no file {index}.")
    if cell.state != "done" or cell.sha256 is None:
        raise ProblemError(409, f"File {index} is {cell.state}: {cell.reason or 'it is not made yet'}")
    headers = {"ETag": f'"{cell.sha256}"', "Cache-Control": _FOREVER, **_INERT}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    files, media_type = parts(request).files, _MEDIA_TYPES[cell.format]
    if download:
        disposition = headers["Content-Disposition"] = attachment(cell.name.rsplit("/", 1)[-1])
        if link := await files.link(cell.sha256, media_type=media_type, disposition=disposition):
            return _elsewhere(link)
    path = await files.local(cell.sha256)
    return FileResponse(path, media_type=media_type, headers=headers)


@router.get("/archive", responses={**gives_bytes(_ZIP), **_LINKED}, response_class=Response)
async def get_archive(request: Request, export_id: ExportId) -> Response:
    """Every file that is ready, with the manifest, as a zip; made while it is sent, or kept from an earlier time."""
    export, entries = await _entries(request, export_id)
    files, disposition = parts(request).files, attachment(f"{_stem(export)}.zip")
    pieces = iterate_in_threadpool(stream_archive(entries, lambda entry: files.read_blocking(entry.sha256)))
    if export.over:
        name = archive_name(entries)
        if link := await files.link(name, media_type=_ZIP, disposition=disposition):
            return _elsewhere(link)
        pieces = files.passing(name, pieces)
    headers = {"Content-Disposition": disposition, **_INERT}
    return StreamingResponse(pieces, media_type=_ZIP, headers=headers)


@router.get("/manifest.csv", responses=gives_bytes("text/csv"), response_class=Response)
async def get_manifest_csv(request: Request, export_id: ExportId) -> Response:
    """A line for each file: name, row, size, format, weight, SHA-256, verdict, reason."""
    export, entries = await _entries(request, export_id)
    headers = {"Content-Disposition": attachment(f"{_stem(export)}.csv"), **_INERT}
    return Response(manifest_csv(entries), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/manifest.json", responses=gives_bytes("application/json"), response_class=Response)
async def get_manifest_json(request: Request, export_id: ExportId) -> Response:
    """The manifest as a JSON array."""
    _, entries = await _entries(request, export_id)
    return Response(manifest_json(entries), media_type="application/json", headers=_INERT)


async def _entries(request: Request, export_id: str) -> tuple[ExportSummary, list[Entry]]:
    export = await find(request, export_id)
    cells = await parts(request).queries.all_cells(export_id)
    return export, [entry_of(cell) for cell in cells if cell.state in ("done", "dead")]


def _elsewhere(link: str) -> Response:
    """Send a reader to a link that is valid for a short time."""
    return RedirectResponse(link, 307, {"Cache-Control": "no-store"})


def _stem(export: ExportSummary) -> str:
    return f"{safe(export.title, 60) or export.design}-{export.id[:8]}"
