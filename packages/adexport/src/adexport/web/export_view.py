"""Arranges one export for its page: files as artworks in groups by size or feed row, and the pace in words."""

from datetime import datetime
from typing import Literal

import msgspec

from adexport.queries import MAX_PAGE, Cell, CellGroup, ExportSummary, Queries
from adexport.web import words

Grouping = Literal["size", "row"]

ROWS_A_PAGE = 24
# The page of a single size reads the files of its rows in all sizes: so many of them at most.
FILES_READ = 1500


class Artwork(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of an export (row × size) with its files, one for each format and limit.

    `shown` is the index of a file that is ready, to be looked at; None before the first. `state` is that of the files
    that are not ready.
    """

    row: int
    label: str
    width: int
    height: int
    cells: list[Cell]
    shown: int | None
    state: str


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The artworks of one size or one feed row; `more` says that there are others than those listed.

    `shape` (strip, tall, plain) is the proportion that the tiles are laid out for.
    """

    group: CellGroup
    artworks: list[Artwork]
    more: bool
    width: int
    height: int
    shape: str


def artworks(cells: list[Cell]) -> list[Artwork]:
    """Gather the files of the same picture, in the order in which they come."""
    pictures: dict[tuple[int, int, int], list[Cell]] = {}
    for cell in cells:
        pictures.setdefault((cell.row, cell.width, cell.height), []).append(cell)
    return [_artwork(files) for files in pictures.values()]


def _artwork(files: list[Cell]) -> Artwork:
    first = files[0]
    ready = [cell for cell in files if cell.state == "done"]
    return Artwork(
        row=first.row,
        label=first.row_label,
        width=first.width,
        height=first.height,
        cells=files,
        shown=ready[0].index if ready else None,
        state=first.state,
    )


def proportion(width: int, height: int) -> str:
    """Name the layout that suits a size in pixels."""
    if width >= 2.2 * height:
        return "strip"
    return "tall" if height >= 1.6 * width else "plain"


def percent(export: ExportSummary) -> int:
    """How much of an export is finished, well or not; 100 only when all of it is."""
    return 100 * (export.done + export.failed) // max(export.total, 1)


def pace(export: ExportSummary, now: datetime) -> str:
    """Say how fast an export goes and how long it will take, or how long it took."""
    if export.over:
        took = words.duration(export.seconds_to_ready)
        return f"{words.size(export.bytes)}, {'stopped after' if export.state == 'cancelled' else 'ready in'} {took}"
    spent = (now - export.started_at).total_seconds()
    settled = export.done + export.failed
    if settled == 0 or spent <= 0:
        return f"about {words.duration(export.estimate_seconds)} in all"
    rate = settled / spent
    left = words.duration((export.total - settled) / rate)
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    return f"{shown} files/s, about {left} left, {words.size(export.bytes)}"


async def load_groups(
    queries: Queries, export: ExportSummary, grouping: Grouping, only: str | None, page: int
) -> tuple[list[Group], bool]:
    """Read the groups of one page (counted from 0), and whether further groups follow.

    With `only`, the key of a group, the page holds just that group; a size then with more of its rows at a time.
    """
    groups = await queries.export_groups(export.id, grouping)
    if grouping == "row":
        first = page * ROWS_A_PAGE
        shown = groups[first : first + ROWS_A_PAGE] if only is None else [one for one in groups if one.key == only]
        start, count = (first, ROWS_A_PAGE) if only is None else (int(only) - 1 if shown else 0, len(shown))
    else:
        shown = [one for one in groups if only in (None, one.key)]
        count = ROWS_A_PAGE if only is None else max(ROWS_A_PAGE, FILES_READ // _files_a_row(export))
        start = 0 if only is None else page * count
    found = _by_group(artworks(await _read_rows(queries, export, start, count)), grouping)
    more = grouping == "size" and start + count < export.rows
    following = grouping == "row" and only is None and start + count < len(groups)
    return [_group(group, found.get(group.key, []), grouping, more) for group in shown], following


def _files_a_row(export: ExportSummary) -> int:
    return max(export.total // max(export.rows, 1), 1)


async def _read_rows(queries: Queries, export: ExportSummary, start: int, count: int) -> list[Cell]:
    """All files of `count` rows from `start` on: they lie together, because every row has the same files in order."""
    files = _files_a_row(export)
    cells: list[Cell] = []
    for offset in range(start * files, (start + count) * files, MAX_PAGE):
        limit = min(MAX_PAGE, (start + count) * files - offset)
        cells += await queries.export_cells(export.id, offset=offset, limit=limit)
    return cells


def _by_group(pictures: list[Artwork], grouping: Grouping) -> dict[str, list[Artwork]]:
    found: dict[str, list[Artwork]] = {}
    for art in pictures:
        found.setdefault(f"{art.width}x{art.height}" if grouping == "size" else str(art.row), []).append(art)
    return found


def _group(group: CellGroup, pictures: list[Artwork], grouping: Grouping, more: bool) -> Group:
    if grouping == "row":
        pictures = sorted(pictures, key=lambda art: -art.width * art.height)
        return Group(group=group, artworks=pictures, more=False, width=1, height=1, shape="plain")
    width, height = (int(side) for side in group.key.split("x"))
    shape = proportion(width, height)
    return Group(group=group, artworks=pictures, more=more, width=width, height=height, shape=shape)
