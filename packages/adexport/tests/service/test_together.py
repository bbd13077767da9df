"""Several at once on one store: results, cancels and starts that meet do not double, lose or hinder each other."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import httpx
import pytest
from generated_files import generated

from adexport.bootstrap import build
from adexport.entrypoints.http_api import create_app
from adexport.events import AdGenerationFailed, FailedCell
from adexport.export import NotNowError
from adexport.results import take_results
from adexport.settings import Settings


def failed(export_id, *indexes):
    cells = [FailedCell(index=index, cause="render", reason="No.") for index in indexes]
    return AdGenerationFailed(export_id=export_id, round=1, count=len(cells), cells=cells)


async def apply(driver, event):
    async with driver.service.transaction() as tx:
        await take_results(driver.service, event, tx)


async def cancel(driver, export_id):
    try:
        await driver.exporting.cancel(export_id)
    except NotNowError:
        assert (await driver.queries.get_export(export_id)).state == "done"


async def counted(driver, export_id):
    """The export, whose numbers must be those of its files and of its timeline."""
    export = await driver.queries.get_export(export_id)
    states = Counter(cell.state for cell in await driver.queries.all_cells(export_id))
    assert (export.done, export.failed, export.bytes) == (states["done"], states["dead"], 10 * states["done"])
    timeline = await driver.queries.export_timeline(export_id)
    assert [entry.sequence for entry in timeline] == list(range(1, export.version + 1))
    return export


async def test_results_that_come_at_once_and_twice_count_once(open_driver):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start(count=6)
        events = [
            *(generated(export_id, index, index + 1) for index in range(11)),
            *(failed(export_id, index) for index in range(12)),
        ]
        await asyncio.gather(*(apply(driver, event) for event in events + events))
        export = await counted(driver, export_id)
        assert (export.state, export.total, export.done + export.failed) == ("done", 12, 12)
        assert Counter(await driver.kinds(export_id))["completed"] == 1


@pytest.mark.parametrize("when", range(3))
async def test_a_cancel_among_results_leaves_every_file_in_one_state(open_driver, when):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start(count=6)
        doing = [apply(driver, generated(export_id, index)) for index in range(12)]
        doing.insert(when * 6, cancel(driver, export_id))
        await asyncio.gather(*doing)
        export = await counted(driver, export_id)
        assert export.state in ("done", "cancelled")
        kinds = Counter(await driver.kinds(export_id))
        assert kinds["completed"] + kinds["cancelled"] == 1
        assert kinds["files"] == export.done


async def test_servers_that_get_the_same_key_at_once_start_one_export(open_driver, plain_design):
    body = {"design": plain_design, "rows": [{"headline": "Hello"}]}
    async with open_driver(consumers=False) as one, open_driver(consumers=False) as two, AsyncExitStack() as stack:
        transports = [httpx.ASGITransport(create_app(driver.application)) for driver in (one, two)]
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
            for transport in transports
        ]
        for key in range(5):
            headers = {"Idempotency-Key": f"key {key}"}
            answers = await asyncio.gather(*(one.post("/v1/exports", json=body, headers=headers) for one in clients))
            assert [answer.status_code for answer in answers] == [202, 202]
            assert len({answer.headers["location"] for answer in answers}) == 1
        assert len([each async for each in one.service.streams("export-")]) == 5


async def test_services_that_start_at_once_all_come_up(tmp_path, store):
    async with AsyncExitStack() as stack:
        services = [build(Settings(data=tmp_path, store=store, render_processes=1)).service for _ in range(6)]
        await asyncio.gather(*(stack.enter_async_context(service.running(consumers=False)) for service in services))
        for service in services:
            assert await service.fetch_value("SELECT count(*) FROM adexport_exports_v1") == 0


@pytest.mark.parametrize("store", ["postgres"], indirect=True)  # SQLite has one writer: a start waits for it
async def test_a_start_waits_for_no_writer_and_hinders_none(open_driver, tmp_path, store):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start()
        async with driver.service.transaction() as tx:
            await tx.execute("UPDATE adexport_cell SET name = 'held' WHERE export_id = $1", export_id)
            another = build(Settings(data=tmp_path, store=store, render_processes=1)).service
            async with asyncio.timeout(5), another.running(consumers=False):
                await tx.execute("DELETE FROM adexport_idempotency")
