"""The whole way with real parts: page → API → SQS → function → S3 → BullMQ → listener → page."""

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
