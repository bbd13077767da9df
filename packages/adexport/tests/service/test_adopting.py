"""Exports of a release before streams: adopted at the first start, by one process, and they go on where they stood."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from generated_files import generated

from adexport.adopting import adopt_exports
from adexport.events import AdExportRequested, ExportAdopted, ExportCompleted
from adexport.results import take_results

HOUR = 3_600_000_000
ASKED = 1_790_000_000_000_000
EXPORT = """INSERT INTO adexport_export (id, title, design, design_title, snapshot, networks, sizes, formats, row_count,
 state, round, total, done, failed, bytes, estimate_seconds, created_us, started_us, finished_us, deadline_us, failure,
 version) VALUES ($1, 'Old', 'plain', 'Plain', 's', '[]', '["300x250"]', '["jpeg"]', 3, $2, 1, 3, $3, $4, $5, 1.0,
 $6, $6, $7, $8, NULL, 3)"""
CELL = """INSERT INTO adexport_cell (export_id, position, key, feed_row, row_label, width, height, format, network,
 placement, name, state, round, bytes, sha256, cause) VALUES ($1, $2, 'k', $3, 'Row', 300, 250, 'jpeg', '', '', $4, $5,
 1, $6, $7, $8)"""
NOTE = """INSERT INTO adexport_progress (export_id, sequence, at_us, kind, text, event_id, detail)
 VALUES ($1, $2, $3, $4, $4, NULL, '{}')"""


async def leave(driver, name, state, *cells):
    """Write an export as the release before left it."""
    done, failed = cells.count("done"), cells.count("dead")
    over = state in ("done", "dead", "cancelled")
    async with driver.service.transaction() as tx:
        ended = ASKED + 5_000_000 if over else None
        late = 4_000_000_000_000_000  # its deadline is far
        await tx.execute(EXPORT, name, state, done, failed, 10 * done, ASKED, ended, late)
        for position, cell in enumerate(cells):
            weight, digest = (10, "0" * 64) if cell == "done" else (None, None)
            cause = "render" if cell == "dead" else None
            await tx.execute(CELL, name, position, position + 1, f"{position}.jpeg", cell, weight, digest, cause)
        for number, kind in enumerate(("accepted", "planned", "files"), 1):
            await tx.execute(NOTE, name, number, ASKED, kind)


async def test_what_the_release_before_left_is_listed_and_goes_on(open_driver):
    async with open_driver(consumers=False) as driver:
        await leave(driver, "ended", "done", "done", "done", "dead")
        await leave(driver, "cut", "running", "done", "pending", "pending")
        await driver.service.publish(AdExportRequested(export_id="ended", round=1, snapshot="s", files=3))
        await driver.service.publish(
            ExportCompleted(export_id="ended", round=1, done=2, failed=1, total_bytes=20, seconds=5.0)
        )
    async with open_driver() as driver:
        listed = {export.id: export for export in (await driver.queries.list_exports()).items}
        assert listed == {name: await driver.queries.get_export(name) for name in ("ended", "cut")}
        ended = listed["ended"]
        assert (ended.state, ended.done, ended.failed, ended.bytes, ended.version) == ("done", 2, 1, 20, 3)
        assert (ended.seconds_to_ready, ended.title, ended.sizes) == (5.0, "Old", ["300x250"])
        await driver.caught_up()
        figures = await driver.service.fetch_all("SELECT seconds FROM adexport_ready_v1")
        assert [row[0] for row in figures] == [5.0]
        assert await driver.service.fetch_value("SELECT sum(exports) FROM adexport_days_v1") == 2
        async with driver.service.transaction() as tx:
            await take_results(driver.service, generated("cut", 0, 1, 2), tx)
        cut = await driver.queries.get_export("cut")
        assert (cut.state, cut.done, cut.bytes, cut.version) == ("done", 3, 30, 5)
        timeline = await driver.queries.export_timeline("cut")
        assert [(entry.sequence, entry.kind) for entry in timeline] == [
            (1, "accepted"), (2, "planned"), (3, "files"), (4, "files"), (5, "completed"),
        ]  # fmt: skip
        assert [cell["index"] for cell in timeline[3].detail["cells"]] == [1, 2]
        await driver.exporting.retry("ended")
        retried = await driver.queries.get_export("ended")
        assert (retried.round, retried.done, retried.failed, retried.version >= 4) == (2, 2, 0, True)


async def test_several_processes_adopt_each_export_once(open_driver):
    names = [f"old-{number}" for number in range(20)]
    async with open_driver(consumers=False) as one, open_driver(consumers=False) as two:
        for name in names:
            await leave(one, name, "cancelled", "done", "cancelled")
        adopted = await asyncio.gather(*(adopt_exports(driver.service) for driver in (one, two)))
        assert sum(adopted) == len(names)
        every = [recorded.event async for recorded in one.service.read_all(prefix="export-")]
        assert sorted(event.export_id for event in every if isinstance(event, ExportAdopted)) == sorted(names)
        assert await adopt_exports(one.service) == 0


async def test_who_is_stopped_while_adopting_leaves_the_rest_to_the_next(open_driver, monkeypatch):
    from adexport import adopting

    real, seen = adopting.decide, []

    async def stops(service, command, tx):
        seen.append(command.export_id)
        if len(seen) == 3:
            raise RuntimeError("stopped")
        return await real(service, command, tx)

    async with AsyncExitStack() as stack:
        driver = await stack.enter_async_context(open_driver(consumers=False))
        for number in range(5):
            await leave(driver, f"old-{number}", "cancelled", "done", "cancelled")
        monkeypatch.setattr(adopting, "decide", stops)
        with pytest.raises(RuntimeError, match="stopped"):
            await adopt_exports(driver.service)
        monkeypatch.undo()
        assert await adopt_exports(driver.service) == 3
        assert len([each async for each in driver.service.streams("export-")]) == 5
