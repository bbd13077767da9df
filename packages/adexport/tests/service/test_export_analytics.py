"""The example that follows Ad Export's log from a store of its own: its figures are those of the exports."""

import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from adexport.queries import moment

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "export_analytics"
KINDS = (
    {"formats": ["png"]},
    {"formats": ["png", "jpeg"], "count": 1},
    {"formats": ["webp"], "count": 1, "sizes": ["300x250"]},
    {"formats": ["png"], "count": 1, "sizes": ["300x250"], "max_bytes": 60},
    {"formats": ["jpeg"], "count": 1, "sizes": ["300x250", "1920x1080"], "max_bytes": 6000},
)
"""Exports that end well, one none of whose files can fit, and one of which some can."""


async def make(driver: Any, exports: int) -> list[str]:
    """Make exports through the service, each with its real history; some are cancelled."""
    prepared = [await driver.prepare(**kind) for kind in KINDS]
    made = []
    for start in range(0, exports, 20):
        some = [driver.application.new_id() for _ in range(start, min(start + 20, exports))]
        for number, export_id in enumerate(some, start):
            await driver.exporting.start(prepared[number % len(prepared)], export_id)
            if number % 17 == 3:
                await driver.exporting.cancel(export_id)
        for export_id in some:
            await driver.over(export_id, seconds=60)
        made += some
    return made


async def of_the_tables(service: Any) -> dict[str, dict[str, float]]:
    """The same figures, from the tables that Ad Export itself keeps."""
    exports = await service.fetch_all("SELECT * FROM adexport_exports_v1")
    ended = {row["id"] for row in exports if row["state"] in ("done", "dead")}
    cells = [row for row in await service.fetch_all("SELECT * FROM adexport_cell") if row["export_id"] in ended]
    words = {"done": "completed", "dead": "failed", "cancelled": "cancelled"}
    seconds = [(row["finished_us"] - row["started_us"]) / 1_000_000 for row in exports if row["state"] == "done"]
    return {
        "exports_by_day": dict(Counter(f"{moment(row['created_us']):%Y-%m-%d}" for row in exports)),
        "exports_by_end": dict(Counter(words[row["state"]] for row in exports)),
        "files_by_format": dict(Counter(row["format"] for row in cells if row["state"] == "done")),
        "seconds_to_ready": {"median": median(seconds), "longest": max(seconds)},
        "failures_by_cause": dict(Counter(row["cause"] for row in cells if row["state"] == "dead")),
    }


class Example:
    """The example as a process of its own."""

    def __init__(self, log: str, folder: Path) -> None:
        self.arguments = (log, f"sqlite:///{folder}/figures.db", "--json")

    async def figures(self) -> Any:
        """Run it to its end, and return what it printed."""
        told = await self._run(EXAMPLE / "analytics.py", 0)
        return json.loads(told)

    async def die(self, page: int) -> None:
        """Run it until a SIGKILL comes just before it commits its n-th page of events."""
        await self._run(Path(__file__).with_name("dying_analytics.py"), -signal.SIGKILL, str(page))

    async def _run(self, script: Path, code: int, *more: str) -> bytes:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, str(script), *more, *self.arguments)
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        told, wrong = await process.communicate()
        assert process.returncode == code, wrong.decode()
        return told


async def compare(driver: Any, folder: Path, exports: int) -> None:
    """Start late, be killed twice in the middle, take in what is made meanwhile: the figures are the tables'."""
    await make(driver, exports)
    example = Example(driver.application.settings.store_url, folder)
    await example.die(page=3)
    await example.die(page=1)
    early, _ = await asyncio.gather(example.figures(), make(driver, 10))
    assert exports <= sum(early["exports_by_end"].values()) <= exports + 10
    figures = await example.figures()
    await driver.caught_up()
    assert figures == await of_the_tables(driver.service)
    assert sum(figures["exports_by_end"].values()) == exports + 10
    assert set(figures["failures_by_cause"]) == {"cannot_fit"}
    assert figures["failures_by_cause"]["cannot_fit"] > figures["exports_by_end"]["failed"]
    assert set(figures["files_by_format"]) == {"png", "jpeg", "webp"}
    assert set(figures["exports_by_end"]) == {"completed", "failed", "cancelled"}


async def test_its_figures_are_those_of_the_exports(open_driver, tmp_path):
    async with open_driver() as driver:
        await compare(driver, tmp_path, 40)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_its_figures_are_those_of_a_thousand_exports(open_driver, tmp_path):
    async with open_driver(render_processes=2) as driver:
        await compare(driver, tmp_path, 1000)
