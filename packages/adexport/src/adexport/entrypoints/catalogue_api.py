"""What exports are made from over HTTP: designs, feeds, pictures, networks; and the preview."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import FileResponse, Response

from adexport.assets.pictures import MAX_BYTES as MAX_PICTURE
from adexport.catalogue import AssetSummary, DesignSummary, FeedSummary, summarize
from adexport.entrypoints.bodies import JSON_TYPES, MAX_JSON, answer, link, matches, read_body, read_json
from adexport.entrypoints.exports_api import parts
from adexport.entrypoints.openapi import body_of, bytes_body, gives, gives_bytes
from adexport.feeds import MAX_BYTES as MAX_FEED
from adexport.networks import Network
from adexport.previewing import PreviewOrder
from adexport.rendering.encoding import FORMATS
from adexport.requests import PreviewRequest, convert, refuse_breaks

CSV_TYPES = ("text/csv", "text/tab-separated-values", "text/plain", "application/vnd.ms-excel")
PICTURE_TYPES = ("image/png", "image/jpeg", "image/webp")
_MEDIA_TYPES = {str(name): kind.media_type for name, kind in FORMATS.items()}
router = APIRouter(prefix="/v1", tags=["catalogue"])


class DesignAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A design with its document and, for samples, the rows of its sample feed."""

    design: DesignSummary
    document: dict[str, Any]
    sample_rows: list[dict[str, str]]


class FeedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of a feed, in order."""

    columns: list[str]
    row_count: int
    rows: list[dict[str, str]]


@router.get("/designs", responses=gives(list[DesignSummary]))
async def list_designs(request: Request) -> Response:
    """The sample designs, then the own ones, newest first."""
    return answer([summarize(stored) for stored in await parts(request).catalogue.designs()])


@router.get("/designs/{name}", responses=gives(DesignAnswer))
async def get_design(request: Request, name: Annotated[str, Path(max_length=64)]) -> Response:
    """One design with its document."""
    application = parts(request)
    stored = await application.catalogue.design(name)
    feed = await application.exporting.load_feed(stored, None, None)
    rows = list(feed.rows) if stored.feed_csv is not None else []
    return answer(DesignAnswer(design=summarize(stored), document=stored.document, sample_rows=rows))


@router.post(
    "/designs", status_code=201, openapi_extra=bytes_body("application/json"), responses=gives(DesignSummary, 201)
)
async def create_design(request: Request) -> Response:
    """Check a design document and keep it under its name. A design never changes: another one needs another name."""
    stored = await parts(request).catalogue.keep_design(await read_body(request, MAX_JSON, JSON_TYPES))
    headers = {"Location": link(request, f"/v1/designs/{stored.design.name}")}
    return answer(summarize(stored), 201, headers)


@router.post("/feeds", status_code=201, openapi_extra=bytes_body(*CSV_TYPES), responses=gives(FeedSummary, 201))
async def create_feed(request: Request, filename: Annotated[str, Query(max_length=255)] = "feed.csv") -> Response:
    """Check a CSV feed and keep it; its id is the SHA-256 of its bytes."""
    refuse_breaks(filename=filename)
    data = await read_body(request, MAX_FEED, CSV_TYPES)
    feed = await parts(request).catalogue.keep_feed(data, filename)
    return answer(feed, 201, {"Location": link(request, f"/v1/feeds/{feed.id}")})


@router.get("/feeds/{feed_id}", responses=gives(FeedRows))
async def get_feed(
    request: Request,
    feed_id: Annotated[str, Path(max_length=64)],
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Rows of a feed as they were read."""
    feed = await parts(request).catalogue.feed(feed_id)
    rows = list(feed.rows[offset : offset + limit])
    return answer(FeedRows(columns=list(feed.columns), row_count=len(feed.rows), rows=rows))


@router.post("/assets", status_code=201, openapi_extra=bytes_body(*PICTURE_TYPES), responses=gives(AssetSummary, 201))
async def create_asset(request: Request) -> Response:
    """Check a picture and keep it, written anew; designs and feeds name it by its digest."""
    data = await read_body(request, MAX_PICTURE, PICTURE_TYPES)
    asset = await parts(request).catalogue.keep_picture(data)
    return answer(asset, 201, {"Location": link(request, f"/v1/assets/{asset.digest.removeprefix('sha256:')}")})


@router.get("/assets/{digest}", responses=gives_bytes("image/png", "image/jpeg"), response_class=Response)
async def get_asset(request: Request, digest: Annotated[str, Path(max_length=64)]) -> Response:
    """An uploaded picture."""
    application = parts(request)
    media_type = await application.catalogue.asset_media_type(digest)
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
    return FileResponse(await application.files.local(digest), media_type=media_type, headers=headers)


@router.get("/networks", responses=gives(list[Network]))
async def list_networks(request: Request) -> Response:
    """The ad networks' rules as dated data."""
    return answer(list(parts(request).catalogue.networks.values()))


@router.post(
    "/preview",
    openapi_extra=body_of(PreviewRequest),
    responses=gives_bytes(*_MEDIA_TYPES.values()),
    response_class=Response,
)
async def preview(request: Request) -> Response:
    """One file as the export would make it, its weight and its limit in the headers."""
    wanted, _ = await read_json(request, PreviewRequest)
    return await _preview(request, wanted)


@router.get("/preview", responses=gives_bytes(*_MEDIA_TYPES.values()), response_class=Response)
async def preview_of_name(
    request: Request,
    design: Annotated[str, Query(max_length=64)],
    size: Annotated[str, Query(max_length=9)],
    format: Annotated[str, Query(max_length=8)] = "jpeg",
    row: Annotated[int, Query(ge=1, le=10_000)] = 1,
    feed: Annotated[str | None, Query(max_length=64)] = None,
    network: Annotated[str | None, Query(max_length=64)] = None,
    max_bytes: Annotated[int | None, Query(ge=1, le=100_000_000)] = None,
) -> Response:
    """The same for a named design, as an address that an image can have."""
    values: dict[str, Any] = {"design": design, "size": size, "format": format, "row": row, "feed": feed}
    wanted = convert({**values, "network": network, "max_bytes": max_bytes}, PreviewRequest)
    return await _preview(request, wanted)


async def _preview(request: Request, wanted: PreviewRequest) -> Response:
    previews = parts(request).previews
    order: PreviewOrder = await previews.order(wanted)
    headers = {"ETag": f'"{order.key}"', "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    made = await previews.make(order)
    limit = order.cell.max_bytes
    headers |= {"X-Bytes": str(len(made.data)), "X-Verdict": made.verdict, "X-Quality": made.quality}
    if limit is not None:
        headers["X-Limit"] = str(limit)
    return Response(made.data, headers=headers, media_type=_MEDIA_TYPES[wanted.format])
