"""Arranges one export for its page: files as artworks in groups by size or feed row, and the pace in words."""

from datetime import datetime
from typing import Literal

import msgspec

from adexport.queries import MAX_PAGE, Cell, CellGroup, ExportSummary, Queries
from adexport.web import words

Grouping = Literal["size", "row"]

GROUPS_A_PAGE = 24
ARTWORKS_A_GROUP = 24
ARTWORKS_A_PAGE = 120


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

    With `only`, the key of a group, the page holds just that group, with many more of its artworks.
    """
    groups = await queries.export_groups(export.id, grouping)
    if only is not None:
        chosen = [group for group in groups if group.key == only]
        return [await _load(queries, export, grouping, group, ARTWORKS_A_PAGE, page) for group in chosen], False
    shown = groups[page * GROUPS_A_PAGE : (page + 1) * GROUPS_A_PAGE]
    loaded = [await _load(queries, export, grouping, group, ARTWORKS_A_GROUP, 0) for group in shown]
    return loaded, len(groups) > (page + 1) * GROUPS_A_PAGE


async def _load(
    queries: Queries, export: ExportSummary, grouping: Grouping, group: CellGroup, most: int, page: int
) -> Group:
    pictures = export.rows if grouping == "size" else len(export.sizes)
    files = -(-group.total // max(pictures, 1))
    limit = min(most, MAX_PAGE // files) * files
    offset = page * limit
    cells = await queries.export_cells(export.id, group=grouping, only=group.key, offset=offset, limit=limit)
    width, height = (cells[0].width, cells[0].height) if cells else (1, 1)
    return Group(
        group=group,
        artworks=artworks(cells),
        more=offset + len(cells) < group.total,
        width=width,
        height=height,
        shape=proportion(width, height) if grouping == "size" else "plain",
    )
