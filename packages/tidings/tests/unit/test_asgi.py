"""The health check answers in any ASGI host, and tells the truth."""

from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from tidings import Service
from tidings.integrations.asgi import HealthApp, health_app


async def ask(app: Any, method: str = "GET", path: str = "/healthz") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client:
        return await client.request(method, path)


def app_with(service: Service) -> Starlette:
    app = Starlette()
    app.add_route("/healthz", health_app(service))  # type: ignore[arg-type]
    return app


async def test_health_follows_the_service(tmp_path: Path) -> None:
    service = Service("shop", store=f"sqlite+apsw:///{tmp_path}/log.db")
    app = app_with(service)
    stopped = await ask(app)
    assert (stopped.status_code, stopped.json()["status"]) == (503, "stopped")
    async with service:
        running = await ask(app)
        assert (running.status_code, running.json()["status"], running.json()["service"]) == (200, "ok", "shop")
        assert running.headers["cache-control"] == "no-store"
    assert (await ask(app)).status_code == 503


async def test_a_store_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    service = Service("shop", store=f"sqlite+apsw:///{tmp_path}/log.db")
    async with service.running(consumers=False):
        service.store._reading.close()  # type: ignore[attr-defined]  # the connection is lost
        answer = await ask(health_app(service))
        assert (answer.status_code, answer.json()["status"]) == (503, "store unavailable")
        assert answer.json()["reason"]


async def test_head_has_no_body_and_other_methods_are_refused(tmp_path: Path) -> None:
    service = Service("shop", store=f"sqlite+apsw:///{tmp_path}/log.db")
    app = health_app(service)
    assert (await ask(app, "HEAD")).content == b""
    refused = await ask(app, "POST")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_it_takes_part_in_the_lifespan_of_a_server() -> None:
    app: HealthApp = health_app(Service("shop", store="sqlite:///:memory:"))
    sent: list[str] = []
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, Any]:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
