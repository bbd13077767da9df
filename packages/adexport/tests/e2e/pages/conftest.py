"""What the tests of the pages share: one running service, one Chromium, and what a page must never do."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

# Some tests use the address under the root path, as behind a proxy that keeps it, the others without it.
ROOT_PATH = "/ads"
SIZES = ("300x250", "728x90", "160x600")
Rows = list[dict[str, str]]
Ask = Callable[..., str]


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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


@pytest.fixture(scope="package")
def rooted(site: str) -> str:
    """The address under the root path."""
    return site + ROOT_PATH


# No wider: Playwright keeps an event loop running, in which no asynchronous test could run.
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


@pytest.fixture(scope="package")
def design(site: str) -> str:
    """The name of the first sample design."""
    return str(httpx.get(f"{site}/designs.json").json()["designs"][0]["name"])


@pytest.fixture(scope="package")
def rows(site: str, design: str) -> Rows:
    """Twelve rows for the design, from its sample feed."""
    answer = httpx.get(f"{site}/v1/designs/{design}").json()
    empty = dict.fromkeys(answer["design"]["fields"], "")
    return [empty | row for row in (answer["sample_rows"] * 12)[:12]]


@pytest.fixture(scope="package")
def feed(rows: Rows) -> bytes:
    """The rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.fixture(scope="package")
def many_rows(rows: Rows) -> Rows:
    """Sixty rows, each with a price of its own: equal pictures would be made once and be ready at once."""
    return [{**row, "price": str(number)} for number, row in enumerate(rows * 5, 100)]


@pytest.fixture(scope="package")
def ask(site: str, design: str) -> Ask:
    """Asks the API for an export of the design with the rows given, waits seconds if told, and returns its id."""

    def ask(rows: Rows, sizes: tuple[str, ...] = SIZES, *, wait: int = 0, **more: object) -> str:
        body = {"design": design, "rows": rows, "sizes": sizes, "title": "Asked for by a program", **more}
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        answer = httpx.post(f"{site}/v1/exports", json=body, headers=headers, timeout=wait + 20)
        assert answer.status_code == (200 if wait else 202), answer.text
        return str(answer.json()["export"]["id"])

    return ask


@pytest.fixture(scope="package")
def done(ask: Ask, rows: Rows) -> str:
    """The id of an export that is done."""
    return ask(rows[:4], wait=30)


@pytest.fixture(scope="package")
def failed(ask: Ask, rows: Rows) -> str:
    """The id of an export in which some files are too heavy for its own limit."""
    return ask(rows[:4], ("300x600",), formats=["png", "jpeg"], max_bytes=14_000, wait=30)
