"""Wires settings, adapters and tidings into one application: the only place that knows them all."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adexport.adapters.local_files import LocalFiles
from adexport.adopting import adopt_exports
from adexport.batch_rendering import BatchRendering, subscribe_rendering
from adexport.catalogue import Catalogue
from adexport.consumers import subscribe_planning, subscribe_undelivered
from adexport.designs import load_samples
from adexport.errors import StorageAwayError
from adexport.events import RenderBatchRequested
from adexport.exporting import Exporting
from adexport.figures import Figures, project_figures
from adexport.networks import load_networks
from adexport.ports import FileStore
from adexport.previewing import Previews
from adexport.projections import project_list
from adexport.queries import Queries
from adexport.render_memory import DatabaseMemory, subscribe_noting
from adexport.rendering_pool import RenderingPool
from adexport.results import subscribe_results
from adexport.retention import Retention, subscribe_cleaning
from adexport.settings import Settings, SettingsError
from tidings import Projection, Service

if TYPE_CHECKING:
    from adexport.adapters.s3 import S3Files

_LOG = logging.getLogger("adexport.files")
NAME = "adexport"
_SCHEMA = Path(__file__).parent / "schema.sql"
_PREVIEW_SECONDS = 20.0
_ADOPTING = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Application:
    """Everything an entry point needs."""

    settings: Settings
    service: Service
    exports: Projection
    files: FileStore
    queries: Queries
    figures: Figures
    catalogue: Catalogue
    exporting: Exporting
    previews: Previews
    pool: RenderingPool
    preview_pool: RenderingPool
    new_id: Callable[[], str]
    now: Callable[[], datetime]
    stream_seconds: float = 20.0


def new_export_id() -> str:
    """80 random bits: whoever does not know the address of an export does not guess it."""
    return secrets.token_hex(10)


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def bucket_files(settings: Settings) -> S3Files:
    """The files in the bucket that the settings name. Raises SettingsError and StorageError."""
    from adexport.adapters.local_copies import LocalCopies
    from adexport.adapters.s3 import S3Files  # slow to import, and the folder needs none of it
    from adexport.adapters.s3_address import read_bucket

    copies = LocalCopies(settings.cache_folder, settings.cache_mb * 1_000_000)
    return S3Files(read_bucket(settings.files), copies, link_seconds=settings.link_seconds)


def rendering_pool(settings: Settings) -> RenderingPool:
    """The processes that render batches."""
    return _pool(settings, settings.render_processes, settings.render_seconds)


def _pool(settings: Settings, size: int, seconds: float) -> RenderingPool:
    return RenderingPool(
        size=size,
        memory_bytes=settings.render_memory_mb * 1_000_000,
        seconds=seconds,
        recycle_after=settings.render_recycle_after,
    )


def _at_once(settings: Settings) -> int:
    """How many batches are rendered at once: elsewhere as many as is said, here no more than there are cores."""
    return settings.render_processes if settings.render_queue else min(settings.render_processes, os.cpu_count() or 1)


def build(settings: Settings, *, new_id: Callable[[], str] = new_export_id) -> Application:
    """The application, wired but not running. Raises SettingsError, StorageError and NetworkDataError."""
    bucket = bucket_files(settings) if settings.files else None
    files: FileStore = bucket or LocalFiles(settings.files_folder)
    landing, transport = settings.results_queue or None, settings.render_queue or None
    service = Service(NAME, store=settings.store_url, transport=transport, landing=landing)
    service.schema(_SCHEMA.read_text())
    pool, preview_pool = rendering_pool(settings), _pool(settings, 1, _PREVIEW_SECONDS)
    catalogue = Catalogue(service, files, load_samples(), load_networks(settings.networks))
    exporting = Exporting(service, files, catalogue, processes=_at_once(settings))
    exports, figures = project_list(service), project_figures(service)
    subscribe_planning(service, files)
    if bucket is not None and settings.render_queue:
        service.carry(RenderBatchRequested)
        subscribe_noting(service, bucket)
        subscribe_undelivered(service)
    else:
        rendering = BatchRendering(DatabaseMemory(service), files, pool)
        # One batch more than processes: while its files are stored, the process has the next one.
        subscribe_rendering(service, rendering.handle, concurrency=settings.render_processes + 1)
    subscribe_results(service)
    claim = partial(_claim, service, files, settings)
    subscribe_cleaning(service, Retention(service, exports, files, settings.keep, claim))
    return Application(
        settings=settings,
        service=service,
        exports=exports,
        files=files,
        queries=Queries(service, exports),
        figures=Figures(figures, utc_now),
        catalogue=catalogue,
        exporting=exporting,
        previews=Previews(exporting, catalogue, files, preview_pool),
        pool=pool,
        preview_pool=preview_pool,
        new_id=new_id,
        now=utc_now,
    )


async def _claim(service: Service, files: FileStore, settings: Settings) -> None:
    """Raise SettingsError for the files of another database: cleaning would remove what that one needs."""
    async with service.transaction() as tx:
        new = secrets.token_hex(16)
        await tx.execute("INSERT INTO adexport_store VALUES (1, $1) ON CONFLICT (only_row) DO NOTHING", new)
    identity = await service.fetch_value("SELECT id FROM adexport_store")
    if await files.claim(identity) == identity:
        return
    folder = settings.files_folder
    place, variable, owner = str(folder), "ADEXPORT_DATA", str(folder / ".owner")
    if settings.files:
        place, variable, owner = settings.files.partition("?")[0], "ADEXPORT_FILES", "its object `owner`"
    raise SettingsError(
        f"The files in {place} belong to another database than this one, and cleaning would remove them."
        f" Give another place with {variable}; or remove {owner} if that database is gone."
    )


async def _prepare(application: Application) -> int:
    """Before any consumer runs: claim the files, and adopt the exports of an earlier release; return how many.

    Where the files are away, cleaning claims them before it removes anything.
    """
    service = application.service
    async with service.running(consumers=False, relay=False):
        try:
            await _claim(service, application.files, application.settings)
        except StorageAwayError as error:
            _LOG.warning("Ad Export starts all the same, and exports wait for their files: %s", error)
        return await adopt_exports(service)


@asynccontextmanager
async def running(application: Application, *, consumers: bool = True) -> AsyncIterator[Application]:
    """Run the service and its rendering processes; stop gracefully at the end. Raises SettingsError, StorageError."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(application.files)
        adopted = await _prepare(application)
        if not application.settings.render_queue:
            await stack.enter_async_context(application.pool)
        await stack.enter_async_context(application.preview_pool)
        await stack.enter_async_context(application.service.running(consumers=consumers))
        if adopted and consumers:  # the list has the facts from before streams to pass first
            await application.exports.wait_until_caught_up(patience=_ADOPTING)
        yield application
