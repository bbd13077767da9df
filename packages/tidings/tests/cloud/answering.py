"""A server that speaks SQS's protocol and answers as a test says: for the answers that no stand-in gives."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from cloud_servers import free_port

Answer = Callable[[list[dict[str, Any]]], web.Response | list[dict[str, Any]]]
"""Of the entries of one call: a whole response, or the entries that are not taken."""


def entry_failed(entry: dict[str, Any], code: str, *, sender: bool) -> dict[str, Any]:
    """Return what AWS says of an entry that it has not taken."""
    return {"Id": entry["Id"], "Code": code, "Message": "as told", "SenderFault": sender}


def call_refused(code: str) -> web.Response:
    """Return AWS's answer to a call that it refuses."""
    return web.json_response(
        {"__type": f"com.amazonaws.sqs#{code}", "message": "as told"},
        status=400, headers={"x-amzn-query-error": f"{code};Sender"},
    )  # fmt: skip


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[tuple[str, list[str]]]:
    """Yield the endpoint, and the deduplication ids or bodies of what is taken, in that order."""
    taken: list[str] = []

    async def say(request: web.Request) -> web.Response:
        if request.headers["X-Amz-Target"].endswith("GetQueueUrl"):
            return web.json_response({"QueueUrl": f"http://{request.host}/000000000000/q"})
        entries = (await request.json())["Entries"]
        said = answer(entries)
        if isinstance(said, web.Response):
            return said
        failed = {one["Id"] for one in said}
        new = [entry for entry in entries if entry["Id"] not in failed]
        taken.extend(entry["MessageBody"] for entry in new)
        done = [{"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": ""} for entry in new]
        return web.json_response({"Successful": done, "Failed": said})

    app = web.Application(client_max_size=2**21)
    app.router.add_post("/{path:.*}", say)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}", taken
    finally:
        await runner.cleanup()
