"""A real service for each test, on each store: a fresh folder, a fresh database, real rendering processes."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adexport.bootstrap import Application, build, running
from adexport.events import ExportProgressed
from adexport.exporting import Exporting, Prepared
from adexport.queries import ExportSummary
from adexport.requests import ExportRequest, convert
from adexport.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))

from plain_design import DESIGN


def rows(count: int) -> list[dict[str, str]]:
    return [{"headline": f"Offer number {number}"} for number in range(1, count + 1)]


class Driver:
    """Starts exports and waits for them, as an entry point does."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.service = application.service
        self.queries = application.queries
        self.exporting: Exporting = application.exporting

    async def prepare(self, **request: Any) -> Prepared:
        wanted = {"design": DESIGN, "rows": rows(request.pop("count", 2)), **request}
        return await self.exporting.prepare(convert(wanted, ExportRequest))

    async def start(self, **request: Any) -> str:
        export_id = self.application.new_id()
        await self.exporting.start(await self.prepare(**request), export_id)
        return export_id

    async def until(self, export_id: str, fits: Callable[[ExportSummary], bool], seconds: float = 30) -> ExportSummary:
        async with asyncio.timeout(seconds):
            async for _ in self.service.changes(ExportProgressed):
                export = await self.queries.get_export(export_id)
                assert export is not None
                if fits(export):
                    return export
        raise AssertionError("the changes ended")

    async def over(self, export_id: str, seconds: float = 30) -> ExportSummary:
        return await self.until(export_id, lambda export: export.over, seconds)

    def let_pass(self, time: timedelta) -> None:
        """Set the service's clock forward."""
        world = self.service.world
        before = world.clock
        object.__setattr__(world, "clock", lambda: before() + time)

    async def caught_up(self) -> None:
        """Wait until the list and the figures hold all that has been said."""
        await self.application.exports.wait_until_caught_up()
        await self.application.figures.wait_until_caught_up()

    async def kinds(self, export_id: str) -> list[str]:
        return [entry.kind for entry in await self.queries.export_timeline(export_id)]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request) -> str:
    """ADEXPORT_STORE: nothing for SQLite, or the URL of an empty Postgres database."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else ""


@pytest.fixture
def drive() -> type[Driver]:
    """Drives what looks like an application."""
    return Driver


@pytest.fixture
def open_driver(tmp_path, store):
    @asynccontextmanager
    async def opened(*, consumers: bool = True, **settings: Any) -> AsyncIterator[Driver]:
        chosen = {"data": tmp_path / "data", "store": store, "render_processes": 1, "render_seconds": 20.0} | settings
        async with running(build(Settings(**chosen)), consumers=consumers) as application:
            yield Driver(application)

    return opened


@pytest.fixture
def plain_design() -> dict[str, Any]:
    """A design with one line of text."""
    return DESIGN
