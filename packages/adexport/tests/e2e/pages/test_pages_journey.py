"""The journeys of people through the pages: the whole way, retries, cancelling, own designs, no scripts."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

Ask = Callable[..., str]
Body = Callable[..., dict[str, Any]]
Run = Callable[..., AbstractContextManager[Any]]
Rows = list[dict[str, str]]
pytestmark = pytest.mark.browser
READY = 30_000
SIZES = ("300x250", "728x90", "160x600")
ROOT_PATH = "/ads"


def test_the_whole_journey(page: Page, rooted: str, feed: bytes) -> None:
    """From the designs to checked bytes: twelve rows of a feed in three sizes and two formats."""
    page.goto(f"{rooted}/")
    page.locator("a", has_text="Export").and_(page.locator(".about a.button")).first.click()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    page.get_by_role("button", name="None").click()
    expect(page.locator("#check")).to_contain_text("0 files")
    expect(page.locator("#go")).to_be_disabled()
    for size in SIZES:
        page.get_by_label(size.replace("x", "×"), exact=True).check()
    page.get_by_label("PNG").check()
    page.get_by_label("A CSV file", exact=True).check()
    page.set_input_files("#file", files=[{"name": "shoes.csv", "mimeType": "text/csv", "buffer": feed}])
    expect(page.locator("#file-note")).to_contain_text("shoes.csv: 12 rows")
    expect(page.locator("#check")).to_contain_text("12 rows × 3 sizes × 2 formats =\n72 files", use_inner_text=True)
    expect(page.locator("#weight")).to_contain_text("of 150 kB")
    switch_the_preview(page)
    page.get_by_label("Title of the export").fill("Autumn shoes")
    page.get_by_role("button", name="Export 72 files").click()
    page.wait_for_url(re.compile(rf"{ROOT_PATH}/exports/[0-9a-f]+$"))
    page.evaluate("window.opened = 'once'")
    expect(page.get_by_role("heading", name="Autumn shoes")).to_be_visible()
    expect(page.locator("#head .chip")).to_have_text("done", timeout=READY)
    assert page.evaluate("window.opened") == "once"
    assert page.locator("#timeline li").count() >= 3
    expect(page.locator(".tile .picture img")).to_have_count(36)
    look_at_one(page)
    check_downloads(page)


def switch_the_preview(page: Page) -> None:
    """The renderer's own picture follows size, format and row."""
    canvas = page.locator("#stage canvas")
    page.get_by_label("Size", exact=True).select_option("728x90")
    page.get_by_label("Format", exact=True).select_option("png")
    page.get_by_role("button", name="Next row").click()
    expect(canvas).to_have_attribute("aria-label", "728×90 as png, row 2")
    expect(canvas).to_have_attribute("width", "728")


def look_at_one(page: Page) -> None:
    """Open the viewer by a click, step by key, close it by key."""
    page.locator(".tile .picture").first.click()
    expect(page.locator(".viewer")).to_be_visible()
    first = page.locator(".viewer h2").inner_text()
    page.keyboard.press("j")
    expect(page.locator(".viewer h2")).not_to_have_text(first)
    page.keyboard.press("Escape")
    expect(page.locator(".viewer")).to_be_hidden()


def check_downloads(page: Page) -> None:
    """Every byte that is offered is what the page says it is."""
    link = page.locator(".tiles.strip a[download]").filter(has_text="png").first
    with page.expect_download() as started:
        link.click()
    data = Path(started.value.path()).read_bytes()
    assert hashlib.sha256(data).hexdigest() == link.get_attribute("data-sha")
    assert Image.open(io.BytesIO(data)).size == (728, 90)
    with page.expect_download() as started:
        page.get_by_role("link", name="Download zip").click()
    with zipfile.ZipFile(started.value.path()) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        digests = {one["file"]: one["sha256"] for one in manifest}
        files = {name for name in archive.namelist() if not name.startswith("manifest.")}
        assert len(files) == 72
        assert {name: hashlib.sha256(archive.read(name)).hexdigest() for name in files} == digests


def test_failed_files_come_first_with_their_reason_and_no_vain_retry(page: Page, site: str, failed: str) -> None:
    page.goto(f"{site}/exports/{failed}")
    first = page.locator("#failures tbody tr").first
    expect(first.locator(".chip")).to_have_text("dead")
    expect(first.locator(".weight")).to_contain_text("over")
    assert first.locator("td").last.inner_text()
    expect(page.locator("#head .chip")).to_have_text("done")
    expect(page.locator("#head .chip")).to_have_class("chip tone-retry")
    expect(page.locator("#head .failed")).to_contain_text("failed")
    ready, finished = (page.get_by_role("progressbar", name=f"Files {name}") for name in ("ready", "finished"))
    assert ready.evaluate("bar => bar.value") < finished.evaluate("bar => bar.value")
    expect(page.locator("#failures")).to_contain_text("A retry would give the same")
    expect(page.get_by_role("button", name=re.compile("^Retry th"))).to_have_count(0)


def test_failed_files_can_be_asked_for_again(page: Page, run_adexport: Run, make_order: Body, tmp_path: Path) -> None:
    """The folders of the files cannot be written, the reason is shown; once they can, a click makes the files."""
    data = tmp_path / "data"
    with run_adexport(data, "serve", "--port", "8941", "--no-worker") as server:
        home = httpx.post(f"{server.url}/v1/exports", json=make_order()).headers["location"]
        taken = [data / "files" / f"{number:02x}" for number in range(256)]
        for place in (blocked := [place for place in taken if not place.exists()]):
            place.write_text("no folder")
        with run_adexport(data, "worker", wait=False):
            page.goto(f"{server.url}{home.removeprefix('/v1')}")
            expect(page.locator("#failures")).to_contain_text("Files cannot be written", timeout=READY)
            expect(page.locator("#head .chip")).to_have_text("dead", timeout=READY)
            for place in blocked:
                place.unlink()
            page.get_by_role("button", name="Retry these 4").click()
            expect(page.locator("#head .chip")).to_have_text("done", timeout=READY)
            expect(page.locator("#progress")).to_contain_text("4 of 4 files ready")
            expect(page.locator("#failures")).to_be_hidden()


def test_a_running_export_can_be_cancelled_and_taken_up_again(page: Page, site: str, ask: Ask, many_rows: Rows) -> None:
    export_id = ask(many_rows[:36], ("300x600", "970x250", "300x250"), formats=["png"])
    page.goto(f"{site}/exports/{export_id}")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#head .chip")).to_have_text("cancelled")
    page.get_by_role("button", name=re.compile("^Make the missing")).click()
    expect(page.locator("#head .chip")).to_have_text("done", timeout=READY)


def test_an_own_design_can_be_added_and_a_bad_one_is_explained(page: Page, site: str, design: str) -> None:
    document = httpx.get(f"{site}/v1/designs/{design}").json()["document"] | {"name": "my-own", "title": "My own"}
    files = [{"name": "own.json", "mimeType": "application/json", "buffer": json.dumps(document).encode()}]
    page.goto(f"{site}/designs")
    page.set_input_files("#document", files=[files[0] | {"buffer": b'{"name": "broken"}'}])
    expect(page.get_by_role("alert")).to_contain_text("$")
    page.wait_for_load_state()  # a new page: its script sends what is chosen
    page.set_input_files("#document", files=files)
    expect(page.get_by_role("radio", name="My own")).to_be_checked()


def test_an_export_can_be_asked_for_without_scripts(browser: Browser, rooted: str, design: str, feed: bytes) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{rooted}/exports/new?design={design}&networks=google-ads&sizes=300x250&formats=png&source=feed")
    page.set_input_files("#file", files=[{"name": "shoes.csv", "mimeType": "text/csv", "buffer": feed}])
    page.get_by_role("button", name="Export").last.click()
    page.wait_for_url(re.compile("/exports/[0-9a-f]+$"))
    expect(page.locator("#progress")).to_contain_text("12 of 12 files ready", timeout=READY)
    expect(page.get_by_role("link", name="Download zip")).to_be_visible()
    context.close()


def test_a_refused_file_takes_its_preview_away(page: Page, site: str, design: str) -> None:
    page.goto(f"{site}/exports/new?design={design}&sizes=300x250&formats=png")
    expect(page.locator("#stage canvas")).to_be_visible()
    page.get_by_label("A CSV file", exact=True).check()
    good = {"name": "one.csv", "mimeType": "text/csv", "buffer": b"brand,product,price\nFjell,Boot,9\n"}
    page.set_input_files("#file", files=[good])
    expect(page.locator("#file-note")).to_contain_text("one.csv: 1 row, 3 columns")
    expect(page.locator("#feed-rows")).to_be_visible()
    page.set_input_files("#file", files=[good | {"name": "bad.csv", "buffer": b"\x00\x01"}])
    expect(page.locator(".drop.bad")).to_be_visible()
    expect(page.locator("#feed-rows")).to_be_hidden()
    expect(page.locator("#stage canvas")).to_be_hidden()
    expect(page.locator("#preview-problem")).to_contain_text("Choose a CSV file")
    expect(page.locator("#go")).to_be_disabled()


def test_what_stands_in_the_way_is_said_on_the_form(page: Page, site: str, design: str) -> None:
    page.goto(f"{site}/exports/new?design={design}&networks=google-ads&sizes=300x250&formats=webp&formats=jpeg")
    expect(page.locator(".problems")).to_contain_text("Google Ads does not accept webp")
    expect(page.locator("#go")).to_be_disabled()
    page.get_by_role("checkbox", name="WebP").uncheck()
    expect(page.locator("#check")).not_to_contain_text("webp")
    expect(page.locator("#go")).to_be_enabled()
