"""An export without a server: the same service, on a throw-away store, watched until it is over."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from adexport.archive import manifest_csv, manifest_json
from adexport.bootstrap import Application, build, running
from adexport.entrypoints.manifests import entry_of
from adexport.errors import AdExportError
from adexport.events import ExportProgressed
from adexport.exporting import Prepared
from adexport.naming import check_path
from adexport.queries import ExportSummary, TimelineEntry
from adexport.requests import ExportRequest, convert
from adexport.settings import Settings
from tidings import parse_json


class OutputError(AdExportError):
    """The folder for the files cannot be used."""

    retryable = False


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for; `design` is a file, or the name of a sample."""

    design: str
    out: Path
    feed: Path | None = None
    networks: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("jpeg",)
    pictures: tuple[Path, ...] = ()
    naming: str | None = None
    max_bytes: int | None = None
    quality: int | None = None
    overwrite: bool = False


class _Listed(msgspec.Struct):
    """The part of a manifest's entry that says which file it is about."""

    file: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: counts, weight in bytes, seconds, and the failed files with their reasons."""

    state: str
    done: int
    failed: int
    bytes: int
    seconds: float
    out: str
    failures: list[dict[str, Any]]


async def export_here(settings: Settings, wish: Wish, console: Console | None) -> Report:
    """Make the files of `wish` in its folder. `console` shows progress; None keeps silent.

    Raises OutputError and whatever the request has wrong.
    """
    if wish.out.exists() and any(wish.out.iterdir()) and not wish.overwrite:
        raise OutputError(f"The folder {wish.out} holds files already. Choose another one, or add --overwrite.")
    with tempfile.TemporaryDirectory(prefix="adexport-") as folder:
        async with running(build(dataclasses.replace(settings, data=Path(folder), store="", files=""))) as application:
            prepared = await _prepare(application, wish)
            if not prepared.errors:  # else the reason stands alone
                _show_problems(prepared, console)
            export_id = application.new_id()
            await application.exporting.start(prepared, export_id)
            await _watch(application, export_id, len(prepared.plan.cells), console)
            return await _deliver(application, export_id, wish.out, console)


async def _prepare(application: Application, wish: Wish) -> Prepared:
    for picture in wish.pictures:
        await application.catalogue.keep_picture(picture.read_bytes())
    feed = None
    if wish.feed is not None:
        feed = (await application.catalogue.keep_feed(wish.feed.read_bytes(), wish.feed.name)).id
    design = await asyncio.to_thread(_read_design, wish.design)
    values = {
        "design": design,
        "feed": feed,
        "networks": wish.networks,
        "sizes": wish.sizes,
        "formats": wish.formats,
        "naming": wish.naming,
        "max_bytes": wish.max_bytes,
        "quality": wish.quality,
    }
    return await application.exporting.prepare(convert(values, ExportRequest))


def _read_design(name: str) -> object:
    """The document in the file of this name, else the name of a sample."""
    path = Path(name)
    return parse_json(path.read_bytes()) if path.suffix == ".json" or path.is_file() else name


def _show_problems(prepared: Prepared, console: Console | None) -> None:
    for problem in prepared.problems:
        if console is not None:
            console.print(f"Note: {problem.message} {problem.action}", highlight=False, markup=False)


async def _entries(application: Application, export_id: str) -> AsyncGenerator[tuple[TimelineEntry, ExportSummary]]:
    """Each entry of the timeline as it is written, until the export is over."""
    seen = 0
    async for _ in application.service.changes(ExportProgressed):
        export = await application.queries.get_export(export_id)
        assert export is not None
        for entry in await application.queries.export_timeline(export_id, after=seen):
            yield entry, export
            seen = entry.sequence
        if export.over and seen >= export.version:
            return


async def _watch(application: Application, export_id: str, total: int, console: Console | None) -> None:
    async with contextlib.aclosing(_entries(application, export_id)) as entries:
        with _bar(total, console) as advance:
            async for entry, _ in entries:
                advance(entry)


@contextlib.contextmanager
def _bar(total: int, console: Console | None) -> Iterator[Any]:
    """A progress bar for people, lines for logs, nothing for programs."""
    if console is None:
        yield lambda entry: None
    elif not console.is_terminal:
        yield lambda entry: console.print(entry.text, highlight=False, markup=False, soft_wrap=True)
    else:
        columns = (TextColumn("Files"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("files", total=total)
            yield lambda entry: progress.update(task, completed=entry.detail["done"] + entry.detail["failed"])


async def _deliver(application: Application, export_id: str, out: Path, console: Console | None) -> Report:
    export = await application.queries.get_export(export_id)
    assert export is not None
    cells = await application.queries.all_cells(export_id)
    entries = [entry_of(cell) for cell in cells]
    contents = {entry.file: entry.sha256 for entry in entries if entry.sha256}
    await asyncio.to_thread(_write, application, out, contents)
    (out / "manifest.csv").write_bytes(manifest_csv(entries))
    (out / "manifest.json").write_bytes(manifest_json(entries))
    failures = [{"file": entry.file, "reason": entry.reason} for entry in entries if not entry.sha256]
    if console is not None:
        for failure in failures[:10]:
            console.print(f"Failed: {failure['file']}: {failure['reason']}", highlight=False, markup=False)
        weight = f"{export.bytes / 1_000_000:.1f} MB" if export.bytes >= 1_000_000 else f"{export.bytes / 1000:.0f} kB"
        console.print(f"{export.done} of {export.total} files, {weight}, in {out}", highlight=False, markup=False)
    return Report(
        state=export.state,
        done=export.done,
        failed=export.failed,
        bytes=export.bytes,
        seconds=export.seconds_to_ready or 0.0,
        out=str(out),
        failures=failures,
    )


def _write(application: Application, out: Path, contents: dict[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    _clear(out)
    for name, digest in contents.items():
        check_path(name)
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(application.files.read_blocking(digest))


def _clear(out: Path) -> None:
    """Remove the files that the manifest of an earlier export lists; the new one would not name them."""
    manifest = out / "manifest.json"
    if not manifest.is_file():
        return
    try:
        names = [entry.file for entry in msgspec.json.decode(manifest.read_bytes(), type=list[_Listed])]
    except msgspec.DecodeError:
        return  # it is not a manifest of ours: its files are not ours either
    for name in names:
        check_path(name)
        (out / name).unlink(missing_ok=True)
