"""The guard: writes from other sites are refused, programs are not, and people see problems as pages."""

from datetime import UTC, datetime

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from adexport.web.guard import Guard, from_other_site
from adexport.web.view import CONTENT_SECURITY_POLICY, View, link, relative_root, route_path


async def change(request: Request) -> Response:
    return Response("changed")


async def refuse(request: Request) -> Response:
    problem = {"title": "Gone <b>away</b>", "status": 410, "detail": "The <script> is gone."}
    return JSONResponse(problem, 410, media_type="application/problem+json")


async def stream(request: Request) -> Response:
    async def pieces() -> object:
        yield b"one "
        yield b"two"

    return StreamingResponse(pieces(), media_type="text/plain")


@pytest.fixture
def client() -> httpx.AsyncClient:
    paths = ("/exports", "/v1/exports", "/a/gone", "/v1/gone", "/gone.json", "/stream")
    ends = {"exports": change, "gone": refuse, "gone.json": refuse, "stream": stream}
    routes = [Route(path, ends[path.rsplit("/", 1)[-1]], methods=["GET", "POST"]) for path in paths]
    view = View(lambda: datetime(2026, 11, 24, tzinfo=UTC))
    app = Starlette(routes=routes, middleware=[Middleware(Guard, view=view)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ads.example")


@pytest.mark.parametrize(("headers", "is_foreign"), [
    ({}, False),
    ({"sec-fetch-site": "same-origin"}, False),
    ({"sec-fetch-site": "none"}, False),
    ({"sec-fetch-site": "cross-site"}, True),
    ({"sec-fetch-site": "same-site"}, True),
    ({"sec-fetch-site": "cross-site", "origin": "https://ads.example", "host": "ads.example"}, True),
    ({"origin": "http://ads.example", "host": "ads.example"}, False),
    ({"origin": "http://ads.example:81", "host": "ads.example"}, True),
    ({"origin": "null", "host": "ads.example"}, True),
])  # fmt: skip
def test_another_site_is_told_by_what_the_browser_says(headers: dict[str, str], is_foreign: bool) -> None:
    assert from_other_site(headers) is is_foreign


@pytest.mark.parametrize("path", ["/exports", "/v1/exports"])
async def test_a_write_from_another_site_never_reaches_the_application(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.json()["title"]) == (403, "This request came from another site")
    assert (await client.post(path, headers={"Sec-Fetch-Site": "same-origin"})).text == "changed"
    assert (await client.get(path, headers={"Sec-Fetch-Site": "cross-site"})).text == "changed"


async def test_a_person_sees_a_problem_as_a_page_with_a_way_on(client: httpx.AsyncClient) -> None:
    answer = await client.get("/a/gone", headers={"Accept": "text/html"})
    assert answer.status_code == 410
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "Gone &lt;b&gt;away" in answer.text
    assert "The &lt;script&gt; is gone." in answer.text
    assert 'href="../exports"' in answer.text


@pytest.mark.parametrize(("path", "accept"), [
    ("/v1/gone", "text/html"), ("/gone.json", "text/html"), ("/a/gone", "application/json"),
])  # fmt: skip
async def test_a_program_gets_the_problem_itself(client: httpx.AsyncClient, path: str, accept: str) -> None:
    answer = await client.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.json()["status"]) == (410, 410)


async def test_other_answers_pass_untouched(client: httpx.AsyncClient) -> None:
    assert (await client.get("/stream", headers={"Accept": "text/html"})).text == "one two"


@pytest.mark.parametrize(("path", "root"), [
    ("/", "./"), ("/designs", "./"), ("/exports/new", "../"), ("/exports/a/cancel", "../../"),
])  # fmt: skip
def test_a_page_finds_its_root_by_its_depth(path: str, root: str) -> None:
    assert relative_root(path) == root


@pytest.mark.parametrize(("path", "root_path"), [
    ("/ads/designs", "/ads"), ("/ads/designs", "/ads/"), ("/designs", "/ads"), ("/designs", ""),
])  # fmt: skip
def test_the_root_path_is_no_part_of_a_page(path: str, root_path: str) -> None:
    assert route_path({"path": path, "root_path": root_path}) == "/designs"


def test_links_carry_only_what_has_a_value() -> None:
    assert link(q="50 % off", state="", cursor=None, page=0) == "?q=50+%25+off&page=0"
    assert link(q="") == ""
