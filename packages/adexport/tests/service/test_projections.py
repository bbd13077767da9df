"""The list and the figures: what they say, and that a version built anew beside the live one says the same."""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import msgspec
import pytest
from generated_files import generated

import adexport
from adexport import projections
from adexport.adapters.local_files import LocalFiles
from adexport.bootstrap import new_export_id, utc_now
from adexport.catalogue import Catalogue
from adexport.consumers import subscribe_planning
from adexport.entrypoints.http_api import create_app
from adexport.events import AdGenerationFailed, ExportCompleted, FailedCell, RenderBatchRequested
from adexport.exporting import Exporting
from adexport.figures import Figures, project_figures
from adexport.projections import project_list
from adexport.queries import ExportSummary, Queries
from adexport.results import subscribe_results, take_results
from adexport.settings import Settings
from tidings import Service

TABLES = {"exports": ["adexport_exports"], "figures": ["adexport_days", "adexport_shares", "adexport_ready"]}


@pytest.fixture
def open_stage(tmp_path, store, drive):
    """A service that plans and listens but renders nothing; it declares a second version of each projection."""

    @asynccontextmanager
    async def opened():
        settings = Settings(data=tmp_path, store=store)
        service, files = Service("adexport", store=settings.store_url), LocalFiles(tmp_path / "files")
        service.schema(Path(adexport.__file__).parent / "schema.sql")
        subscribe_planning(service, files)
        service.register(RenderBatchRequested)
        subscribe_results(service)
        exports, figures = project_list(service), project_figures(service)
        project_list(service, version=2)
        project_figures(service, version=2)
        async with service.running():
            yield drive(
                SimpleNamespace(
                    service=service,
                    settings=settings,
                    exports=exports,
                    figures=Figures(figures, utc_now),
                    queries=Queries(service, exports),
                    exporting=Exporting(service, files, Catalogue(service, files, {}, {}), processes=1),
                    new_id=new_export_id,
                )
            )

    return opened


def failed(export_id, *indexes, cause="render"):
    cells = [FailedCell(index=index, cause=cause, reason="No.") for index in indexes]
    return AdGenerationFailed(export_id=export_id, round=1, count=len(cells), cells=cells)


async def take(driver, *events):
    for event in events:
        async with driver.service.transaction() as tx:
            await take_results(driver.service, event, tx)


async def every_kind(driver):
    """Exports in every state, by results that the test reports itself; return their ids."""
    ids = [await driver.start(title=title) for title in ("done", "mixed", "dead", "cancelled", "retried", "pending")]
    done, mixed, dead, cancelled, retried, _ = ids
    every = range(4)
    await take(driver, generated(done, 0, 1), generated(done, 1, 2, 3))
    await take(driver, failed(mixed, 0, 1, cause="cannot_fit"), generated(mixed, 1, 2, 3))
    await take(driver, failed(dead, *every), generated(cancelled, 2), generated(retried, 0), failed(retried, 1, 2, 3))
    await driver.exporting.cancel(cancelled)
    await driver.exporting.retry(retried)
    for planned in ids[-2:]:
        await driver.until(planned, lambda export: export.state == "running")
    return ids


async def test_the_list_says_what_the_streams_say(open_stage):
    async with open_stage() as driver:
        ids = await every_kind(driver)
        await driver.caught_up()
        listed = (await driver.queries.list_exports()).items
        assert [export.id for export in listed] == ids[::-1]
        assert listed == [await driver.queries.get_export(export_id) for export_id in ids[::-1]]
        assert [export.state for export in listed][1:4] == ["running", "cancelled", "dead"]
        assert [(export.done, export.failed) for export in listed[::-1]] == [
            (4, 0),
            (3, 1),
            (0, 4),
            (1, 0),
            (1, 0),
            (0, 0),
        ]


async def test_the_figures_are_those_of_the_files(open_stage):
    async with open_stage() as driver:
        await every_kind(driver)
        await driver.caught_up()
        figures = await driver.application.figures.analytics()
        assert (figures.exports, figures.files, figures.bytes) == (6, 9, 90)
        assert [(share.name, share.files, share.bytes) for share in figures.formats] == [("jpeg", 9, 90)]
        assert [(share.name, share.files) for share in figures.failures] == [("render", 7), ("cannot_fit", 2)]
        assert [(day.exports, day.files) for day in figures.days] == [(0, 0)] * 13 + [(6, 9)]
        every = [recorded.event async for recorded in driver.service.read_all(prefix="export-")]
        waits = sorted(event.seconds for event in every if isinstance(event, ExportCompleted))
        assert len(waits) == 3  # one of them was asked for again
        assert (figures.p50_seconds, figures.p95_seconds) == (waits[1], waits[2])


async def test_the_figures_are_told_over_http_as_they_stand_in_the_reference(open_driver):
    reference = Path(__file__).parents[4] / "docs/reference/http-api.md"
    documented = json.loads(re.search(r"```json\n(\{\"days\".*?)```", reference.read_text(), re.DOTALL)[1])
    async with open_driver(consumers=False) as driver:
        transport = httpx.ASGITransport(create_app(driver.application))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/v1/analytics", params={"days": 3})
            assert answer.status_code == 200
            assert answer.json().keys() == documented.keys()
            figures = await driver.application.figures.analytics(days=3)
            assert answer.content == msgspec.json.encode(figures)
            assert [len(answer.json()["days"]), len(figures.days)] == [3, 3]
            for days in (0, 367):
                assert (await client.get("/v1/analytics", params={"days": days})).status_code == 422


async def all_exports(driver) -> list[ExportSummary]:
    return (await driver.queries.list_exports(limit=500)).items


async def tidings(driver, *words):
    """Run the command line of the library beside the running service."""
    url = driver.application.settings.store_url
    command = [sys.executable, "-m", "tidings.cli", "projection", *words, "--store", url]
    done = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.STDOUT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await done.communicate()
    assert done.returncode == 0, said.decode()


async def rows(driver, version):
    found = {}
    for table in [one for tables in TABLES.values() for one in tables]:
        every = await driver.service.fetch_all(f"SELECT * FROM {table}_v{version}")
        found[table] = sorted(json.dumps(row.as_dict(), sort_keys=True) for row in every)
    return found


async def rebuilt(driver):
    """Build the other versions anew while exports go on, and swap them in; return the rows of both, the live one first.

    The highest version is live in a new database.
    """
    ids = await every_kind(driver)
    await driver.caught_up()
    for name in TABLES:
        await tidings(driver, "rebuild", name, "--version", "1", "--yes")
    await take(driver, generated(ids[-1], 0, 1, 2))
    await every_kind(driver)
    await take(driver, generated(ids[-1], 3))
    await driver.caught_up()
    for name in TABLES:
        await tidings(driver, "swap", name, "--version", "1", "--wait", "30s")
    return await rows(driver, 2), await rows(driver, 1)


async def test_a_version_built_anew_is_the_live_one_and_takes_its_place(open_stage):
    async with open_stage() as driver:
        first, anew = await rebuilt(driver)
        assert first == anew
        assert [len(found) > 0 for found in first.values()] == [True] * 4
        assert await driver.application.exports.live_version() == 1
        before = await all_exports(driver)
        assert len(before) == 12
        assert before == [await driver.queries.get_export(export.id) for export in before]
        # Both follow on, and the new one is what is read.
        pending = [export.id for export in before if export.title == "pending" and export.state == "running"]
        await take(driver, *(generated(export_id, *range(4)) for export_id in pending))
        await driver.caught_up()
        assert Counter(export.state for export in await all_exports(driver) if export.title == "pending") == {"done": 2}


async def test_a_list_that_asks_for_the_time_is_found_out(open_stage, monkeypatch):
    monkeypatch.setattr(projections, "_ended", lambda moment: time.time_ns() // 1000)
    async with open_stage() as driver:
        first, anew = await rebuilt(driver)
        assert first != anew
        assert first["adexport_days"] == anew["adexport_days"]
