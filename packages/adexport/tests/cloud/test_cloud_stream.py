"""A browser behind a proxy that cuts the stream ten times, while results come the whole way from the function."""

import asyncio

import httpx
import pytest
from cut_streams import Cutter, Watch
from local_cloud import Place, function_at_work
from playwright.async_api import async_playwright

CUTS = 10
# Each row is a batch of its own: so much work is expected of a picture of this size.
LARGE = {"sizes": ["1600x1600"], "formats": ["png", "webp"]}


@pytest.fixture
def function_seconds() -> int:
    """As long as a busy machine needs: no function is killed here."""
    return 60


@pytest.mark.browser
async def test_a_page_whose_stream_is_cut_ten_times_is_told_of_each_step_once(
    place: Place, client: httpx.AsyncClient, order, chromium_path: str
) -> None:
    home = (await client.post("/v1/exports", json=order(CUTS + 3, **LARGE))).headers["location"]
    cutter = Cutter(str(client.base_url).rstrip("/"))
    async with async_playwright() as playwright, function_at_work(place, concurrency=1, batch_size=1) as (function, _):
        gate, invoke = asyncio.Semaphore(0), function.invoke

        async def when_let(event):
            await gate.acquire()
            return await invoke(event)

        function.invoke = when_let
        browser = await playwright.chromium.launch(executable_path=chromium_path)
        watch = Watch(await browser.new_page(), cutter)
        await watch.open(home.removeprefix("/v1"))

        async def one_batch() -> None:
            gate.release()

        await watch.cut_often(CUTS, one_batch)
        for _ in range(100):
            gate.release()
        await watch.over()
        timeline = (await client.get(f"{home}/timeline")).json()
        assert len([entry for entry in timeline if entry["kind"] == "files"]) > CUTS
        await watch.told_each_once(timeline)
        await browser.close()
    cutter.close()
