"""Puts the pages on an application: routes, static files, and the guard in front of everything."""

from collections.abc import Callable
from datetime import datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from adexport.catalogue import Catalogue
from adexport.exporting import Exporting
from adexport.figures import Figures
from adexport.queries import Queries
from adexport.web.exports_pages import ExportsPages
from adexport.web.guard import Guard
from adexport.web.making_pages import MakingPages, Start
from adexport.web.view import STATIC, View


def install_pages(
    app: Starlette,
    *,
    queries: Queries,
    figures: Figures,
    catalogue: Catalogue,
    exporting: Exporting,
    start: Start,
    now: Callable[[], datetime],
    keep_days: int,
) -> None:
    """Add the pages to `app` (a FastAPI application too), which must not be serving yet.

    `start` records a prepared export and returns its id. `now` gives the current time, aware. `keep_days` is
    after how many days exports are removed; 0 for never. The application itself answers errors as problem+json; people
    get them as pages. The API is expected under `/v1`.
    """
    view = View(now)
    making = MakingPages(view, catalogue, exporting, start)
    exports = ExportsPages(view, queries, figures, cancel=exporting.cancel, retry=exporting.retry, keep_days=keep_days)
    app.router.routes += [*making.routes(), *exports.routes(), Route("/static/{name}", _static)]
    app.add_middleware(Guard, view=view)


# Not mounted: a mount does not find its files where a proxy takes the root path away.
async def _static(request: Request) -> Response:
    response = await _FILES.get_response(request.path_params["name"], request.scope)
    response.headers.update({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
    return response


_FILES = StaticFiles(directory=STATIC)
