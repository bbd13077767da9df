"""Measures Ad Export's rendering beside a warm headless Chromium, and a whole batch through its rendering processes.

python benchmarks/render.py [--rounds 7] [--quick] [--only WORD]. About four minutes. What each figure means and what
was seen: docs/reference/benchmarks-rendering.md.
"""

import argparse
import asyncio
import base64
import contextlib
import csv
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from frame import Case, Results, installed, machine, run_rounds
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from render_chromium import WarmPage, body_html, head_html

from adexport.catalogue import sample_designs
from adexport.designs import Design, bundled_asset, load_samples
from adexport.events import CellOrder
from adexport.exporting import ENGINE, DesignFacts
from adexport.planning import Target, plan
from adexport.ports import RenderJob
from adexport.rendering import Raster, draw, layout, render
from adexport.rendering.encoding import encode
from adexport.rendering_pool import RenderingPool
from adexport.settings import Settings

Figures = Mapping[str, Sequence[float]]
Row = dict[str, str]
T = TypeVar("T")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUALITY = 90  # Ad Export's own where no limit presses
LIMIT = 150_000
GIVEN = "Ad Export, layout given"
CPU = ", CPU"
GOALS = {(300, 250): 10.0, (1080, 1080): 1.8}
SIZES = ("300x250", "336x280", "728x90", "970x250", "160x600", "300x600", "320x50", "320x100")
SIZES += ("1080x1080", "1200x628", "1080x1920")
ROWS = 40
# The mean difference of a channel above which two pictures are not of the same thing; text alone makes up to 6.
MOST_DIFFERENT = 12.0


class Feed:
    """A sample design's rows, without end and none twice: each headline gets a number, so that no cache knows it."""

    def __init__(self, design: Design, feed_csv: bytes) -> None:
        self.design = design
        self._rows = list(csv.DictReader(io.StringIO(feed_csv.decode("utf-8-sig"))))
        self._numbers = count(1)

    def take(self, number: int) -> list[Row]:
        """Return the next rows; each run of them begins with the feed's first."""
        lead = self.design.lead or ""
        rows = [dict(self._rows[at % len(self._rows)]) for at in range(number)]
        return [{**row, lead: f"{row[lead]} {next(self._numbers)}"} for row in rows]


class Pictures:
    """One picture at a time, ours and Chromium's."""

    def __init__(self, browser: Browser, folder: Path, feeds: Sequence[Feed], each: int) -> None:
        head = folder / "head.html"
        head.write_text(head_html())
        self._pages = {size: WarmPage(browser, *size, head) for size in GOALS}
        self._each = each
        self._feeds = {feed.design.name: feed for feed in feeds}

    def ours(self, name: str, size: tuple[int, int]) -> Figures:
        """Measure fields to JPEG (nothing is prepared), and a layout to JPEG, as Chromium is given one."""
        design, feed = self._feeds[name].design, self._feeds[name]
        layouts = [layout(design, *size, row, bundled_asset) for row in feed.take(self._each)]
        began = time.process_time()
        whole = timed(feed.take(self._each), lambda row: jpeg(render(design, *size, row, bundled_asset)))
        spent = (time.process_time() - began) * 1000 / self._each
        return {
            figure(name, size, "Ad Export"): whole,
            figure(name, size, "Ad Export") + CPU: [spent],
            figure(name, size, GIVEN): timed(layouts, lambda each: jpeg(draw(each, bundled_asset))),
        }

    def chromium(self, name: str, size: tuple[int, int], way: str) -> Figures:
        """Measure HTML to JPEG; the HTML is prepared, with every place worked out."""
        design, page = self._feeds[name].design, self._pages[size]
        rows = self._feeds[name].take(self._each)
        bodies = [body_html(layout(design, *size, row, bundled_asset), design) for row in rows]
        take = page.screenshot if way == "screenshot" else page.capture
        began = descendants_milliseconds()
        seen = timed(bodies, lambda body: take(body, QUALITY))
        spent = (descendants_milliseconds() - began) / self._each
        own = figure(name, size, f"Chromium, {way}")
        return {own: seen, own + CPU: [spent]} if spent else {own: seen}

    def difference(self, name: str, size: tuple[int, int]) -> float:
        """Return the mean difference of a channel, 0 to 255, over a run of rows. Exits when pictures differ."""
        design, page = self._feeds[name].design, self._pages[size]
        differences = []
        for row in self._feeds[name].take(self._each):
            raster = render(design, *size, row, bundled_asset)
            own = np.frombuffer(raster.rgba, np.uint8).reshape(raster.height, raster.width, 4)[:, :, :3]
            body = body_html(layout(design, *size, row, bundled_asset), design)
            for data in (page.screenshot(body, 95), base64.b64decode(page.capture(body, 95))):
                other = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                differences.append(float(np.abs(own.astype(int) - other).mean()))
        if max(differences) > MOST_DIFFERENT:
            raise SystemExit(f"{name} {size}: Chromium shows something else, {max(differences):.1f} apart.")
        return float(np.mean(differences))


def descendants_milliseconds() -> float:
    """Return the CPU time of this process's descendants so far, Chromium's and Playwright's; 0 outside Linux."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, rest = stat.read_text().rpartition(")")
            values = rest.split()
            parents[int(stat.parent.name)], ticks[int(stat.parent.name)] = int(values[1]), sum(map(int, values[11:13]))
    family = {os.getpid()}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(ticks[each] for each in family - {os.getpid()}) * 1000 / os.sysconf("SC_CLK_TCK")


def jpeg(raster: Raster) -> bytes:
    """Encode as Chromium is asked to."""
    return encode(raster, "jpeg", quality=QUALITY)


def figure(name: str, size: tuple[int, int], way: str) -> str:
    """Return a figure's name."""
    return f"{name} {size[0]}x{size[1]}: {way}"


def timed(inputs: Sequence[T], make: Callable[[T], object]) -> list[float]:
    """Return milliseconds for each input."""
    seen = []
    for each in inputs:
        began = time.perf_counter()
        make(each)
        seen.append((time.perf_counter() - began) * 1000)
    return seen


def jobs_of(feed: Feed, rows: Sequence[Row], sizes: Sequence[str]) -> Iterator[RenderJob]:
    """Yield the plan's batches as the jobs that the worker gives to the rendering processes."""
    design = feed.design
    targets = [Target(width=int(w), height=int(h), max_bytes=LIMIT) for w, h in (size.split("x") for size in sizes)]
    planned = plan(DesignFacts(design.digest, design.fields()), rows, targets, ["jpeg"], engine=ENGINE)
    document = msgspec.json.encode(sample_designs(load_samples())[design.name].document)
    for part in planned.batches:
        orders = [msgspec.convert(planned.cells[at], CellOrder, from_attributes=True) for at in part.cells]
        used = {order.row: rows[order.row] for order in orders}
        yield RenderJob(design=document, rows=used, cells=orders, assets={})


def export(feeds: Sequence[Feed], processes: int, rows: int, sizes: Sequence[str]) -> Figures:
    """Measure rows × sizes as JPEG within the limit, an equal share of each design, on warm processes.

    The rate is of files. Exits when one is missing or above the limit.
    """
    jobs = [job for feed in feeds for job in jobs_of(feed, feed.take(rows // len(feeds)), sizes)]
    first = [job for feed in feeds for job in jobs_of(feed, feed.take(1), sizes)]
    settings = Settings()

    async def run() -> float:
        async with RenderingPool(
            size=processes,
            memory_bytes=settings.render_memory_mb * 1_000_000,
            seconds=settings.render_seconds,
            recycle_after=settings.render_recycle_after,
        ) as pool:
            await asyncio.gather(*(pool.render(job) for job in first for _ in range(processes)))
            began = time.perf_counter()
            results = [file for part in await asyncio.gather(*map(pool.render, jobs)) for file in part]
            seconds = time.perf_counter() - began
        bad = [file for file in results if file.verdict != "ok" or file.data is None or len(file.data) > LIMIT]
        if bad or len(results) != rows * len(sizes):
            raise SystemExit(
                f"{len(results)} files, {len(bad)} of them not usable: {[file.reason for file in bad[:3]]}"
            )
        return len(results) / seconds

    return {f"{rows} rows × {len(sizes)} sizes, JPEG ≤ 150 kB, processes: {processes}": [in_thread(run())]}


def in_thread(work: Coroutine[Any, Any, float]) -> float:
    """Run a coroutine to its end on a loop of its own: this thread's belongs to Playwright."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def print_report(results: Results, differences: Mapping[str, float], settings: Mapping[str, str]) -> None:
    """Print settings, figures and goals as Markdown."""
    for name, value in settings.items():
        print(f"- {name}: {value}")
    print("\n| a whole export, files/s | median | lowest round | highest round |\n|---|---:|---:|---:|")
    rates = [name for name in results if "processes" in name]
    for name in rates:
        low, high = results.spread(name)
        print(f"| {name} | {results.median(name):.0f} | {low:.0f} | {high:.0f} |")
    if len(rates) == 2:
        print(f"\nTwo processes beside one: {results.ratio(rates[1], rates[0]):.2f} ×")
    print("\n| one picture, ms | p50 | p99 | highest |\n|---|---:|---:|---:|")
    for name in (name for name in results if results.is_latency(name)):
        p50, p99, top = results.median(name), results.percentile(name, 99), results.percentile(name, 100)
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {top:.1f} |")
    print("\n| CPU for one picture, ms | median | lowest round | highest round |\n|---|---:|---:|---:|")
    for name in (name for name in results if name.endswith(CPU)):
        low, high = results.spread(name)
        print(f"| {name.removesuffix(CPU)} | {results.median(name):.1f} | {low:.1f} | {high:.1f} |")
    print("\n| times faster: goal | beside | reached | wanted | | layout given | by CPU | difference, 0 to 255 |")
    print("|---|---|---:|---:|---|---:|---:|---:|")
    for name, difference in differences.items():
        for way in ("screenshot", "bare capture"):
            print(goal_row(results, name, f"Chromium, {way}", difference))


def goal_row(results: Results, name: str, way: str, difference: float) -> str:
    """Return how many times faster one picture is made, beside one way of asking Chromium."""
    own, beside = f"{name}: Ad Export", f"{name}: {way}"
    if own not in results or beside not in results:
        return f"| {name} | {way} | not measured | | | | | |"
    reached, given = results.ratio(beside, own), results.ratio(beside, f"{name}: {GIVEN}")
    cpu = f"{results.ratio(beside + CPU, own + CPU):.1f} ×" if beside + CPU in results else ""
    wanted = next(goal for size, goal in GOALS.items() if name.endswith("{}x{}".format(*size)))
    met = "met" if reached >= wanted else "MISSED"
    return f"| {name} | {way} | {reached:.1f} × | ≥ {wanted:g} × | {met} | {given:.1f} × | {cpu} | {difference:.1f} |"


def cases_of(pictures: Pictures, feeds: Sequence[Feed], quick: bool) -> dict[str, Callable[[], Figures]]:
    """Return every case by its name."""
    cases: dict[str, Callable[[], Figures]] = {}
    rows, sizes = (len(feeds), SIZES[:2]) if quick else (ROWS, SIZES)
    for processes in (1, 2):
        cases[f"export {processes}"] = partial(export, feeds, processes, rows, sizes)
    for feed in feeds:
        for size in GOALS:
            name = f"{feed.design.name} {size[0]}x{size[1]}"
            cases[f"{name} ours"] = partial(pictures.ours, feed.design.name, size)
            for way in ("screenshot", "bare capture"):
                cases[f"{name} {way}"] = partial(pictures.chromium, feed.design.name, size, way)
    return cases


def measure(browser: Browser, folder: Path, args: argparse.Namespace) -> None:
    """Check that the pictures are of the same thing, run the rounds, print the report."""
    feeds = [Feed(sample.design, sample.feed_csv) for sample in load_samples().values()]
    pictures = Pictures(browser, folder, feeds, 2 if args.quick else 6)
    chosen = {name: case for name, case in cases_of(pictures, feeds, args.quick).items() if args.only in name}
    compared = [(feed.design.name, size) for feed in feeds for size in GOALS]
    differences = {
        f"{name} {size[0]}x{size[1]}": pictures.difference(name, size)
        for name, size in compared
        if any(case.startswith(f"{name} {size[0]}x{size[1]}") for case in chosen)
    }
    results = run_rounds([Case(case) for case in chosen.values()], 1 if args.quick else args.rounds)
    settings = {
        **machine(),
        "chromium": f"{browser.version}, headless, one warm page for each size, its body replaced for each picture",
        "engine": ENGINE,
        **installed("adexport", "skia-python", "uharfbuzz", "pillow", "playwright"),
        "settings": f"JPEG quality {QUALITY} on both sides; no headline twice; whole exports: limit {LIMIT} bytes",
    }
    print_report(results, differences, settings)


def main() -> None:
    """Start Chromium and measure."""
    parser = argparse.ArgumentParser(description="Measure Ad Export's rendering beside headless Chromium.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small round: does everything run?")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    args = parser.parse_args()
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    with tempfile.TemporaryDirectory(prefix="adexport-bench-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--font-render-hinting=none"])
        measure(browser, Path(folder), args)
        browser.close()


if __name__ == "__main__":
    main()
