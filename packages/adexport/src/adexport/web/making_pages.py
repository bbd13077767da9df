"""The pages on which exports are made: the designs, and the form of a new export with its check."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any

import msgspec
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adexport.catalogue import Catalogue, StoredDesign, summarize
from adexport.errors import AdExportError
from adexport.exporting import Exporting, Prepared
from adexport.naming import DEFAULT_PATTERN, TOKENS
from adexport.networks import Network
from adexport.problems import Problem
from adexport.rendering.encoding import FORMATS
from adexport.web.export_view import proportion
from adexport.web.order import Checked, Order, check, read_order
from adexport.web.view import View
from tidings import TidingsError

# A feed may have 5 MB; the rest of a form is small.
MAX_FORM_BYTES = 6_000_000
FORMAT_NOTES = (
    ("jpeg", "JPEG", "photos, every network"),
    ("png", "PNG", "sharp, transparent"),
    ("webp", "WebP", "lightest, fewer networks"),
)
_SHAPES = ("plain", "strip", "tall")

Start = Callable[[Prepared], Awaitable[str]]


class SizeChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A size to tick. `networks` have a placement of it; `limits` are `network:bytes` (or `network:`) of all takers."""

    name: str
    width: int
    height: int
    networks: list[str]
    limits: list[str]


class NetworkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A network to tick; `usable` is false where it takes none of the formats made here, and `note` says why."""

    name: str
    title: str
    as_of: date
    note: str
    usable: bool


def size_choices(networks: Mapping[str, Network]) -> list[SizeChoice]:
    """List every size that some network names, by proportion and then from large to small."""
    usable = {name: network for name, network in networks.items() if set(network.formats) & set(FORMATS)}
    sizes = {(place.width, place.height) for network in usable.values() for place in network.placements}
    order = sorted(sizes, key=lambda size: (_SHAPES.index(proportion(*size)), -size[0] * size[1], size))
    return [_size_choice(width, height, usable) for width, height in order]


def _size_choice(width: int, height: int, networks: Mapping[str, Network]) -> SizeChoice:
    taking = {name: place for name, network in networks.items() if (place := network.placement_for(width, height))}
    return SizeChoice(
        name=f"{width}x{height}",
        width=width,
        height=height,
        networks=[name for name, place in taking.items() if place in networks[name].placements],
        limits=[f"{name}:{place.max_bytes or ''}" for name, place in taking.items()],
    )


def network_choices(networks: Mapping[str, Network]) -> list[NetworkChoice]:
    """List the networks, by title, those that cannot be used last."""
    choices = [
        NetworkChoice(
            name=network.name,
            title=network.title,
            as_of=network.as_of,
            note=network.note,
            usable=bool({*network.formats, *(network.any_size.formats if network.any_size else ())} & set(FORMATS)),
        )
        for network in networks.values()
    ]
    return sorted(choices, key=lambda choice: (not choice.usable, choice.title))


class MakingPages:
    """`start` records a prepared export, publishes its request and returns its id."""

    def __init__(self, view: View, catalogue: Catalogue, exporting: Exporting, start: Start) -> None:
        """Keep what the pages need; nothing is read yet."""
        self._view = view
        self._catalogue = catalogue
        self._exporting = exporting
        self._start = start
        self._networks = network_choices(catalogue.networks)
        self._sizes = size_choices(catalogue.networks)

    def routes(self) -> list[Route]:
        """Return the routes; they come before those of single exports, whose path would also fit `exports/new`."""
        return [
            Route("/", self.home),
            Route("/designs", self.designs),
            Route("/designs.json", self.designs),
            Route("/designs", self.add_design, methods=["POST"]),
            Route("/exports/new", self.new),
            Route("/exports/new.json", self.new),
            Route("/exports/new", self.ask, methods=["POST"]),
            Route("/exports/new/check", self.check, methods=["POST"]),
        ]

    async def home(self, request: Request) -> Response:
        """Send people to the designs."""
        return RedirectResponse("designs", status_code=307)

    async def designs(self, request: Request) -> Response:
        """Show every design."""
        return await self._show_designs(request)

    async def add_design(self, request: Request) -> Response:
        """Store a design document sent as a file, then show it first in a new export; or say what is wrong with it."""
        form = await _form(request)
        document = form.get("document")
        data = await document.read() if isinstance(document, UploadFile) else b""
        try:
            stored = await self._catalogue.keep_design(data)
        except (AdExportError, TidingsError) as error:
            return await self._show_designs(request, problem=str(error), status=422)
        return RedirectResponse(f"exports/new?design={stored.design.name}", status_code=303)

    async def new(self, request: Request) -> Response:
        """Show the form, filled in as the address says."""
        order = read_order(request.query_params, await self._first_design(), whole=False)
        _, checked, problems = await check(self._exporting, order)
        return await self._show_form(request, order, checked, problems)

    async def check(self, request: Request) -> Response:
        """Answer with the count and the problems of a form, as a piece of the page."""
        order = await self._read_form(await _form(request))
        _, checked, problems = await check(self._exporting, order)
        return self._view.fragment("check.html", checked=checked, problems=problems)

    async def ask(self, request: Request) -> Response:
        """Start the export and go to its page; or show the form again with what stands in the way."""
        form = await _form(request)
        try:
            order = await self._read_form(form, keep_file=True)
        except AdExportError as error:
            order = await self._read_form(form)
            problem = Problem(code="feed", message=str(error), action="")
            return await self._show_form(request, order, None, [problem], status=422)
        prepared, checked, problems = await check(self._exporting, order)
        if prepared is None or prepared.errors:
            return await self._show_form(request, order, checked, problems, status=422)
        return RedirectResponse(f"../exports/{await self._start(prepared)}", status_code=303)

    async def _read_form(self, form: FormData, *, keep_file: bool = False) -> Order:
        order = read_order(form, await self._first_design())
        file = form.get("file")
        if keep_file and isinstance(file, UploadFile) and file.size:
            feed = await self._catalogue.keep_feed(await file.read(), file.filename or "feed.csv")
            order = msgspec.structs.replace(order, feed=feed.id, source="feed")
        return order

    async def _example(self, designs: list[StoredDesign], name: str) -> dict[str, str]:
        """The first row of a design's sample feed, so that nobody starts from empty fields."""
        for stored in designs:
            if stored.design.name == name:
                return (await self._exporting.load_feed(stored, None, None)).rows[0]
        return {}

    async def _first_design(self) -> str:
        designs = await self._catalogue.designs()
        return designs[0].design.name if designs else ""

    async def _show_designs(self, request: Request, *, problem: str = "", status: int = 200) -> Response:
        designs = [summarize(stored) for stored in await self._catalogue.designs()]
        shown = {"title": "Designs", "page": "designs", "problem": problem}
        return self._view.page(request, "designs.html", {"designs": designs}, status=status, **shown)

    async def _show_form(
        self, request: Request, order: Order, checked: Checked | None, problems: list[Problem], *, status: int = 200
    ) -> Response:
        stored = await self._catalogue.designs()
        designs = [summarize(one) for one in stored]
        data: dict[str, Any] = {
            "order": order,
            "checked": checked,
            "problems": problems,
            "designs": designs,
            "networks": self._networks,
            "sizes": self._sizes,
        }
        shown: dict[str, Any] = {
            "title": "New export",
            "page": "new",
            "fields": next((design.fields for design in designs if design.name == order.design), []),
            "example": await self._example(stored, order.design),
            "formats": FORMAT_NOTES,
            "tokens": TOKENS,
            "pattern": DEFAULT_PATTERN,
        }
        return self._view.page(request, "new.html", data, status=status, **shown)


async def _form(request: Request) -> FormData:
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise HTTPException(411, "The form came without its length. Send it from the page, or use the API.")
    if int(length) > MAX_FORM_BYTES:
        raise HTTPException(413, f"The form has {int(length):,} bytes, above {MAX_FORM_BYTES:,}. Send a smaller feed.")
    form = await request.form(max_files=2, max_fields=1000)
    sent = form.multi_items()
    texts = [name + (value if isinstance(value, str) else value.filename or "") for name, value in sent]
    if "\0" in "".join(texts):
        raise HTTPException(400, "The form holds a NUL character. Remove it.")
    return form
