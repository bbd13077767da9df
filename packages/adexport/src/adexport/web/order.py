"""The order form of an export: read from an address or a sent form, turned into a request, checked in words."""

import re

import msgspec
from starlette.datastructures import FormData, ImmutableMultiDict, QueryParams, UploadFile

from adexport.errors import AdExportError
from adexport.exporting import Exporting, Prepared
from adexport.problems import Problem
from adexport.requests import ExportRequest, RequestError, convert, refuse_breaks

SOURCES = ("sample", "feed", "typed")
# What a person starts with when the address says nothing: the sizes that most campaigns need.
FIRST_NETWORKS = ["google-ads"]
FIRST_SIZES = ["300x250", "336x280", "728x90", "970x250", "160x600", "300x600", "320x50"]
FIRST_FORMATS = ["jpeg"]

_SIZE = re.compile(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}")
_FIELD = "field."


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The form as filled in. `source` says where the rows come from; `fields` are those of one ad typed by hand."""

    design: str
    networks: list[str] = []
    sizes: list[str] = []
    more_sizes: str = ""
    formats: list[str] = []
    max_kb: str = ""
    source: str = "sample"
    feed: str = ""
    fields: dict[str, str] = {}
    title: str = ""
    naming: str = ""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What an order comes to: counts, expected bytes of all files, and expected seconds until all are ready."""

    rows: int
    sizes: int
    formats: int
    files: int
    estimate_bytes: int
    estimate_seconds: float


def read_order(given: QueryParams | FormData, design: str, *, whole: bool = True) -> Order:
    """Read the form from `given`; `design` stands where none is named.

    With `whole` false, an address that names neither networks nor sizes gets the first choices.
    """
    networks, sizes, formats = (_all(given, name) for name in ("networks", "sizes", "formats"))
    more_sizes = _text(given, "more_sizes")
    if not whole and not (networks or sizes or more_sizes):
        networks, sizes = FIRST_NETWORKS, FIRST_SIZES
    feed = _text(given, "feed")
    source = _text(given, "source") or ("feed" if feed else "sample")
    names = dict.fromkeys(name for name, _ in given.multi_items() if name.startswith(_FIELD))
    return Order(
        design=_text(given, "design") or design,
        networks=networks,
        sizes=sizes,
        more_sizes=more_sizes,
        formats=formats if whole else formats or FIRST_FORMATS,
        max_kb=_text(given, "max_kb"),
        source=source if source in SOURCES else "sample",
        feed=feed,
        fields={name.removeprefix(_FIELD): _text(given, name) for name in names},
        title=_text(given, "title"),
        naming=_text(given, "naming"),
    )


def _all(given: ImmutableMultiDict[str, str | UploadFile], name: str) -> list[str]:
    return list(dict.fromkeys(value for value in given.getlist(name) if isinstance(value, str) and value))


def _text(given: ImmutableMultiDict[str, str | UploadFile], name: str) -> str:
    value = given.get(name)
    return value.strip() if isinstance(value, str) else ""


def request_of(order: Order) -> ExportRequest:
    """Return the request that the order stands for. Raises RequestError, in the words of the form."""
    if not order.formats:
        raise RequestError("No format is chosen. Tick at least one of PNG, JPEG and WebP.", "$.formats")
    if order.source == "feed" and not order.feed:
        raise RequestError("No CSV file is chosen yet. Choose one, or take the sample feed.", "$.feed")
    sizes = [*order.sizes, *_more_sizes(order.more_sizes)]
    if not sizes:  # the API reads this as all sizes of the networks; on a form with boxes to tick it means none
        raise RequestError("No size is chosen. Tick at least one, or write it under Other sizes.", "$.sizes")
    asked: dict[str, object] = {
        "design": order.design,
        "networks": order.networks,
        "sizes": sizes,
        "formats": order.formats,
    }
    if order.max_kb:
        asked["max_bytes"] = _bytes(order.max_kb)
    if order.source == "feed":
        asked["feed"] = order.feed
    if order.source == "typed":
        asked["rows"] = [order.fields]
    refuse_breaks(title=order.title, naming=order.naming)
    asked |= {name: value for name in ("title", "naming") if (value := getattr(order, name))}
    return convert(asked, ExportRequest)


def _more_sizes(text: str) -> list[str]:
    sizes = [part for part in re.split(r"[\s,;]+", text.lower().replace("×", "x")) if part]
    for size in sizes:
        if not _SIZE.fullmatch(size):
            raise RequestError(f"{size[:40]!r} is not a size. Write width x height, such as 640x360.", "$.sizes")
    return sizes


def _bytes(text: str) -> int:
    try:
        kilobytes = float(text.replace(",", "."))
    except ValueError:
        kilobytes = 0
    if not 0 < kilobytes <= 100_000:
        raise RequestError(f"{text[:20]!r} is not a limit. Write kilobytes, such as 150.", "$.max_bytes")
    return round(kilobytes * 1000)


async def check(exporting: Exporting, order: Order) -> tuple[Prepared | None, Checked | None, list[Problem]]:
    """Prepare the order and say what it comes to; what stands in the way comes back as problems, never as an error."""
    try:
        prepared = await exporting.prepare(request_of(order))
    except AdExportError as error:
        return None, None, [Problem(code="order", message=str(error), action="")]
    checked = Checked(
        rows=len(prepared.snapshot.rows),
        sizes=len(prepared.sizes),
        formats=len(prepared.formats),
        files=len(prepared.plan.cells),
        estimate_bytes=prepared.plan.file_bytes,
        estimate_seconds=exporting.estimate_seconds(prepared.plan),
    )
    return prepared, checked, prepared.problems
