"""Stands between the pages' guard and the routes: refuses impossible addresses, answers failures nobody expected."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adexport.entrypoints.problems import problem

_LOG = logging.getLogger("adexport.http")


class Doorway:
    """ASGI middleware. Inside the guard, so that people get its problems as pages too."""

    def __init__(self, app: ASGIApp) -> None:
        """Pass to `app` what an address of this service can be."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 400 to a NUL character, which no text may hold, and 500 to a failure."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            refusal = problem(400, "The address holds a NUL character (%00). Remove it.")
            await refusal(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if started:  # the connection is cut, which is all that is left to say
                raise
            _LOG.error("A request failed", exc_info=error)
            failure = problem(500, "The service failed at this request. Its log has the reason; please report it.")
            await failure(scope, receive, send)
