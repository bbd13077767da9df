"""Exports over HTTP: ask for one, watch it, cancel it, retry what failed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from adexport.bootstrap import Application
from adexport.catalogue import UnknownError
from adexport.entrypoints.bodies import answer, link, matches, read_json
from adexport.entrypoints.idempotency import IdempotencyKeys, RacedError, StoredAnswer, fingerprint, read_key
from adexport.entrypoints.openapi import body_of, gives
from adexport.entrypoints.problems import ProblemError
from adexport.entrypoints.streams import progress_stream, read_last_event_id
from adexport.events import ExportProgressed
from adexport.exporting import Prepared
from adexport.problems import Problem
from adexport.queries import (
    STATES,
    Cell,
    CellGroup,
    ExportPage,
    ExportSummary,
    TimelineEntry,
)
from adexport.requests import ExportRequest, refuse_breaks

LONGEST_WAIT = 30
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?:$|[,;\s])", re.IGNORECASE)
ExportId = Annotated[str, Path(max_length=64, description="The id of an export.")]
After = Annotated[int, Query(ge=0, le=2**53, description="Sequence number to start after.")]
router = APIRouter(prefix="/v1/exports", tags=["exports"])


class ExportAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An export with the addresses of all that belongs to it."""

    status: str
    export: ExportSummary
    links: dict[str, str]
    problems: list[Problem] = []


class PreflightAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an export would make; nothing is recorded. Errors among the problems would refuse it."""

    files: int
    rows: int
    sizes: list[str]
    formats: list[str]
    estimate_seconds: float
    estimate_bytes: int
    problems: list[Problem]


def parts(request: Request) -> Application:
    """What the service is made of."""
    found: Application = request.app.state.application
    return found


def keys_of(request: Request) -> IdempotencyKeys:
    """The idempotency keys of this process."""
    found: IdempotencyKeys = request.app.state.keys
    return found


def represent(request: Request, export: ExportSummary, problems: list[Problem] | None = None) -> ExportAnswer:
    """The export as answers show it."""
    home = link(request, f"/v1/exports/{export.id}")
    names = ("events", "cells", "timeline", "archive", "manifest.csv", "manifest.json", "cancel", "retry")
    links = {"self": home, **{name: f"{home}/{name}" for name in names}}
    return ExportAnswer(status=export.state, export=export, links=links, problems=problems or [])


async def find(request: Request, export_id: str) -> ExportSummary:
    """The export. Raises UnknownError."""
    export = await parts(request).queries.get_export(export_id)
    if export is None:
        raise UnknownError(f"There is no export {export_id[:64]!r}. GET /v1/exports lists those there are.")
    return export


def etag_of(export: ExportSummary) -> str:
    """Changes with every visible change of the export."""
    return f'"{export.id}-{export.version}"'


def read_wait(request: Request) -> int | None:
    """Seconds of `Prefer: wait=N` (RFC 7240), capped; None without it."""
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    return None if found is None else min(int(found[1]), LONGEST_WAIT)


async def wait_until_over(application: Application, export_id: str, seconds: int) -> ExportSummary | None:
    """The export once it is over, or as it stands after `seconds`. Waits on the read model; no worker is held."""
    queries = application.queries
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for _ in application.service.changes(ExportProgressed):
                export = await queries.get_export(export_id)
                if export is None or export.over:
                    return export
    return await queries.get_export(export_id)


def _headers(request: Request, export: ExportSummary, wait: int | None = None) -> dict[str, str]:
    headers = {"Location": link(request, f"/v1/exports/{export.id}"), "ETag": etag_of(export)}
    headers["Cache-Control"] = "no-cache"
    if not export.over:
        headers["Retry-After"] = str(max(1, min(30, round(export.estimate_seconds))))
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
    return headers


@router.post("", status_code=202, openapi_extra=body_of(ExportRequest), responses=gives(ExportAnswer, 200, 202))
async def create_export(request: Request) -> Response:
    """Check, plan, record and publish in one transaction. See `Prefer: wait=N` and `Idempotency-Key`."""
    key, keys = read_key(request), keys_of(request)
    wanted, body = await read_json(request, ExportRequest)
    refuse_breaks(title=wanted.title, naming=wanted.naming)
    mark = fingerprint(request, body)
    with keys.claim(key):
        stored = await keys.stored(key, mark)
        if stored is None:
            stored = await _start(request, wanted, key, mark)
    wait = read_wait(request)
    if wait is None:
        export = await find(request, stored.export_id)
        return Response(stored.body, 202, _headers(request, export), "application/json")
    export = await wait_until_over(parts(request), stored.export_id, wait) or await find(request, stored.export_id)
    problems = msgspec.json.decode(stored.body, type=ExportAnswer).problems
    status = 200 if export.over else 202
    return answer(represent(request, export, problems), status, _headers(request, export, wait))


async def _start(request: Request, wanted: ExportRequest, key: str | None, mark: str) -> StoredAnswer:
    """Record and publish the export, and the answer with it."""
    application, keys = parts(request), keys_of(request)
    prepared = await application.exporting.prepare(wanted)
    snapshot = await application.exporting.keep_snapshot(prepared)
    export_id = application.new_id()
    try:
        async with application.service.transaction() as tx:
            requested = await application.exporting.record(tx, export_id, prepared, snapshot)
            shown = represent(request, requested, prepared.problems)
            stored = StoredAnswer(export_id, msgspec.json.encode(shown))
            await keys.remember(tx, key, mark, stored)
    except RacedError:  # another process answered this key between our look and our commit
        found = await keys.stored(key, mark)
        if found is None:
            raise ProblemError(409, "A request with this Idempotency-Key is still running. Wait for it.") from None
        return found
    return stored


@router.post("/preflight", openapi_extra=body_of(ExportRequest), responses=gives(PreflightAnswer))
async def preflight_export(request: Request) -> Response:
    """Count the files and find the problems of an export without making it."""
    application = parts(request)
    wanted, _ = await read_json(request, ExportRequest)
    prepared: Prepared = await application.exporting.prepare(wanted)
    plan = prepared.plan
    return answer(
        PreflightAnswer(
            files=len(plan.cells),
            rows=len(prepared.snapshot.rows),
            sizes=prepared.sizes,
            formats=prepared.formats,
            estimate_seconds=application.exporting.estimate_seconds(plan),
            estimate_bytes=plan.file_bytes,
            problems=prepared.problems,
        )
    )


@router.get("", responses=gives(ExportPage))
async def list_exports(
    request: Request,
    search: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str | None, Query(max_length=20)] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Exports, newest first, page by page."""
    if state is not None and state not in STATES:
        raise ProblemError(422, f"There is no state {state!r}. Use one of {', '.join(STATES)}.")
    page = await parts(request).queries.list_exports(search=search, state=state, cursor=cursor, limit=limit)
    headers = {}
    if page.next_cursor:
        following = request.url.include_query_params(cursor=page.next_cursor)
        headers["Link"] = f'<{link(request, "/v1/exports")}?{following.query}>; rel="next"'
    return answer(page, headers=headers)


@router.get("/{export_id}", responses=gives(ExportAnswer))
async def get_export(request: Request, export_id: ExportId) -> Response:
    """The export as it stands. `If-None-Match` answers 304; `Prefer: wait=N` waits for the end."""
    export = await find(request, export_id)
    wait = read_wait(request)
    if wait is not None and not export.over:
        export = await wait_until_over(parts(request), export_id, wait) or export
    headers = _headers(request, export, wait)
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return answer(represent(request, export), headers=headers)


@router.post("/{export_id}/cancel", status_code=202, responses=gives(ExportAnswer, 202))
async def cancel_export(request: Request, export_id: ExportId) -> Response:
    """Stop what is not made yet; ready files stay."""
    await find(request, export_id)
    await parts(request).exporting.cancel(export_id)
    return await _changed(request, export_id)


@router.post("/{export_id}/retry", status_code=202, responses=gives(ExportAnswer, 202))
async def retry_export(request: Request, export_id: ExportId) -> Response:
    """Ask again for the files that are not done."""
    await find(request, export_id)
    await parts(request).exporting.retry(export_id)
    return await _changed(request, export_id)


async def _changed(request: Request, export_id: str) -> Response:
    export = await find(request, export_id)
    return answer(represent(request, export), 202, _headers(request, export))


@router.get("/{export_id}/cells", responses=gives(list[Cell]))
async def list_cells(
    request: Request,
    export_id: ExportId,
    group: Annotated[Literal["size", "row", "position"], Query()] = "position",
    state: Annotated[str | None, Query(max_length=20)] = None,
    only: Annotated[str | None, Query(max_length=20)] = None,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 500,
) -> Response:
    """The files of an export, also those not made yet."""
    await find(request, export_id)
    queries = parts(request).queries
    return answer(
        await queries.export_cells(export_id, group=group, state=state, only=only, offset=offset, limit=limit)
    )


@router.get("/{export_id}/groups", responses=gives(list[CellGroup]))
async def list_groups(
    request: Request, export_id: ExportId, by: Annotated[Literal["size", "row"], Query()] = "size"
) -> Response:
    """How far each size or each feed row is."""
    await find(request, export_id)
    return answer(await parts(request).queries.export_groups(export_id, by))


@router.get("/{export_id}/timeline", responses=gives(list[TimelineEntry]))
async def list_timeline(request: Request, export_id: ExportId, after: After = 0) -> Response:
    """What happened so far, in order."""
    await find(request, export_id)
    return answer(await parts(request).queries.export_timeline(export_id, after=after))


@router.get("/{export_id}/events", responses={200: {"content": {"text/event-stream": {}}}})
async def stream_events(request: Request, export_id: ExportId, after: After = 0) -> Response:
    """The timeline live, as server-sent events; `Last-Event-ID` resumes without a gap or a repetition."""
    await find(request, export_id)
    start: Any = read_last_event_id(request)
    return progress_stream(parts(request), export_id, after if start is None else start)
