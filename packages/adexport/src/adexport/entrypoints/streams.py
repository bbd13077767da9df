"""Live progress as server-sent events: each entry of the timeline once, also across reconnects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from adexport.bootstrap import Application
from adexport.entrypoints.problems import ProblemError
from adexport.events import ExportProgressed
from adexport.queries import TimelineEntry
from tidings import StoreBusyError, StoreUnavailableError

# A stream ends by itself, so that a server can stop and a dead connection is noticed; the browser comes back.
STREAM_SECONDS = 20.0
RECONNECT_MILLISECONDS = 500


def read_last_event_id(request: Request) -> int | None:
    """The sequence that the client saw last, or None. Raises ProblemError 400."""
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 15):
        raise ProblemError(
            400, "Last-Event-ID is not one of this stream's ids. Leave it out to start from the beginning."
        )
    return int(given)


def progress_stream(application: Application, export_id: str, after: int) -> StreamingResponse:
    """The answer that streams the timeline of an export from `after` (exclusive) on."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_messages(application, export_id, after), media_type="text/event-stream", headers=headers)


def message(entry: TimelineEntry) -> bytes:
    """One entry as one server-sent event."""
    data = msgspec.json.encode(entry)
    return b"event: progress\nid: %d\ndata: %b\n\n" % (entry.sequence, data)


async def _messages(application: Application, export_id: str, after: int) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RECONNECT_MILLISECONDS
    loop = asyncio.get_running_loop()
    ends = loop.time() + application.stream_seconds
    changes = application.service.changes(ExportProgressed)
    # When the store is away the stream ends as well: the client comes back and says what it saw last.
    with contextlib.suppress(TimeoutError, StopAsyncIteration, StoreUnavailableError, StoreBusyError):
        while True:
            # The limit is on the wait alone: a time-out that fires between two yields would hit the server instead.
            await asyncio.wait_for(anext(changes), max(0.0, ends - loop.time()))
            for entry in await application.queries.export_timeline(export_id, after=after):
                yield message(entry)
                after = entry.sequence
            export = await application.queries.get_export(export_id)
            if export is None or (export.over and after >= export.version):
                yield b"event: end\ndata: {}\n\n"
                return
