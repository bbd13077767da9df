"""One export arranged: files of one picture together, pages without holes, the pace in words."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from adexport.figures import Day
from adexport.queries import MAX_PAGE, Cell, CellGroup, ExportSummary, Queries
from adexport.web.charts import HEIGHT, WIDTH, bars
from adexport.web.export_view import artworks, load_groups, pace, percent, proportion

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def cell(index: int, row: int, format: str, state: str) -> Cell:
    return Cell(
        index=index, row=row, row_label=f"Shoe {row}", width=300, height=250, format=format, network="google-ads",
        placement="Medium rectangle", limit_bytes=150_000, name=f"{index}.{format}", state=state, verdict=None,
        bytes=41_000, sha256=None, quality=None, seconds=None, cause=None, reason=None,
    )  # fmt: skip


def export(state: str = "running", **changes: object) -> ExportSummary:
    started = NOW - timedelta(seconds=10)
    summary = ExportSummary(
        id="e", title="Summer", design="summer", design_title="Summer", state=state, round=1, total=100, done=0,
        failed=0, bytes=0, rows=50, networks=[], sizes=["300x250"], formats=["jpeg", "png"], estimate_seconds=12.0,
        created_at=started, started_at=started, finished_at=None, deadline=NOW, failure=None, version=1, snapshot="s",
    )  # fmt: skip
    return msgspec.structs.replace(summary, **changes)


class Stored(Queries):
    """Answers from a list of cells of one size instead of a database."""

    def __init__(self, cells: list[Cell]) -> None:
        self.cells = cells

    async def export_groups(self, export_id: str, group: str) -> list[CellGroup]:
        keys = dict.fromkeys(f"{one.width}x{one.height}" if group == "size" else str(one.row) for one in self.cells)
        return [CellGroup(key=key, label=key, total=len(self.cells), done=0, failed=0, bytes=0) for key in keys]

    async def export_cells(self, export_id: str, *, offset: int = 0, limit: int = MAX_PAGE, **_: object) -> list[Cell]:
        return self.cells[offset : offset + limit]


def test_the_files_of_one_picture_stand_together() -> None:
    cells = [cell(0, 1, "jpeg", "pending"), cell(1, 1, "png", "done"), cell(2, 2, "jpeg", "pending")]
    first, second = artworks(cells)
    assert [one.index for one in first.cells] == [0, 1]
    assert (first.shown, first.label) == (1, "Shoe 1")
    assert (second.shown, second.state) == (None, "pending")


@pytest.mark.parametrize(("width", "height", "named"), [
    (728, 90, "strip"), (300, 250, "plain"), (1200, 628, "plain"), (160, 600, "tall"), (1080, 1920, "tall"),
])  # fmt: skip
def test_a_size_is_laid_out_by_its_proportion(width: int, height: int, named: str) -> None:
    assert proportion(width, height) == named


async def test_the_pages_of_a_size_show_every_file_once() -> None:
    cells = [cell(index, index // 2 + 1, ("jpeg", "png")[index % 2], "done") for index in range(2000)]
    asked = export(rows=1000, total=2000)
    seen = []
    for page in range(2):
        (group,), _ = await load_groups(Stored(cells), asked, "size", "300x250", page)
        seen += [one.index for art in group.artworks for one in art.cells]
        assert {len(art.cells) for art in group.artworks} == {2}
        assert group.more is (page == 0)
    assert seen == list(range(2000))


async def test_the_overview_by_size_shows_the_first_rows_whole() -> None:
    cells = [cell(index, index // 7 + 1, f"format-{index % 7}", "done") for index in range(700)]
    (group,), following = await load_groups(Stored(cells), export(rows=100, total=700), "size", None, 0)
    assert [art.row for art in group.artworks] == list(range(1, 25))
    assert {len(art.cells) for art in group.artworks} == {7}
    assert (group.more, following) == (True, False)


async def test_the_overview_by_row_goes_on_on_the_next_page() -> None:
    cells = [cell(index, index // 2 + 1, ("jpeg", "png")[index % 2], "done") for index in range(60)]
    asked = export(rows=30, total=60)
    first, following = await load_groups(Stored(cells), asked, "row", None, 0)
    rest, ended = await load_groups(Stored(cells), asked, "row", None, 1)
    assert [group.artworks[0].row for group in first + rest] == list(range(1, 31))
    assert (following, ended) == (True, False)
    (single,), _ = await load_groups(Stored(cells), asked, "row", "17", 0)
    assert [one.index for one in single.artworks[0].cells] == [32, 33]


def test_the_pace_says_what_is_known() -> None:
    assert pace(export("pending"), NOW) == "about 12 s in all"
    assert pace(export(done=50, bytes=2_050_000), NOW) == "5.0 files/s, about 10 s left, 2.0 MB"
    done = export("done", done=100, bytes=4_100_000, finished_at=NOW + timedelta(seconds=1.8))
    assert pace(done, NOW) == "4.1 MB, ready in 12 s"
    assert pace(export("cancelled", finished_at=NOW), NOW) == "0 B, stopped after 10 s"


def test_a_hundred_percent_is_all_of_it() -> None:
    assert percent(export(done=98, failed=1)) == 99
    assert percent(export(done=98, failed=2)) == 100


def test_the_busiest_day_is_as_high_as_the_chart() -> None:
    days = [Day(day=f"2026-11-{day}", exports=exports, files=0) for day, exports in ((1, 0), (2, 4), (3, 8))]
    chart = bars(days)
    assert [bar.height for bar in chart.items] == [2.0, HEIGHT / 2, HEIGHT]
    assert chart.items[-1].x + chart.items[-1].width == pytest.approx(WIDTH, abs=0.2)
    assert bars([Day(day="2026-11-01", exports=0, files=0)]).items[0].height == 2.0
