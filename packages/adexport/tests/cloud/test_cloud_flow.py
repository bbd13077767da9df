"""The whole way with real parts: page → API → SQS → function → S3 → BullMQ → listener → page."""

import asyncio
import hashlib
import io
import zipfile
from contextlib import asynccontextmanager

import boto3
import httpx
import pytest
from local_cloud import Place, function_at_work
from playwright.async_api import async_playwright, expect


@asynccontextmanager
async def opened(chromium: str, address: str):
    """A page in a browser, and what it complains of."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium)
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        await page.goto(address)
        yield page, complaints
        await browser.close()


@pytest.mark.browser
async def test_an_export_goes_the_whole_way_and_its_page_follows(
    place: Place, client: httpx.AsyncClient, order, chromium_path: str
) -> None:
    home = (await client.post("/v1/exports", json=order(3))).headers["location"]
    async with opened(chromium_path, f"{client.base_url}{home.replace('/v1', '')}") as (page, complaints):
        pictures = page.locator(".picture img")
        assert await pictures.count() == 0
        async with function_at_work(place):
            await expect(pictures).to_have_count(6, timeout=40_000)  # nobody reloads it
        assert await pictures.first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        async with page.expect_download() as download:
            await page.locator("a[download]", has_text="jpeg").first.click()
        saved = await (await download.value).path()
        assert saved.read_bytes().startswith(b"\xff\xd8")
        assert complaints == []

    manifest = {entry["file"]: entry for entry in (await client.get(f"{home}/manifest.json")).json()}
    archive = (await client.get(f"{home}/archive", follow_redirects=True)).content
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        for name, entry in manifest.items():
            assert hashlib.sha256(files.read(name)).hexdigest() == entry["sha256"]
    stored = boto3.client("s3", endpoint_url=place.endpoint).list_objects_v2(Bucket=place.bucket)["Contents"]
    names = {each["Key"].rpartition("/")[2] for each in stored}
    assert {entry["sha256"] for entry in manifest.values()} <= names


async def until(true) -> None:
    """Wait for what other processes do."""
    for _ in range(200):
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("not within 20 seconds")


async def test_a_cancelled_export_is_not_rendered_and_an_equal_one_is_rendered_once(
    place: Place, client: httpx.AsyncClient, order
) -> None:
    def stored(folder: str) -> list[str]:
        s3 = boto3.client("s3", endpoint_url=place.endpoint)
        found = s3.list_objects_v2(Bucket=place.bucket, Prefix=f"ads/{folder}/").get("Contents", [])
        return [each["Key"] for each in found]

    cancelled = (await client.post("/v1/exports", json=order(3, "Cancelled"))).headers["location"]
    await until(lambda: "planned" in httpx.get(f"{client.base_url}{cancelled}/timeline").text)
    await client.post(f"{cancelled}/cancel")
    await until(lambda: stored("notes/ended"))
    async with function_at_work(place) as (_, source):
        for _ in range(2):
            home = (await client.post("/v1/exports", json=order(1, "Equal"))).headers["location"]
            export = (await client.get(home, headers={"Prefer": "wait=30"})).json()["export"]
            assert (export["state"], export["done"]) == ("done", 2)
        assert len(await asyncio.to_thread(stored, "notes/renders")) == 2
        assert not any(result.error_type for _, result in source.results)
    files = [cell["seconds"] for cell in (await client.get(f"{home}/cells")).json()]
    assert files == [0.0, 0.0], "it was rendered again"
    assert len(await asyncio.to_thread(stored, "files")) == 4, "two snapshots and the two files of one export"
