"""An export from request to files: through the real store, the real worker and real rendering processes."""

import asyncio
import hashlib
from datetime import timedelta
from io import BytesIO

import msgspec
import pytest
from generated_files import generated_file
from PIL import Image

from adexport.adapters.local_files import LocalFiles
from adexport.consumers import check_up, plan
from adexport.errors import StorageError
from adexport.events import (
    AdExportRequested,
    AdGenerated,
    AdGenerationFailed,
    ExportCheckDue,
    FailedCell,
)
from adexport.export import NotNowError
from adexport.exporting import PreflightError
from adexport.results import take_results

BIG = "4096x4096"
# They take long, and are about what happens outside the store.
SQLITE_ONLY = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


async def test_every_file_is_made_stored_and_told(open_driver):
    async with open_driver() as driver:
        export_id = await driver.start(formats=["png", "jpeg", "webp"])
        export = await driver.over(export_id)
        cells = await driver.queries.all_cells(export_id)
        assert (export.state, export.total, export.done, export.failed) == ("done", 12, 12, 0)
        assert export.bytes == sum(cell.bytes for cell in cells)
        for cell in cells:
            data = await driver.application.files.read(cell.sha256)
            assert hashlib.sha256(data).hexdigest() == cell.sha256
            image = Image.open(BytesIO(data))
            assert (image.size, image.format.lower()) == ((cell.width, cell.height), cell.format)
        assert len({cell.name for cell in cells}) == 12
        timeline = await driver.queries.export_timeline(export_id)
        assert [entry.sequence for entry in timeline] == list(range(1, export.version + 1))
        assert [entry.kind for entry in timeline] == ["accepted", "planned", "files", "completed"]
        assert sorted(cell["index"] for cell in timeline[2].detail["cells"]) == list(range(12))
        groups = await driver.queries.export_groups(export_id, "size")
        assert [(group.key, group.total, group.done) for group in groups] == [("300x250", 6, 6), ("728x90", 6, 6)]


async def test_equal_files_are_made_once(open_driver):
    async with open_driver() as driver:
        first = await driver.start()
        await driver.over(first)
        made = driver.application.pool
        before = sum(child.renders for child in made._all)
        second = await driver.start(title="Again")
        export = await driver.over(second)
        assert (export.done, sum(child.renders for child in made._all)) == (4, before)
        one, two = await driver.queries.all_cells(first), await driver.queries.all_cells(second)
        assert [cell.sha256 for cell in one] == [cell.sha256 for cell in two]


async def test_a_file_that_is_gone_is_made_again(open_driver):
    async with open_driver() as driver:
        first = await driver.start()
        await driver.over(first)
        cell = (await driver.queries.all_cells(first))[0]
        (await driver.application.files.local(cell.sha256)).unlink()
        second = await driver.start()
        await driver.over(second)
        assert await driver.application.files.read(cell.sha256)


async def test_what_cannot_fit_fails_and_the_rest_is_done(open_driver):
    async with open_driver() as driver:
        export_id = await driver.start(formats=["webp", "png"], max_bytes=560)
        export = await driver.over(export_id)
        dead = await driver.queries.export_cells(export_id, state="dead")
        assert export.state == "done"
        assert (export.done, export.failed) == (4, 4)
        assert {(cell.format, cell.verdict, cell.cause) for cell in dead} == {("png", "cannot_fit", "cannot_fit")}
        assert all(cell.bytes > 560 and "limit of 560" in cell.reason for cell in dead)
        assert not await driver.queries.may_differ(export_id)
        await driver.caught_up()
        causes = (await driver.application.figures.analytics()).failures
        assert [(cause.name, cause.files) for cause in causes] == [("cannot_fit", 4)]


async def test_an_export_without_any_file_is_dead(open_driver):
    async with open_driver() as driver:
        export = await driver.over(await driver.start(formats=["png"], max_bytes=50))
        assert (export.state, export.done, export.failed) == ("dead", 0, 4)


@SQLITE_ONLY
async def test_a_cell_that_crashes_its_process_is_found_and_the_others_are_made(open_driver):
    async with open_driver(render_memory_mb=200) as driver:
        export_id = await driver.start(sizes=["300x250", BIG, "728x90"], formats=["png"], rows=[{"headline": "x"}])
        export = await driver.over(export_id, seconds=60)
        cells = {f"{cell.width}x{cell.height}": cell for cell in await driver.queries.all_cells(export_id)}
        assert (export.done, export.failed) == (2, 1)
        assert (cells[BIG].state, cells[BIG].cause) == ("dead", "crashed")
        assert await driver.queries.may_differ(export_id)
        assert cells["300x250"].state == cells["728x90"].state == "done"
        assert (await driver.over(await driver.start())).state == "done"


@SQLITE_ONLY
async def test_a_full_disk_is_reported_after_the_last_try_and_a_retry_heals(open_driver, monkeypatch):
    real = LocalFiles.put

    async def full(self, contents):
        if any(content.startswith(b"\x89PNG") for content in contents):
            raise StorageError("The disk is full. Free space.")
        return await real(self, contents)

    async with open_driver() as driver:
        monkeypatch.setattr(LocalFiles, "put", full)
        export_id = await driver.start(formats=["png"])
        export = await driver.over(export_id)
        (dead, *_) = await driver.queries.export_cells(export_id, state="dead")
        assert (export.state, export.failed, dead.cause, dead.reason) == (
            "dead",
            4,
            "storage",
            "The disk is full. Free space.",
        )
        monkeypatch.undo()
        await driver.exporting.retry(export_id)
        export = await driver.over(export_id)
        assert (export.state, export.done, export.failed, export.failure) == ("done", 4, 0, None)


async def test_cancel_stops_further_batches(open_driver):
    async with open_driver() as driver:
        export_id = await driver.start(count=60, formats=["png"], sizes=["2000x2000"])
        await driver.until(export_id, lambda export: export.done > 0)
        await driver.exporting.cancel(export_id)
        export = await driver.queries.get_export(export_id)
        assert export.state == "cancelled"
        assert 0 < export.done < 60
        await asyncio.sleep(1.5)
        later = await driver.queries.get_export(export_id)
        assert (later.done, later.version) == (export.done, export.version)
        with pytest.raises(NotNowError):
            await driver.exporting.cancel(export_id)
        states = [cell.state for cell in await driver.queries.all_cells(export_id)]
        assert states.count("cancelled") == 60 - export.done


async def test_retry_makes_only_what_is_not_done(open_driver):
    async with open_driver() as driver:
        export_id = await driver.start(count=30, formats=["png"], sizes=["2000x2000"])
        await driver.until(export_id, lambda export: export.done > 0)
        await driver.exporting.cancel(export_id)
        before = {cell.index: cell.sha256 for cell in await driver.queries.all_cells(export_id) if cell.sha256}
        await driver.exporting.retry(export_id)
        export = await driver.over(export_id)
        assert (export.state, export.done, export.round) == ("done", 30, 2)
        after = {cell.index: cell.sha256 for cell in await driver.queries.all_cells(export_id)}
        assert {index: after[index] for index in before} == before
        with pytest.raises(NotNowError):
            await driver.exporting.retry(export_id)


async def test_what_cannot_be_drawn_is_not_worth_a_retry(open_driver, plain_design):
    layer = {**plain_design["layers"][0], "text": "{{ headline | percent }}"}
    async with open_driver() as driver:
        prepared = await driver.prepare(design=plain_design | {"layers": [layer]}, rows=[{"headline": "7"}])
        rows = ({"headline": "soon"},)  # preflight would have refused it
        snapshot = msgspec.structs.replace(prepared.snapshot, rows=rows)
        export_id = driver.application.new_id()
        await driver.exporting.start(msgspec.structs.replace(prepared, snapshot=snapshot), export_id)
        export = await driver.over(export_id)
        causes = {cell.cause for cell in await driver.queries.all_cells(export_id)}
        assert (export.state, export.failed, causes) == ("dead", 2, {"cannot_draw"})
        assert not await driver.queries.may_differ(export_id)


async def test_a_retry_adds_its_own_time_to_that_before(open_driver):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start()
        driver.let_pass(timedelta(seconds=100))
        await driver.exporting.cancel(export_id)
        first = (await driver.queries.get_export(export_id)).seconds_to_ready
        assert 100 < first < 110
        driver.let_pass(timedelta(hours=1))
        await driver.exporting.retry(export_id)
        retried = await driver.queries.get_export(export_id)
        assert retried.seconds_to_ready is None
        assert timedelta(minutes=9) < retried.deadline - driver.service.world.clock() <= timedelta(minutes=10)
        await driver.exporting.cancel(export_id)
        assert first < (await driver.queries.get_export(export_id)).seconds_to_ready < first + 10


async def test_preflight_errors_refuse_and_record_nothing(open_driver):
    async with open_driver(consumers=False) as driver:
        with pytest.raises(PreflightError, match="headline"):
            await driver.start(rows=[{"other": "x"}])
        assert [each async for each in driver.service.streams()] == []
        assert await driver.service.fetch_value("SELECT count(*) FROM adexport_cell") == 0


async def test_nothing_is_published_when_the_record_fails(open_driver):
    async with open_driver(consumers=False) as driver:
        prepared = await driver.prepare()
        await driver.exporting.start(prepared, "one")
        with pytest.raises(Exception, match=r"(?i)unique"):
            await driver.exporting.start(prepared, "one")
        assert await driver.kinds("one") == ["accepted"]


async def test_planning_cuts_batches_of_half_a_second(open_driver):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start(count=40, formats=["png"], sizes=["2000x2000"])
        async with driver.service.transaction() as tx:
            await plan(driver.service, _requested(export_id), tx)
        (entry,) = (await driver.queries.export_timeline(export_id))[1:]
        assert entry.text == "Picked up by a worker: 40 files in 40 batches"


async def test_results_commute_and_repeat_without_effect(open_driver):
    """Late, doubled and reordered results all lead to the same counts."""
    files = [generated_file(index) for index in range(4)]
    failures = [FailedCell(index=index, cause="render", reason="No.") for index in range(4)]
    events = [
        AdGenerated(export_id="x", round=1, count=2, total_bytes=20, seconds=1, files=files[:2]),
        AdGenerated(export_id="x", round=1, count=2, total_bytes=20, seconds=1, files=files[1:3]),
        AdGenerationFailed(export_id="x", round=1, count=2, cells=failures[2:3]),
        AdGenerationFailed(export_id="x", round=9, count=1, cells=failures[3:]),
    ]
    for number, order in enumerate(([0, 1, 2, 3], [2, 1, 0, 3], [3, 2, 0, 1, 1, 0, 2])):
        async with open_driver(consumers=False) as driver:
            export_id = f"x{number}"
            await driver.exporting.start(await driver.prepare(), export_id)
            for each in order:
                event = type(events[each])(**_fields(events[each]) | {"export_id": export_id})
                async with driver.service.transaction() as tx:
                    await take_results(driver.service, event, tx)
            export = await driver.queries.get_export(export_id)
            assert (export.done, export.failed, export.bytes, export.state) == (3, 0, 30, "pending")


async def test_the_timer_asks_again_and_the_deadline_ends_the_export(open_driver):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start()
        async with driver.service.transaction() as tx:
            await plan(driver.service, _requested(export_id), tx)
        due = ExportCheckDue(export_id=export_id, round=1, settled=0)
        async with driver.service.transaction() as tx:
            await check_up(driver.service, due, tx)
        assert await driver.kinds(export_id) == ["accepted", "planned", "asked_again"]
        async with driver.service.transaction() as tx:
            driver.let_pass(timedelta(minutes=10))
            await check_up(driver.service, due, tx)
        export = await driver.queries.get_export(export_id)
        assert (export.state, export.failed) == ("dead", 4)
        assert "deadline" in export.failure
        async with driver.service.transaction() as tx:
            await check_up(driver.service, due, tx)
        assert await driver.kinds(export_id) == ["accepted", "planned", "asked_again", "failed"]


async def test_what_was_accepted_is_made_by_a_later_process(open_driver):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start()
    async with open_driver() as driver:
        assert (await driver.over(export_id)).state == "done"


def _requested(export_id):
    return AdExportRequested(export_id=export_id, round=1, snapshot="0" * 64, files=4)


def _fields(event):
    return {name: getattr(event, name) for name in event.__struct_fields__}
