"""Stands in front of the application: refuses writes from other sites and shows problems to people as pages."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adexport.web.view import View, route_path

SAFE = {"GET", "HEAD", "OPTIONS"}


def from_other_site(headers: Mapping[str, str]) -> bool:
    """Tell whether a browser sent this request on behalf of another site.

    Sec-Fetch-Site decides where the browser sends it, else Origin against Host. A request with neither comes from a
    program, which carries nobody's session.
    """
    fetched = headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


class Guard:
    """ASGI middleware around the whole application; streams pass through untouched."""

    def __init__(self, app: ASGIApp, view: View) -> None:
        """Guard `app`; `view` renders the problems."""
        self._app = app
        self._view = view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it is a write on behalf of another site."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        app = self._app
        if scope["method"] not in SAFE and from_other_site(headers):
            app = _refusal
        if self._for_people(scope, headers):
            send = _ProblemPage(self._view, scope, receive, send)
        await app(scope, receive, send)

    def _for_people(self, scope: Scope, headers: Headers) -> bool:
        path = route_path(scope)
        return "text/html" in headers.get("accept", "") and not path.startswith("/v1/") and not path.endswith(".json")


async def _refusal(scope: Scope, receive: Receive, send: Send) -> None:
    problem = {
        "type": "about:blank",
        "title": "This request came from another site",
        "status": 403,
        "detail": "Only the pages of this service and programs may change things. Open the page here and try again.",
    }
    await JSONResponse(problem, 403, media_type="application/problem+json")(scope, receive, send)


class _ProblemPage:
    """A `send` that holds a problem+json answer back until it is whole, and sends a page that says the same."""

    def __init__(self, view: View, scope: Scope, receive: Receive, send: Send) -> None:
        self._view = view
        self._scope = scope
        self._receive = receive
        self._send = send
        self._held: bytearray | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = Headers(raw=message["headers"]).get("content-type", "")
            if message["status"] >= 400 and kind.startswith("application/problem+json"):
                self._held = bytearray()
                return
        if self._held is None:
            await self._send(message)
            return
        self._held += message.get("body", b"")
        if not message.get("more_body", False):
            await self._show(json.loads(self._held))

    async def _show(self, problem: dict[str, Any]) -> None:
        status = int(problem.get("status", 500))
        context = {
            "title": problem.get("title", "Something went wrong"),
            "page": "error",
            "status": status,
            "detail": problem.get("detail", ""),
        }
        page = self._view.html(route_path(self._scope), "error.html", context, status=status)
        await page(self._scope, self._receive, self._send)
