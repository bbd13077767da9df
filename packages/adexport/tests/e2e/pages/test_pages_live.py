"""Live progress in a real Chromium: cut streams resume, many open pages all follow."""

from collections.abc import Callable

import httpx
import pytest
from cut_streams import Cutter
from playwright.sync_api import Browser, BrowserContext, Request, expect

Ask = Callable[..., str]
Rows = list[dict[str, str]]
pytestmark = pytest.mark.browser
READY = 30_000


def test_a_cut_stream_resumes_and_shows_each_step_once(browser: Browser, site: str, ask: Ask, many_rows: Rows) -> None:
    cutter, context = Cutter(site), browser.new_context()
    page = context.new_page()
    resumed: list[int] = []
    page.on("request", lambda request: resumed.append(int(request.headers.get("last-event-id", "-1")))
            if request.url.endswith("/events") else None)  # fmt: skip
    # Large pictures too, so that the export still runs when the stream is cut for the second time.
    sizes = ("300x250", "728x90", "160x600", "300x600", "1080x1080")
    export_id = ask(many_rows, sizes, formats=["png"], max_bytes=3_000_001)
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


def test_many_open_pages_all_load_and_all_follow(context: BrowserContext, site: str, ask: Ask, many_rows: Rows) -> None:
    """A browser has six connections for a host; eight pages that each held one would leave none for the seventh."""
    export_id = ask(many_rows[:24], ("300x250", "1080x1080"), formats=["png", "webp"], max_bytes=3_000_002)
    streams: set[Request] = set()
    most = []
    context.on("request", lambda request: streams.add(request) if request.url.endswith("/events") else None)
    context.on("request", lambda _: most.append(len(streams)))
    context.on("requestfinished", lambda request: streams.discard(request))
    context.on("requestfailed", lambda request: streams.discard(request))
    pages = [context.new_page() for _ in range(8)]
    for page in pages:
        page.goto(f"{site}/exports/{export_id}", timeout=10_000)
    for page in pages:
        expect(page.locator("#timeline li[data-kind=completed]")).to_be_visible(timeout=READY)
    assert 2 <= max(most) <= 4
