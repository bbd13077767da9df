"""The pages in a real Chromium against the real service: the whole journey, and what must hold on every page."""

import contextlib
import csv
import hashlib
import html
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

# Half of the tests use the address under the root path, as behind a proxy that keeps it, the others without.
ROOT_PATH = "/ads"
SIZES = ("300x250", "728x90", "160x600")
READY = 30_000

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running `adexport serve`, without its root path."""
    data = tmp_path_factory.mktemp("pages")
    command = [str(Path(sys.executable).with_name("adexport")), "serve", "--port", "8931", "--data", str(data)]
    environment = {**os.environ, "ADEXPORT_ROOT_PATH": ROOT_PATH, "ADEXPORT_RENDER_PROCESSES": "2"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", server.stdout.readline())
        assert found is not None
        yield found[0]
        server.terminate()
        assert server.wait(20) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A context in which every page error, refused script and request to elsewhere fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    found: list[str] = []
    context.on("request", lambda request: found.append(request.url))
    complaints: list[str] = []
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield context
    context.close()
    assert [url for url in found if not re.match(r"(http://127\.0\.0\.1:\d+/|blob:)", url)] == []
    assert [text for text in complaints if "Failed to load resource" not in text] == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture(scope="module")
def design(site: str) -> str:
    """The name of the first sample design."""
    return str(httpx.get(f"{site}/designs.json").json()["designs"][0]["name"])


@pytest.fixture(scope="module")
def rows(site: str, design: str) -> Rows:
    """Twelve rows for the design, from its sample feed."""
    answer = httpx.get(f"{site}/v1/designs/{design}").json()
    empty = dict.fromkeys(answer["design"]["fields"], "")
    return [empty | row for row in (answer["sample_rows"] * 12)[:12]]


@pytest.fixture(scope="module")
def feed(rows: Rows) -> bytes:
    """The rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def start(site: str, design: str, rows: Rows, sizes: tuple[str, ...] = SIZES, **more: object) -> str:
    """Ask for an export over the API; return its id."""
    body = {"design": design, "rows": rows, "sizes": sizes, "title": "Asked for by a program", **more}
    answer = httpx.post(f"{site}/v1/exports", json=body, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["export"]["id"])


def priced(rows: Rows) -> Rows:
    """The rows, each with a price of its own: equal pictures would be made once and be ready at once."""
    return [{**row, "price": str(number)} for number, row in enumerate(rows, 100)]


def finished(site: str, export_id: str) -> dict[str, Any]:
    answer = httpx.get(f"{site}/v1/exports/{export_id}", headers={"Prefer": "wait=30"}, timeout=40)
    return dict(answer.json()["export"])


@pytest.fixture(scope="module")
def done(site: str, design: str, rows: Rows) -> str:
    """The id of an export that is done."""
    export_id = start(site, design, rows[:4])
    assert finished(site, export_id)["state"] == "done"
    return export_id


@pytest.fixture(scope="module")
def failed(site: str, design: str, rows: Rows) -> str:
    """The id of an export in which every PNG is too heavy for its own limit."""
    export_id = start(site, design, rows[:4], ("300x600",), formats=["png", "jpeg"], max_bytes=14_000)
    assert finished(site, export_id)["failed"] > 0
    return export_id


def test_the_whole_journey(page: Page, site: str, feed: bytes) -> None:
    """From the designs to checked bytes: twelve rows of a feed in three sizes and two formats."""
    page.goto(f"{site}{ROOT_PATH}/")
    page.locator("a", has_text="Export").and_(page.locator(".about a.button")).first.click()
    expect(page.get_by_role("heading", name="New export")).to_be_visible()
    page.get_by_role("button", name="None").click()
    for size in SIZES:
        page.get_by_label(size.replace("x", "×"), exact=True).check()
    page.get_by_label("PNG").check()
    page.get_by_label("A CSV file", exact=True).check()
    page.set_input_files("#file", files=[{"name": "shoes.csv", "mimeType": "text/csv", "buffer": feed}])
    expect(page.locator("#file-note")).to_contain_text("shoes.csv: 12 rows")
    expect(page.locator("#check")).to_contain_text("12 rows × 3 sizes × 2 formats =\n72 files", use_inner_text=True)
    expect(page.locator("#weight")).to_contain_text("of 150 kB")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(browser: Browser, site: str, done: str, failed: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    exports = ("exports", "exports?q=nothing", f"exports/{done}", f"exports/{failed}")
    for path in ("designs", "exports/new", *exports, "no"):
        page.goto(f"{site}/{path}")
        expect(page.locator("#stage canvas, main:not(:has(#stage))")).to_be_visible()
        report = Axe().run(page)
        assert report.violations_count == 0, (path, report.generate_report())
    context.close()


def test_a_phone_scrolls_in_one_direction_only(browser: Browser, site: str, done: str, failed: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    for path in ("designs", "exports/new", "exports", f"exports/{done}?group=row", f"exports/{failed}", "no"):
        page.goto(f"{site}/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    context.close()


class Cutter:
    """Passes connections on to the site, and cuts them when told."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def cut(self) -> None:
        """Break every connection, in the middle of whatever it carries."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


def test_a_cut_stream_resumes_and_shows_each_step_once(browser: Browser, site: str, design: str, rows: Rows) -> None:
    cutter, context = Cutter(site), browser.new_context()
    page = context.new_page()
    resumed: list[int] = []
    page.on("request", lambda request: resumed.append(int(request.headers.get("last-event-id", "-1")))
            if request.url.endswith("/events") else None)  # fmt: skip
    export_id = start(
        site, design, priced(rows * 3), ("300x250", "728x90", "160x600", "300x600"), formats=["png", "webp"]
    )
    page.goto(f"{cutter.address}/exports/{export_id}")
    for count in (3, 8):
        expect(page.locator("#timeline li").nth(count)).to_be_visible(timeout=READY)
        cutter.cut()
    expect(page.locator("#timeline li[data-kind=completed]")).to_be_visible(timeout=READY)
    expect(page.locator("#head .chip")).to_have_text("done")
    shown = [int(str(entry.get_attribute("data-sequence"))) for entry in page.locator("#timeline li").all()]
    told = httpx.get(f"{site}/v1/exports/{export_id}/timeline").json()
    assert shown[::-1] == [entry["sequence"] for entry in told]
    assert len(resumed) >= 3
    assert resumed == sorted(resumed)
    assert resumed[-1] > resumed[0]
    context.close()
    cutter.close()


def test_many_open_pages_all_load_and_all_follow(context: BrowserContext, site: str, design: str, rows: Rows) -> None:
    """A browser has six connections for a host; eight pages that each held one would leave none for the seventh."""
    export_id = start(site, design, priced(rows * 4), ("300x250", "300x600", "728x90"), formats=["png", "webp"])
    pages = [context.new_page() for _ in range(8)]
    for page in pages:
        page.goto(f"{site}/exports/{export_id}", timeout=10_000)
    for page in pages:
        expect(page.locator("#timeline li[data-kind=completed]")).to_be_visible(timeout=READY)


def test_the_keyboard_reaches_everything(page: Page, site: str, done: str, failed: str) -> None:
    page.goto(f"{site}/exports")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.locator("[data-row] [data-open]").nth(1)
    expect(second).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator("[data-row] [data-open]").first).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("jk?n")
    expect(page.get_by_role("searchbox")).to_have_value("jk?n")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No export fits")).to_be_visible()
    page.goto(f"{site}/exports")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#progress")).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="New export")).to_be_visible()


def test_failed_files_come_first_with_their_reason_and_a_retry(page: Page, site: str, failed: str) -> None:
    page.goto(f"{site}/exports/{failed}")
    first = page.locator("#failures tbody tr").first
    expect(first.locator(".chip")).to_have_text("dead")
    expect(first.locator(".weight")).to_contain_text("over")
    assert first.locator("td").last.inner_text()
    page.get_by_role("button", name=re.compile("^Retry these")).click()
    expect(page.locator("#timeline li[data-kind=retried]")).to_be_visible()
    expect(page.locator("#head .chip")).to_have_text("done", timeout=READY)


def test_a_running_export_can_be_cancelled_and_taken_up_again(page: Page, site: str, design: str, rows: Rows) -> None:
    export_id = start(site, design, priced(rows * 5), ("300x600", "970x250", "300x250"), formats=["png"])
    page.goto(f"{site}/exports/{export_id}")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#head .chip")).to_have_text("cancelled")
    page.get_by_role("button", name=re.compile("^Make the missing")).click()
    expect(page.locator("#head .chip")).to_have_text("done", timeout=READY)


def test_the_theme_is_kept(page: Page, site: str) -> None:
    page.goto(f"{site}/designs")
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.goto(f"{site}/exports")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_an_export_can_be_asked_for_without_scripts(browser: Browser, site: str, design: str, feed: bytes) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(
        f"{site}{ROOT_PATH}/exports/new?design={design}&networks=google-ads&sizes=300x250&formats=png&source=feed"
    )
    page.set_input_files("#file", files=[{"name": "shoes.csv", "mimeType": "text/csv", "buffer": feed}])
    page.get_by_role("button", name="Export").last.click()
    page.wait_for_url(re.compile("/exports/[0-9a-f]+$"))
    expect(page.locator("#progress")).to_contain_text("12 of 12 files ready", timeout=READY)
    expect(page.get_by_role("link", name="Download zip")).to_be_visible()
    context.close()


def test_what_stands_in_the_way_is_said_on_the_form(page: Page, site: str, design: str) -> None:
    page.goto(f"{site}/exports/new?design={design}&networks=google-ads&sizes=300x250&formats=webp&formats=jpeg")
    expect(page.locator(".problems")).to_contain_text("Google Ads does not accept webp")
    expect(page.locator("#go")).to_be_disabled()
    page.get_by_role("checkbox", name="WebP").uncheck()
    expect(page.locator("#check")).not_to_contain_text("webp")
    expect(page.locator("#go")).to_be_enabled()


def test_every_page_has_a_twin_and_every_link_leads_somewhere(site: str, done: str) -> None:
    with httpx.Client(base_url=site, follow_redirects=True, timeout=30) as client:
        for path in ("/designs", "/exports/new", "/exports?state=done", f"/exports/{done}?group=row"):
            for prefix in ("", ROOT_PATH):
                answer = client.get(prefix + path)
                links = re.findall(r'(?:href|src)="([^"#]+)"', answer.text)
                assert [link for link in links if re.match(r"/|\w+:", link)] == [], "a link is not relative"
                broken = {link for link in links if client.get(answer.url.join(html.unescape(link))).status_code >= 400}
                assert broken == set()
            twin = client.get(re.sub(r"(\?|$)", r".json\1", path, count=1))
            assert twin.headers["content-type"] == "application/json"
            assert twin.json()


def test_another_site_cannot_post_a_form(site: str, done: str) -> None:
    headers = {"Origin": "https://elsewhere.example", "Accept": "text/html"}
    answer = httpx.post(f"{site}/exports/{done}/retry", headers=headers)
    assert answer.status_code == 403
    assert "came from another site" in answer.text
