"""The pages of exports: the list with its figures, and one export with its live progress."""

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adexport.figures import Figures
from adexport.queries import STATES, ExportSummary, Queries
from adexport.web.charts import bars
from adexport.web.export_view import Grouping, load_groups, pace, percent
from adexport.web.view import View

FAILURES_SHOWN = 100
TIMELINE_SHOWN = 200
ROWS_A_PAGE = 50

Act = Callable[[str], Awaitable[object]]


class ExportsPages:
    """Reads `queries` and `figures`; `cancel` and `retry` are the use cases behind the buttons, called with an id.

    `keep_days` is after how many days exports are removed; 0 for never.
    """

    def __init__(
        self, view: View, queries: Queries, figures: Figures, *, cancel: Act, retry: Act, keep_days: int
    ) -> None:
        """Keep what the pages need; nothing is read yet."""
        self._view = view
        self._queries = queries
        self._figures = figures
        self._cancel = cancel
        self._retry = retry
        self._keep_days = keep_days

    def routes(self) -> list[Route]:
        """Return the routes; a twin comes before the page whose path would also fit it."""
        return [
            Route("/exports", self.exports),
            Route("/exports.json", self.exports),
            Route("/exports/{export_id}.json", self.export),
            Route("/exports/{export_id}", self.export),
            Route("/exports/{export_id}/cancel", self.cancel, methods=["POST"]),
            Route("/exports/{export_id}/retry", self.retry, methods=["POST"]),
        ]

    async def exports(self, request: Request) -> Response:
        """Show the list: `q` searches, `state` filters, `cursor` continues."""
        asked = request.query_params
        search, state = asked.get("q", "").strip(), asked.get("state", "")
        if state and state not in STATES:
            raise HTTPException(400, f"There is no state {state!r}: use one of {', '.join(STATES)}.")
        listed = await self._queries.list_exports(
            search=search, state=state or None, cursor=asked.get("cursor"), limit=ROWS_A_PAGE
        )
        analytics = await self._figures.analytics()
        data = {"analytics": analytics, "exports": listed.items, "next_cursor": listed.next_cursor}
        return self._view.page(
            request,
            "exports.html",
            data,
            title="Exports",
            page="exports",
            q=search,
            state=state,
            bars=bars(analytics.days),
            keep_days=self._keep_days,
        )

    async def export(self, request: Request) -> Response:
        """Show one export: `group` is size or row, `only` one of these groups, `page` counts from 0."""
        export = await self._find(request)
        asked = request.query_params
        grouping: Grouping = "row" if asked.get("group") == "row" else "size"
        only, page = asked.get("only"), _page_number(asked.get("page", "0"))
        groups, next_groups = await load_groups(self._queries, export, grouping, only, page)
        if only and not groups:
            raise HTTPException(404, f"This export has no {grouping} {only[:40]!r}. Look at all of its files instead.")
        timeline = await self._queries.export_timeline(export.id, after=max(export.version - TIMELINE_SHOWN, 0))
        failures = await self._queries.export_cells(export.id, state="dead", limit=FAILURES_SHOWN)
        data = {"export": export, "failures": failures, "groups": groups, "timeline": timeline[::-1]}
        return self._view.page(
            request,
            "export.html",
            data,
            title=export.title if export.over else f"{percent(export)} % of {export.title}",
            page="export",
            group=grouping,
            only=only,
            page_number=page,
            next_groups=next_groups,
            retryable=bool(export.failed) and await self._queries.may_differ(export.id),
            pace=pace(export, self._view.now()),
            last_sequence=timeline[-1].sequence if timeline else 0,
        )

    async def cancel(self, request: Request) -> Response:
        """Cancel and go back to the page."""
        return await self._do(request, self._cancel)

    async def retry(self, request: Request) -> Response:
        """Ask again for the failed files and go back to the page."""
        return await self._do(request, self._retry)

    async def _do(self, request: Request, act: Act) -> Response:
        export = await self._find(request)
        await act(export.id)
        return RedirectResponse(f"../{export.id}", status_code=303)

    async def _find(self, request: Request) -> ExportSummary:
        export = await self._queries.get_export(request.path_params["export_id"])
        if export is None:
            raise HTTPException(404, "There is no export with this id. Look for it by title in the list of exports.")
        return export


def _page_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise HTTPException(400, f"The page {text[:20]!r} is not a number: pages count from 0.")
    return int(text)
