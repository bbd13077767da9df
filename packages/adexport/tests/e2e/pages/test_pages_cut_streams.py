"""Cut streams against a server, or a page, in which a defect was planted: the witness of the cuts notices each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from cut_streams import Cutter, Watch
from plain_design import DESIGN
from playwright.async_api import Page, async_playwright

from adexport.bootstrap import Application, build, running
from adexport.entrypoints import exports_api, streams
from adexport.entrypoints.http_api import create_app
from adexport.entrypoints.serving import listen
from adexport.events import AdGenerated, GeneratedFile
from adexport.requests import ExportRequest, convert
from adexport.results import take_results
from adexport.settings import Settings

pytestmark = pytest.mark.browser
CUTS = 3
STREAM = Path(streams.__file__).parents[1] / "web/static/stream.js"


class Quiet(uvicorn.Server):
    """Takes no signals: they are pytest's."""

    @contextmanager
    def capture_signals(self):
        yield


def one_file(export_id: str, index: int) -> AdGenerated:
    """What a worker says of a batch of one file."""
    file = GeneratedFile(
        index=index, key=f"key {index}", url="sha256:0", format="jpeg", width=300, height=250, bytes=10,
        sha256="0" * 64, seconds=0.1, quality="quality 90",
    )  # fmt: skip
    return AdGenerated(export_id=export_id, round=1, count=1, total_bytes=10, seconds=0.1, files=[file])


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Application, str]]:
    """Ad Export in this process, without a worker: the test makes its progress."""
    application = build(Settings(data=folder, render_processes=1))
    async with running(application, consumers=False):
        with listen("127.0.0.1", 18_310) as sock:
            server = Quiet(uvicorn.Config(create_app(application), lifespan="off", log_level="error"))
            serving = asyncio.create_task(server.serve(sockets=[sock]))
            yield application, f"http://127.0.0.1:{sock.getsockname()[1]}"
            server.should_exit = server.force_exit = True
            await serving


async def watched(folder: Path, chromium: str, prepare: Callable[[Page], object], seconds: float) -> None:
    """Let a page follow an export through cuts, and look at what it was told."""
    async with served(folder) as (application, address), async_playwright() as playwright:
        order = {"design": DESIGN, "rows": [{"headline": "One"}, {"headline": "Two"}]}
        export_id = application.new_id()
        prepared = await application.exporting.prepare(convert(order, ExportRequest))
        assert len(prepared.plan.cells) == CUTS + 1
        await application.exporting.start(prepared, export_id)
        indexes = iter(range(CUTS + 1))

        async def step() -> None:
            async with application.service.transaction() as tx:
                await take_results(application.service, one_file(export_id, next(indexes)), tx)

        cutter = Cutter(address)
        browser = await playwright.chromium.launch(executable_path=chromium)
        try:
            page = await browser.new_page()
            if (preparing := prepare(page)) is not None:
                await preparing
            watch = Watch(page, cutter, seconds)
            await watch.open(f"/exports/{export_id}")
            await watch.cut_often(CUTS, step)
            await step()
            await watch.over()
            timeline = await application.queries.export_timeline(export_id)
            await watch.told_each_once([{"sequence": entry.sequence} for entry in timeline])
        finally:
            cutter.close()
            await browser.close()


async def test_without_a_defect_each_step_is_told_once(tmp_path: Path, chromium_path: str) -> None:
    await watched(tmp_path, chromium_path, lambda page: None, 60)


def without_ids(entry):
    sent = MESSAGE(entry)
    return b"".join(line for line in sent.splitlines(keepends=True) if not line.startswith(b"id:"))


MESSAGE, READ = streams.message, exports_api.read_last_event_id
TOLD_WRONGLY, NEVER_SHOWN = "the page was told|asked for again", "is not shown|was not taken up again"
SOAK = pytest.mark.soak
SERVER = [
    pytest.param(exports_api, "read_last_event_id", lambda request: None, TOLD_WRONGLY, id="the last id is ignored"),
    pytest.param(streams, "message", without_ids, NEVER_SHOWN, id="steps have no id"),
    pytest.param(
        exports_api, "read_last_event_id", lambda request: max((READ(request) or 0) - 1, 0), TOLD_WRONGLY,
        id="one step is told again", marks=SOAK,
    ),
    pytest.param(
        exports_api, "read_last_event_id", lambda request: (READ(request) or 0) + 1, NEVER_SHOWN,
        id="one step is left out", marks=SOAK,
    ),
]  # fmt: skip
PAGE = [
    pytest.param('"Last-Event-ID": String(last)', '"Last-Event-ID": "0"', TOLD_WRONGLY, id="it does not say its last"),
    pytest.param("String(last)", "String(last + 1)", NEVER_SHOWN, id="it says too much", marks=SOAK),
    pytest.param(
        "while (!over) {", "for (let tries = 0; tries < 1; tries += 1) {", NEVER_SHOWN,
        id="it does not come back", marks=SOAK,
    ),
]  # fmt: skip


def patience(notices: str) -> float:
    """Seconds to wait for what must come; less where the defect is that it does not."""
    return 5 if notices == NEVER_SHOWN else 60


@pytest.mark.parametrize(("module", "name", "defect", "notices"), SERVER)
async def test_a_defect_of_the_server_is_noticed(
    tmp_path: Path, chromium_path: str, monkeypatch: pytest.MonkeyPatch, module, name: str, defect, notices: str
) -> None:
    monkeypatch.setattr(module, name, defect)
    with pytest.raises(AssertionError, match=notices):
        await watched(tmp_path, chromium_path, lambda page: None, patience(notices))


@pytest.mark.parametrize(("was", "becomes", "notices"), PAGE)
async def test_a_defect_of_the_page_is_noticed(
    tmp_path: Path, chromium_path: str, was: str, becomes: str, notices: str
) -> None:
    source = STREAM.read_text()
    assert source.count(was) == 1
    script = source.replace(was, becomes)

    def changed(page: Page):
        return page.route("**/stream.js*", lambda route: route.fulfill(body=script, content_type="text/javascript"))

    with pytest.raises(AssertionError, match=notices):
        await watched(tmp_path, chromium_path, changed, patience(notices))
