"""The durable timer: batches that get lost are asked for again, and the deadline ends every export."""

from datetime import timedelta
from pathlib import Path

import pytest
from generated_files import generated

import adexport
from adexport.adapters.local_files import LocalFiles
from adexport.catalogue import Catalogue
from adexport.consumers import subscribe_planning
from adexport.events import (
    AdExportRequested,
    CleaningDue,
    ExportCheckDue,
    ExportCompleted,
    ExportFailed,
    RenderBatchRequested,
)
from adexport.exporting import Exporting
from adexport.projections import project_list
from adexport.queries import Queries
from adexport.requests import ExportRequest
from adexport.results import subscribe_results
from adexport.retention import Retention, subscribe_cleaning
from tidings import Projection, Service
from tidings.testing import Harness, harness

SCHEMA = Path(adexport.__file__).parent / "schema.sql"


class Stage:
    """A service that plans and listens but never renders: every batch is lost until the test delivers its files."""

    def __init__(self, h: Harness, files: LocalFiles, exports: Projection) -> None:
        self.h = h
        self.exporting = Exporting(h.service, files, Catalogue(h.service, files, {}, {}), processes=1)
        self.queries = Queries(h.service, exports)

    async def start(self, design: dict[str, object], count: int, export_id: str = "one") -> None:
        rows = [{"headline": f"Offer {number}"} for number in range(count)]
        request = ExportRequest(design=design, rows=rows, sizes=("2000x2000",), formats=("png",))
        await self.exporting.start(await self.exporting.prepare(request), export_id)
        await self.h.settled()

    async def deliver(self, *indexes: int) -> None:
        await self.h.settled(await self.h.publish(generated("one", *indexes)))

    async def kinds(self) -> list[str]:
        return [entry.kind for entry in await self.queries.export_timeline("one")]


async def ours():
    """The files are those of this database."""


@pytest.fixture
async def stage(tmp_path):
    service = Service("adexport", store="sqlite:///:memory:")
    service.schema(SCHEMA)
    subscribe_planning(service, LocalFiles(tmp_path))
    service.register(RenderBatchRequested)
    subscribe_results(service)
    exports = project_list(service)
    files = LocalFiles(tmp_path)
    subscribe_cleaning(service, Retention(service, exports, files, timedelta(days=90), ours))
    async with harness(service) as h:
        yield Stage(h, files, exports)


async def test_lost_batches_are_asked_for_again_until_the_deadline_ends_the_export(stage, plain_design):
    await stage.start(plain_design, 3)
    assert len(stage.h.published(RenderBatchRequested)) == 3
    await stage.h.advance(timedelta(seconds=31))
    assert await stage.kinds() == ["accepted", "planned", "asked_again"]
    assert len(stage.h.published(RenderBatchRequested)) == 6
    await stage.h.advance(timedelta(minutes=10))
    export = await stage.queries.get_export("one")
    assert (export.state, export.failed) == ("dead", 3)
    assert [event.failed for event in stage.h.published(ExportFailed)] == [3]
    assert stage.h.scheduled(ExportCheckDue) == []
    assert stage.h.dead_letters() == []


async def test_a_queue_that_nobody_reads_is_filled_ever_more_slowly(stage, plain_design):
    await stage.start(plain_design, 3)
    for _ in range(19):
        await stage.h.advance(timedelta(seconds=31))
    assert (await stage.kinds()).count("asked_again") == 4  # after 30 s, 1, 2 and 4 minutes, where all 30 s were 19


async def test_after_an_answer_what_is_missing_is_noticed_soon_again(stage, plain_design):
    await stage.start(plain_design, 3)
    await stage.h.advance(timedelta(seconds=31))
    await stage.h.advance(timedelta(seconds=61))
    assert (await stage.kinds()).count("asked_again") == 2
    await stage.deliver(0)
    await stage.h.advance(timedelta(seconds=121))
    assert (await stage.kinds()).count("asked_again") == 2
    await stage.h.advance(timedelta(seconds=31))
    assert (await stage.kinds()).count("asked_again") == 3


async def test_a_slow_export_is_not_asked_for_twice(stage, plain_design):
    await stage.start(plain_design, 3)
    await stage.deliver(0)
    await stage.h.advance(timedelta(seconds=31))
    assert await stage.kinds() == ["accepted", "planned", "files"]
    await stage.h.advance(timedelta(seconds=31))
    assert await stage.kinds() == ["accepted", "planned", "files", "asked_again"]
    asked = [[cell.index for cell in event.cells] for event in stage.h.published(RenderBatchRequested)]
    assert asked == [[0], [1], [2], [1], [2]]


async def test_the_timer_of_an_export_that_is_over_does_nothing(stage, plain_design):
    await stage.start(plain_design, 2)
    await stage.deliver(1, 0)
    await stage.h.advance(timedelta(minutes=30))
    assert await stage.kinds() == ["accepted", "planned", "files", "completed"]
    assert [(event.done, event.failed) for event in stage.h.published(ExportCompleted)] == [(2, 0)]
    assert len(stage.h.published(AdExportRequested)) == 1


async def test_cleaning_is_due_once_a_day_and_removes_old_exports(stage, plain_design):
    await stage.start(plain_design, 2)
    await stage.deliver(0, 1)
    await stage.start(plain_design, 2, export_id="two")
    assert len(stage.h.scheduled(CleaningDue)) == 1
    await stage.h.advance(timedelta(days=1))
    assert len(stage.h.published(CleaningDue)) == 1
    assert (await stage.queries.get_export("one")).state == "done"
    ((_, following),) = stage.h.scheduled(CleaningDue)
    assert following.day == str((stage.h.clock() + timedelta(days=1)).date())
    await stage.h.advance(timedelta(days=90))
    assert (await stage.queries.list_exports()).items == []
    assert len(stage.h.scheduled(CleaningDue)) == 1
    assert stage.h.dead_letters() == []


async def test_files_that_come_after_the_deadline_do_not_change_the_end(stage, plain_design):
    await stage.start(plain_design, 2)
    await stage.h.advance(timedelta(minutes=30))
    version = (await stage.queries.get_export("one")).version
    await stage.deliver(0, 1)
    export = await stage.queries.get_export("one")
    assert (export.state, export.done, export.version) == ("dead", 0, version)
