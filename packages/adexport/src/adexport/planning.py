"""From a request to work: every file to make (row × size × format), grouped into batches of about half a second."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, Protocol

import msgspec

from adexport.errors import AdExportError
from adexport.rendering.encoding import FORMATS, FormatName, check_quality
from adexport.requests import MAX_SIDE

MAX_CELLS: Final = 20_000
"""Files in one export. More is several exports: one zip of a million files serves nobody."""
BATCH_MILLISECONDS: Final = 500.0
"""Estimated work in one batch: short enough for live progress and fair turns, long enough to bury the event's cost."""


class PlanError(AdExportError):
    """The request asks for nothing, for too much, or for something that cannot be made."""

    retryable = False


class DesignLike(Protocol):
    """What planning needs to know of a design; it must be a msgspec Struct, whose JSON is its identity."""

    def fields(self) -> Sequence[str]:
        """The names of the feed columns that the design uses."""


class Cost(msgspec.Struct, frozen=True):
    """A straight line through two measured sizes: `fixed + per_megapixel * megapixels`."""

    fixed: float
    per_megapixel: float

    def at(self, width: int, height: int) -> float:
        """The value for a canvas of this size in pixels."""
        return self.fixed + self.per_megapixel * width * height / 1_000_000


# The lines go through 300x250 and 1080x1080, in CPU milliseconds and bytes, on one core of a 2-core Linux machine
# (2026-11, Python 3.11, skia-python 144, Pillow 13). Drawing, encoding and bytes are means over the four sample
# designs, each row new, of a process that is warm; what fitting adds and a photo's PNG are of a banner with a photo.
DRAW_MILLISECONDS: Final = Cost(2.0, 17.0)
ENCODE_MILLISECONDS: Final[dict[FormatName, Cost]] = {
    "png": Cost(2.9, 102.0),
    "jpeg": Cost(0.3, 4.0),
    "webp": Cost(1.4, 52.8),
}
FILE_BYTES: Final[dict[FormatName, Cost]] = {
    "png": Cost(25_700.0, 324_400.0),
    "jpeg": Cost(11_500.0, 126_400.0),
    "webp": Cost(5_800.0, 29_300.0),
}
PHOTO_PNG_BYTES: Final = Cost(33_000.0, 786_000.0)
"""A PNG that a photo fills, which is when a limit presses; the mean above is lighter."""
FLOOR_BYTES: Final[dict[FormatName, Cost]] = {
    "png": Cost(3_800.0, 106_000.0),
    "jpeg": Cost(3_700.0, 48_000.0),
    "webp": Cost(3_800.0, 24_000.0),
}
"""What fitting comes down to at the floor of the ladder, for the heaviest of the sample designs (one with a photo)."""
FIT_MILLISECONDS: Final[dict[FormatName, Cost]] = {
    "png": Cost(80.0, 225.0),
    "jpeg": Cost(0.7, 20.0),
    "webp": Cost(9.0, 200.0),
}
"""What fitting adds when the first try is above the limit: the further steps of the ladder."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A size to make, in pixels, and whom it is for.

    `formats` are those accepted there (None: any), `max_bytes` the limit of each file (None: no limit). Targets of a
    network come from `adexport.networks.targets`; a size of one's own needs only `width` and `height`.
    """

    width: int
    height: int
    network: str = ""
    placement: str = ""
    max_bytes: int | None = None
    formats: tuple[str, ...] | None = None

    @property
    def size(self) -> str:
        """The size as people write it: `300x250`."""
        return f"{self.width}x{self.height}"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One file to make. `index` is its place in the plan and `row` its place in the feed, both from 0.

    Cells with the same `key` have the same bytes: the key names the result, so that work is never done twice.
    """

    index: int
    key: str
    row: int
    width: int
    height: int
    format: FormatName
    max_bytes: int | None = None
    quality: int | None = None
    network: str = ""
    placement: str = ""


class Batch(msgspec.Struct, frozen=True):
    """Cells (by index) that one worker makes in one go, and the CPU milliseconds that is expected to take.

    The cells of one row and size are never apart: they share one drawing.
    """

    cells: tuple[int, ...]
    milliseconds: float


class Skipped(msgspec.Struct, frozen=True):
    """A format that a target does not accept: no cell is made for it, and preflight says so."""

    target: Target
    format: FormatName


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All the work of an export: `cells` in order of row, size, target and format, and their batches.

    `cpu_seconds` is the expected work on one core, `file_bytes` the expected weight of all files together.
    """

    cells: tuple[Cell, ...]
    batches: tuple[Batch, ...]
    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...]
    cpu_seconds: float
    file_bytes: int


def plan(
    design: DesignLike,
    rows: Sequence[Mapping[str, str]],
    targets: Iterable[Target],
    formats: Iterable[FormatName],
    *,
    engine: str,
    assets: Mapping[str, str] | None = None,
    quality: int | None = None,
) -> Plan:
    """Lay out every file of an export.

    `rows` are the feed's, as `{column: text}`; without a feed give one row with the fields. `assets` maps each
    asset that the design or the rows refer to, to its SHA-256. `engine` names the versions of the renderer and the
    encoder, because they change the bytes. `quality` is for JPEG and WebP. Repeated targets and formats count once.
    The same arguments always give the same plan; it is empty when no target accepts any of the formats, which the
    networks' preflight reports. Raises PlanError, naming the cap or the value that is wrong.
    """
    places = tuple(dict.fromkeys(targets))
    wanted = tuple(dict.fromkeys(formats))
    _check_request(rows, places, wanted, quality)
    pairs = [(place, name) for place in places for name in wanted if _accepts(place, name)]
    _check_count(len(rows), pairs)
    # One drawing serves all that is wanted of a row in one size, whichever network asked: keep it together.
    pairs.sort(key=lambda pair: (pair[0].width, pair[0].height))
    fields = sorted(design.fields())
    shared = _digest(msgspec.json.encode([engine, design, sorted((assets or {}).items())], order="sorted"))
    cells = tuple(_cells(rows, fields, pairs, shared, quality))
    batches = batch(cells)
    return Plan(
        cells=cells,
        batches=batches,
        targets=places,
        skipped=tuple(Skipped(place, name) for place in places for name in wanted if not _accepts(place, name)),
        cpu_seconds=sum(part.milliseconds for part in batches) / 1000,
        file_bytes=sum(expected_bytes(cell.format, cell.width, cell.height, cell.max_bytes) for cell in cells),
    )


def batch(cells: Iterable[Cell], milliseconds: float = BATCH_MILLISECONDS) -> tuple[Batch, ...]:
    """Group cells, in their order, into batches of at most `milliseconds` of expected work.

    Also for a part of a plan, such as the failed cells. A single row and size above the budget stands alone.
    """
    batches: list[Batch] = []
    pending: list[int] = []
    spent = 0.0
    for _, group in groupby(cells, key=lambda cell: (cell.row, cell.width, cell.height)):
        drawing = list(group)
        cost = drawing_milliseconds(drawing)
        if pending and spent + cost > milliseconds:
            batches.append(Batch(tuple(pending), spent))
            pending, spent = [], 0.0
        pending += [cell.index for cell in drawing]
        spent += cost
    return (*batches, Batch(tuple(pending), spent)) if pending else tuple(batches)


def expected_seconds(batches: Iterable[Batch], processes: int) -> float:
    """Seconds until the last batch is made when each goes to the process that is free first, and nothing else runs."""
    ends = [0.0] * processes
    for part in batches:
        heapq.heapreplace(ends, ends[0] + part.milliseconds / 1000)
    return max(ends)


def drawing_milliseconds(cells: Sequence[Cell]) -> float:
    """Expected CPU milliseconds to draw one row in one size and to encode each different file of it once."""
    width, height = cells[0].width, cells[0].height
    files = {(cell.format, cell.max_bytes, cell.quality) for cell in cells}
    total = DRAW_MILLISECONDS.at(width, height)
    # In a fixed order, so that adding floats gives the same sum everywhere.
    for name, limit, _ in sorted(files, key=str):
        total += ENCODE_MILLISECONDS[name].at(width, height)
        if limit is not None and FILE_BYTES[name].at(width, height) > limit:
            total += FIT_MILLISECONDS[name].at(width, height)
    return total


def expected_bytes(format: FormatName, width: int, height: int, max_bytes: int | None = None) -> int:
    """Expected size of one file in bytes; fitting keeps it within the limit, where there is one."""
    size = round(FILE_BYTES[format].at(width, height))
    return size if max_bytes is None else min(size, max_bytes)


def _cells(
    rows: Sequence[Mapping[str, str]],
    fields: Sequence[str],
    pairs: Sequence[tuple[Target, FormatName]],
    shared: bytes,
    quality: int | None,
) -> Iterator[Cell]:
    index = 0
    for number, row in enumerate(rows):
        row_digest = _digest(shared + msgspec.json.encode([(field, row.get(field)) for field in fields]))
        for place, name in pairs:
            used_quality = None if name == "png" else quality
            settings = msgspec.json.encode([place.width, place.height, name, place.max_bytes, used_quality])
            yield Cell(
                index=index,
                key=_digest(row_digest + settings).hex(),
                row=number,
                width=place.width,
                height=place.height,
                format=name,
                max_bytes=place.max_bytes,
                quality=used_quality,
                network=place.network,
                placement=place.placement,
            )
            index += 1


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _accepts(target: Target, format: FormatName) -> bool:
    return target.formats is None or format in target.formats


def _check_request(
    rows: Sequence[Mapping[str, str]], targets: Sequence[Target], formats: Sequence[FormatName], quality: int | None
) -> None:
    for what, given in (("rows", rows), ("sizes", targets), ("formats", formats)):
        if not given:
            raise PlanError(f"The export has no {what}, so there is nothing to make. Choose at least one.")
    for target in targets:
        _check_target(target)
    for name in formats:
        if name not in FORMATS:
            raise PlanError(f"Cannot write '{name}' files. Choose from: {', '.join(FORMATS)}.")
    if quality is not None and set(formats) != {"png"}:
        check_quality("jpeg", quality)


def _check_target(target: Target) -> None:
    if not (1 <= target.width <= MAX_SIDE and 1 <= target.height <= MAX_SIDE):
        raise PlanError(f"Size {target.size} is outside 1 to {MAX_SIDE} px a side. Choose a size within it.")
    if target.max_bytes is not None and target.max_bytes < 1:
        raise PlanError(f"The limit of {target.max_bytes} bytes for {target.size} cannot be met. Give at least 1.")


def _check_count(rows: int, pairs: Sequence[tuple[Target, FormatName]]) -> None:
    if rows * len(pairs) > MAX_CELLS:
        raise PlanError(
            f"The export would have {rows * len(pairs):,} files ({rows:,} rows × {len(pairs):,} sizes and formats), "
            f"above {MAX_CELLS:,}. Split the feed, or choose fewer sizes or formats."
        )
