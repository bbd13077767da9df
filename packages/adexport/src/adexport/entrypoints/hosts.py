"""Answers only to the names it is known by, so that a foreign page cannot reach it through a name of its own.

Without this, a page at evil.example whose name is pointed to 127.0.0.1 (DNS rebinding) would count as the same site.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from adexport.entrypoints.problems import problem

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def allowed_hosts(listening_on: str, named: tuple[str, ...]) -> tuple[str, ...]:
    """The names to answer to; empty means any. On loopback without names, only those of this machine."""
    if "*" in named or (not named and listening_on not in LOOPBACK):
        return ()
    return (*LOOPBACK, *named)


def host_name(header: str) -> str:
    """The name in a Host header, without the port, in lower case."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".")


class HostCheck:
    """ASGI middleware that refuses requests to other names with 403."""

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        """Pass to `app` what is addressed to one of `allowed`, or everything when it is empty."""
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the Host header, then pass on or refuse."""
        app = self._app
        if scope["type"] == "http" and self._allowed:
            name = host_name(Headers(scope=scope).get("host", ""))
            if name not in self._allowed:
                app = problem(403, f"This service is not known as {name[:80]!r}. Add the name to ADEXPORT_HOSTS.")
        await app(scope, receive, send)
