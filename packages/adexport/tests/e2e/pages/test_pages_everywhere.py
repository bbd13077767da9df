"""What holds on every page: axe, phone width, keyboard, theme, twins, links, other sites."""

import html
import re
from collections.abc import Callable

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

Rows = list[dict[str, str]]
pytestmark = pytest.mark.browser
ROOT_PATH = "/ads"


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


def test_on_a_phone_what_is_wanted_most_is_in_sight(browser: Browser, site: str, done: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{site}/exports/{done}")
    actions = page.locator(".export-heading .actions > *")
    expect(actions.first).to_have_text("Download zip")
    page.goto(f"{site}/exports/new")
    go = page.locator("#go")
    expect(go).to_be_in_viewport(ratio=1)
    page.get_by_role("link", name="Preview").click()
    expect(page.locator("#stage canvas")).to_be_in_viewport(ratio=0.9)
    expect(go).to_be_in_viewport(ratio=1)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    count, button = page.locator(".verdict").bounding_box(), go.bounding_box()
    assert count is not None
    assert button is not None
    assert count["y"] + count["height"] <= button["y"], "the bar hides the count"
    context.close()


def test_the_selected_tab_stands_out(browser: Browser, site: str) -> None:
    """Its outline against the row of tabs: WCAG asks for a contrast of 3 for parts of controls."""
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{site}/exports")
        tab, row = page.locator(".tabs [aria-current]"), page.locator(".tabs")
        outline = tab.evaluate("tab => getComputedStyle(tab).boxShadow")
        behind = row.evaluate("row => getComputedStyle(row).backgroundColor")
        lighter, darker = sorted((luminance(outline), luminance(behind)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3, (scheme, outline, behind)
        context.close()


def luminance(colour: str) -> float:
    """The relative luminance, as WCAG defines it, of a computed rgb(…)."""
    found = re.search(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, colour
    parts = [int(part) / 255 for part in found.groups()]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


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


def test_the_theme_is_kept(page: Page, site: str) -> None:
    page.goto(f"{site}/designs")
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.goto(f"{site}/exports")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_every_picture_stands_with_all_its_formats(site: str, ask: Callable[..., str], many_rows: Rows) -> None:
    """More rows than a group shows at once: the page ends between two pictures, not between two formats."""
    export_id = ask(many_rows[:30], ("120x60",), formats=["png", "jpeg"], wait=30)
    seen = []
    for page in ("", "&only=120x60&page=0"):
        (group,) = httpx.get(f"{site}/exports/{export_id}.json?group=size{page}").json()["groups"]
        assert all({cell["format"] for cell in art["cells"]} == {"png", "jpeg"} for art in group["artworks"])
        seen.append(len(group["artworks"]))
    assert seen == [24, 30]


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


@pytest.mark.parametrize(("path", "status"), [
    ("exports/{done}?only=1x1", 404), ("exports/{done}?page=-1", 400), ("exports/{done}?page=x", 400),
    ("exports/0000", 404), ("exports?state=asleep", 400), ("exports?cursor=%00", 400), ("exports/new?design=none", 200),
    ("exports/new?sizes=0x0&max_kb=x&formats=bmp&feed=..&field.x=y", 200), ("exports?q=%ff'", 200),
    ("exports?q=%00", 400), ("static/no.css", 404), ("static/%2e%2e%2fview.py", 404),
])  # fmt: skip
def test_a_strange_address_gets_a_page_that_says_why(site: str, done: str, path: str, status: int) -> None:
    answer = httpx.get(f"{site}/{path.format(done=done)}", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert status == 200 or "Status" in answer.text


def test_another_site_cannot_post_a_form(site: str, done: str) -> None:
    headers = {"Origin": "https://elsewhere.example", "Accept": "text/html"}
    answer = httpx.post(f"{site}/exports/{done}/retry", headers=headers)
    assert answer.status_code == 403
    assert "came from another site" in answer.text
