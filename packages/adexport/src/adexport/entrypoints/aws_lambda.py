"""The worker as an AWS Lambda function: `adexport.entrypoints.aws_lambda.handler`. It needs no database.

Batches come from SQS, files go to S3, results to the results queue; `deploy/template.yaml` says all of it to AWS.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from adexport.batch_rendering import BatchRendering, subscribe_rendering
from adexport.bootstrap import bucket_files, rendering_pool
from adexport.events import RenderBatchRequested
from adexport.render_memory import NotedMemory
from adexport.settings import Settings, read_settings, require_results
from tidings import Service, Work
from tidings.integrations.aws_lambda import LambdaHandler, lambda_handler

NAME = "adexport-renderer"
"""Not that of the API service: what a service has published itself, its log does not take in again."""


class _Worker:
    """Connects to S3 and starts the rendering process at the first batch, in the loop that goes on with the others."""

    def __init__(self, settings: Settings) -> None:
        self._files = bucket_files(settings)
        self._pool = rendering_pool(settings)
        self._rendering = BatchRendering(NotedMemory(self._files), self._files, self._pool)
        self._opening = asyncio.Lock()
        self._opened: AsyncExitStack | None = None

    async def handle(self, event: RenderBatchRequested, work: Work) -> None:
        """Make the files of a batch."""
        async with self._opening:
            if self._opened is None:
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(self._files)
                    await stack.enter_async_context(self._pool)
                    self._opened = stack.pop_all()
        await self._rendering.handle(event, work)


def make_handler(settings: Settings) -> LambdaHandler:
    """The function. Raises SettingsError and ServiceError for settings that are missing or wrong."""
    require_results(settings)
    service = Service(NAME, store="none://", transport=settings.results_queue)
    subscribe_rendering(service, _Worker(settings).handle, concurrency=settings.render_processes + 1)
    # What was decided about a batch is kept in the same bucket: `outcomes/` beside `files/`.
    return lambda_handler(service, outcomes=settings.files)


def __getattr__(name: str) -> LambdaHandler:
    """Make `handler` when it is first asked for, which AWS Lambda does once: to import this module reads no setting."""
    if name != "handler":
        raise AttributeError(name)
    made = globals()["handler"] = make_handler(read_settings())
    return made
