"""Turns a page's data into HTML or into its JSON twin, with links that hold under any root path."""

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from adexport.web import words

HERE = Path(__file__).parent
STATIC = HERE / "static"

# Nothing from elsewhere, nothing inline. Pages may only be framed, posted to and scripted by this very service.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TWIN_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def route_path(scope: Mapping[str, Any]) -> str:
    """Return the path inside this application, whether or not the proxy left the root path in front of it."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def relative_root(path: str) -> str:
    """Return the way from a page back to the root, such as `../`, so that no link names a host or a root path."""
    return "../" * (path.count("/") - 1) or "./"


def link(**params: object) -> str:
    """Return a query string of the parameters that have a value."""
    given = {name: str(value) for name, value in params.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


class View:
    """Renders the templates. `now` gives the current time, which pages show other times relative to."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """Load the templates from the package; a name that a template misses is an error, never an empty string."""
        self.now = now
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        for function in (words.badge, words.count, words.duration, words.relative, words.size, words.weight):
            self._templates.filters[function.__name__] = function
        self._templates.globals.update(link=link, version=version("adexport"))

    def page(
        self, request: Request, template: str, data: Mapping[str, Any], *, status: int = 200, **shown: object
    ) -> Response:
        """Answer with the page, or with `data` alone when the address ends in `.json`.

        `shown` holds what only the template needs, such as the title and the geometry of a chart.
        """
        path = route_path(request.scope)
        if path.endswith(".json"):
            return Response(msgspec.json.encode(data), media_type="application/json", headers=TWIN_HEADERS)
        return self.html(path, template, {**data, **shown}, query=request.url.query, status=status)

    def html(
        self, path: str, template: str, context: Mapping[str, Any], *, query: str = "", status: int = 200
    ) -> HTMLResponse:
        """Answer with the template at `path`; its twin has the same query."""
        here = path.rsplit("/", 1)[-1]
        twin = f"{here}.json{'?' + query if query else ''}" if status < 400 else None
        body = self._templates.get_template(template).render(
            root=relative_root(path), here=here, twin=twin, now=self.now(), **context
        )
        return HTMLResponse(body, status_code=status, headers=PAGE_HEADERS)

    def fragment(self, template: str, **context: object) -> HTMLResponse:
        """Answer with a piece of a page, to be put into one that is open already."""
        body = self._templates.get_template(template).render(now=self.now(), **context)
        return HTMLResponse(body, headers=PAGE_HEADERS)
