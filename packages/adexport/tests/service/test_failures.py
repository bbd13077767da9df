"""What the HTTP layer says when the service itself fails: a page to people, a problem to programs."""

import httpx
import pytest

from adexport.entrypoints.http_api import create_app
from adexport.entrypoints.streams import progress_stream


@pytest.fixture
async def broken(open_driver):
    """A client of a service whose table of exports is gone."""
    async with open_driver(consumers=False) as driver:
        async with driver.service.transaction() as tx:
            await tx.execute("DROP TABLE adexport_exports_v1")
        transport = httpx.ASGITransport(create_app(driver.application))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def test_a_failure_is_a_page_for_people_and_a_problem_for_programs(broken, caplog):
    page = await broken.get("/exports", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "<h1>Internal Server Error</h1>" in page.text
    assert "Its log has the reason" in page.text
    problem = await broken.get("/v1/exports", headers={"Accept": "text/html"})
    assert (problem.status_code, problem.headers["content-type"]) == (500, "application/problem+json")
    assert "adexport_exports" not in page.text + problem.text
    assert "adexport_exports" in caplog.text


@pytest.mark.parametrize("store", ["postgres"], indirect=True)  # a file is not away for a while
async def test_a_stream_ends_when_the_store_is_away(open_driver):
    async with open_driver(consumers=False) as driver:
        export_id = await driver.start()
        pieces = progress_stream(driver.application, export_id, 0).body_iterator
        assert (await anext(pieces)).startswith(b"retry:")
        assert b'"accepted"' in await anext(pieces)
        await driver.exporting.cancel(export_id)
        await driver.service.store.close()
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)
        await driver.service.store.open(migrate=False)
