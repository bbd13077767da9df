"""The ASGI application: the API under /v1, the pages, health, and problems for every error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version

from fastapi import FastAPI
from starlette.routing import Route

from adexport.bootstrap import Application
from adexport.entrypoints import analytics_api, catalogue_api, exports_api, files_api, openapi, problems
from adexport.entrypoints.doorway import Doorway
from adexport.entrypoints.hosts import HostCheck, allowed_hosts
from adexport.entrypoints.idempotency import IdempotencyKeys
from adexport.exporting import Prepared
from adexport.web.install import install_pages
from tidings.integrations.asgi import health_app


def create_app(application: Application) -> FastAPI:
    """The application as ASGI. It answers while the application runs, which is up to the caller."""
    app = FastAPI(
        title="Ad Export",
        version=version("adexport"),
        description="One design, every size, every feed row: files that obey each ad network's rules.",
        root_path=application.settings.root_path,
        docs_url=None,  # the interactive pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.application = application
    app.state.keys = IdempotencyKeys(application.service)
    problems.install(app)
    openapi.install(app)
    for router in (exports_api.router, files_api.router, catalogue_api.router, analytics_api.router):
        app.include_router(router)
    app.add_middleware(Doorway)
    install_pages(
        app,
        queries=application.queries,
        figures=application.figures,
        catalogue=application.catalogue,
        exporting=application.exporting,
        start=starter(application),
        now=application.now,
        keep_days=application.settings.keep_days,
    )
    app.add_middleware(HostCheck, allowed=allowed_hosts(application.settings.host, application.settings.hosts))
    app.router.routes.append(Route("/healthz", health_app(application.service)))
    return app


def starter(application: Application) -> Callable[[Prepared], Awaitable[str]]:
    """What the pages call to start an export; it returns the export's id."""

    async def start(prepared: Prepared) -> str:
        export_id = application.new_id()
        await application.exporting.start(prepared, export_id)
        return export_id

    return start
