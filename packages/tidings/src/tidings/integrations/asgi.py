"""`/healthz` for any ASGI host: FastAPI, Starlette, or the server itself."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tidings.errors import TidingsError
from tidings.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

STORE_SECONDS = 1.0
"""How long the store may take to answer before it counts as unavailable."""

SHOWN = ("bytes", "safe position", "fence held by", "fence held seconds")
"""Facts of a store that the answer holds: what is worth an alarm, and tells nothing of the data."""


class HealthApp:
    """An ASGI application that answers GET and HEAD with the service's health, whatever the path."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; as the server's own application, take part in its lifespan and do nothing there."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["method"] in ("GET", "HEAD"):
            status, health = await self._look()
            await _answer(send, status, health, body=scope["method"] == "GET")
        else:
            await _answer(send, 405, {"status": "method not allowed", "allowed": ["GET", "HEAD"]}, body=True)

    async def _look(self) -> tuple[int, dict[str, Any]]:
        health = self._service.health()
        if health["status"] == "stopped":
            return 503, health
        try:
            async with asyncio.timeout(STORE_SECONDS):
                facts = await self._service.store.status()
        except (TidingsError, TimeoutError) as error:
            return 503, {**health, "status": "store unavailable", "reason": str(error) or "it did not answer in time"}
        shown = {name: fact for name, fact in facts.items() if name in SHOWN and fact is not None}
        return 200, {**health, "store": shown}


def health_app(service: Service) -> HealthApp:
    """Return an ASGI application for a health check.

    200 while the service is at work in this process ("ok", or "degraded" in an outage); 503 when it is stopped or its
    store does not answer. In FastAPI and Starlette: `app.add_route("/healthz", health_app(service))`.
    """
    return HealthApp(service)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _answer(send: Send, status: int, document: dict[str, Any], *, body: bool) -> None:
    content = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content if body else b""})
