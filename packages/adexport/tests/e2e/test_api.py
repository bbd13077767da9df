"""The HTTP API as programs use it, against the real server."""

import csv
import hashlib
import io
import json
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

PROBLEM = "application/problem+json"


def test_an_export_is_accepted_then_done(client, ask):
    response = ask(wait=None)
    body = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == body["links"]["self"] == f"/v1/exports/{body['export']['id']}"
    assert int(response.headers["retry-after"]) >= 1
    assert body["status"] in ("pending", "running")
    done = client.get(body["links"]["self"], headers={"Prefer": "wait=20"})
    assert done.json()["status"] == "done"
    assert done.headers["preference-applied"] == "wait=20"
    assert "retry-after" not in done.headers


def test_waiting_answers_200_when_it_is_done(ask):
    response = ask()
    assert (response.status_code, response.headers["preference-applied"]) == (200, "wait=20")
    assert response.json()["export"]["done"] == 4


def test_waiting_ends_with_202_and_is_capped(client, ask, make_order):
    began = time.monotonic()
    response = ask(make_order(30, sizes=["2000x2000"], formats=["png"]), wait=1)
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=1")
    assert 0.9 < time.monotonic() - began < 5
    client.post(f"{response.headers['location']}/cancel")
    assert ask(wait=99_999).headers["preference-applied"] == "wait=30"


def test_an_etag_answers_304_until_something_changes(client, ask):
    response = ask()
    path, etag = response.headers["location"], response.headers["etag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(path, headers={"If-None-Match": f'W/{etag}, "x"'}).status_code == 304
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_files_zip_and_manifest_hold_the_same_bytes(client, ask, make_order):
    export = ask(make_order(2, formats=["png", "jpeg", "webp"])).json()
    home = export["links"]["self"]
    cells = client.get(f"{home}/cells").json()
    assert len(cells) == 12
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"{home}/archive").content))
    assert archive.testzip() is None
    for cell in cells:
        response = client.get(f"{home}/files/{cell['index']}", params={"download": "1"})
        assert response.status_code == 200
        assert hashlib.sha256(response.content).hexdigest() == cell["sha256"]
        assert archive.read(cell["name"]) == response.content
        assert Image.open(io.BytesIO(response.content)).size == (cell["width"], cell["height"])
        assert cell["name"] in response.headers["content-disposition"]
    manifest = list(csv.DictReader(io.StringIO(client.get(f"{home}/manifest.csv").text)))
    assert {row["sha256"] for row in manifest} == {cell["sha256"] for cell in cells}
    assert client.get(f"{home}/manifest.json").json()[0]["file"] == cells[0]["name"]


def test_a_file_is_cached_for_ever_and_never_run(client, ask):
    home = ask().headers["location"]
    response = client.get(f"{home}/files/0")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]
    assert "immutable" in response.headers["cache-control"]
    again = client.get(f"{home}/files/0", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304


def test_failed_files_have_no_address_and_say_why(client, ask, make_order):
    export = ask(make_order(1, formats=["png"], max_bytes=60)).json()
    assert export["status"] == "dead"
    response = client.get(f"{export['links']['self']}/files/0")
    assert (response.status_code, response.headers["content-type"]) == (409, PROBLEM)
    assert "limit of 60" in response.json()["detail"]
    assert client.get(f"{export['links']['self']}/manifest.json").json()[0]["verdict"] == "cannot_fit"


def test_cancel_then_retry(client, ask, make_order):
    home = ask(make_order(60, sizes=["1600x1600"], formats=["png"]), wait=None).headers["location"]
    cancelled = client.post(f"{home}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert client.post(f"{home}/cancel").status_code == 409
    retried = client.post(f"{home}/retry")
    assert retried.status_code == 202
    assert client.post(f"{home}/retry").status_code == 409
    assert client.post(f"{home}/cancel").status_code == 202


def test_the_list_is_paged_and_searched(client, ask):
    titles = [f"Paged_{number}" for number in range(3)]
    for title in titles:
        ask({**_small(), "title": title})
    seen, url = [], "/v1/exports?search=Paged_&limit=1&state=done"
    while url:
        response = client.get(url)
        seen += [item["title"] for item in response.json()["items"]]
        url = response.links.get("next", {}).get("url")
    assert seen == titles[::-1]
    assert client.get("/v1/exports", params={"search": "%"}).json()["items"] == []
    assert client.get("/v1/exports", params={"cursor": "nonsense"}).status_code == 400
    assert client.get("/v1/exports", params={"state": "great"}).status_code == 422


def test_the_same_key_and_body_give_the_same_answer(client, ask, make_order):
    key = f"key {time.time_ns()}"
    first = ask(make_order(), wait=None, **{"Idempotency-Key": f'"{key}"'})
    again = ask(make_order(), wait=None, **{"Idempotency-Key": key})
    assert (first.status_code, first.content) == (again.status_code, again.content)
    other = ask(make_order(3), wait=None, **{"Idempotency-Key": key})
    assert (other.status_code, other.headers["content-type"]) == (422, PROBLEM)


def test_the_same_key_at_the_same_time_starts_one_export(client, ask, make_order):
    key, body = f"key {time.time_ns()}", make_order(200, title=f"Once {time.time_ns()}")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(body, wait=None, **{"Idempotency-Key": key}), range(8)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
    found = client.get("/v1/exports", params={"search": body["title"]}).json()["items"]
    assert len(found) == 1
    client.post(f"/v1/exports/{found[0]['id']}/cancel")


def test_a_refused_request_leaves_its_key_free(ask, make_order):
    key = f"key {time.time_ns()}"
    assert ask(make_order(sizes=["0x0"]), **{"Idempotency-Key": key}).status_code == 422
    assert ask(make_order(), **{"Idempotency-Key": key}).status_code == 200


def test_preflight_counts_and_names_problems(client, make_order):
    body = make_order(3, networks=["google-ads"], formats=["webp", "jpeg"])
    answer = client.post("/v1/exports/preflight", json=body).json()
    assert answer["files"] == 3 * len(answer["sizes"])
    assert any(problem["format"] == "webp" and problem["severity"] == "error" for problem in answer["problems"])
    refused = client.post("/v1/exports", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["message"]


def test_a_network_decides_sizes_and_limits(client, ask, make_order):
    home = ask(make_order(1, networks=["google-ads"])).headers["location"]
    cells = client.get(f"{home}/cells").json()
    assert len(cells) >= 20
    assert all(cell["bytes"] <= cell["limit_bytes"] for cell in cells)
    assert {cell["network"] for cell in cells} == {"google-ads"}


def test_designs_feeds_and_pictures_are_kept(client, ask):
    picture = io.BytesIO()
    Image.new("RGB", (60, 40), "#2266aa").save(picture, "PNG")
    asset = client.post("/v1/assets", content=picture.getvalue(), headers={"Content-Type": "image/png"}).json()
    name = f"own-{time.time_ns()}"
    design = {
        **_small()["design"],
        "name": name,
        "layers": [
            {"type": "image", "id": "photo", "source": "{{ photo }}", "box": {"width": "100%", "height": "100%"}}
        ],
    }
    created = client.post("/v1/designs", json=design)
    assert (created.status_code, created.json()["fields"]) == (201, ["photo"])
    assert client.post("/v1/designs", json=design).status_code == 201
    assert client.post("/v1/designs", json={**design, "title": "Other"}).status_code == 409
    assert client.get(f"/v1/designs/{name}").json()["document"] == design
    feed = client.post(
        "/v1/feeds",
        content=f"photo\n{asset['digest']}\n",
        headers={"Content-Type": "text/csv"},
        params={"filename": "a.csv"},
    ).json()
    assert feed["row_count"] == 1
    export = ask({"design": name, "feed": feed["id"], "formats": ["png"]}).json()
    assert (export["status"], export["export"]["done"]) == ("done", 2)
    file = client.get(f"{export['links']['self']}/files/0").content
    assert Image.open(io.BytesIO(file)).convert("RGB").getpixel((30, 30)) == (0x22, 0x66, 0xAA)
    assert client.get(f"/v1/assets/{asset['digest'].removeprefix('sha256:')}").headers["content-type"] == "image/png"


def test_every_sample_is_listed_and_previews(client):
    designs = [design for design in client.get("/v1/designs").json() if design["sample"]]
    assert len(designs) == 4
    for design in designs:
        params = {"design": design["name"], "size": "300x250", "format": "png", "row": 2}
        response = client.get("/v1/preview", params=params)
        assert response.status_code == 200, response.text
        assert Image.open(io.BytesIO(response.content)).size == (300, 250)


def test_a_preview_is_the_file_that_the_export_makes(client, ask, make_order):
    body = make_order(1, sizes=["300x250"], formats=["jpeg"], max_bytes=150_000)
    home = ask(body).headers["location"]
    file = client.get(f"{home}/files/0").content
    wanted = {"design": body["design"], "fields": body["rows"][0], "size": "300x250", "max_bytes": 150_000}
    preview = client.post("/v1/preview", json=wanted)
    assert preview.content == file
    assert (preview.headers["x-bytes"], preview.headers["x-limit"]) == (str(len(file)), "150000")
    assert preview.headers["x-verdict"] == "ok"
    again = client.post("/v1/preview", json=wanted, headers={"If-None-Match": preview.headers["etag"]})
    assert again.status_code == 304


def test_previews_do_not_wait_for_an_export(client, ask, make_order):
    home = ask(make_order(60, sizes=["2000x2000"], formats=["png"]), wait=None).headers["location"]
    began = time.monotonic()
    wanted = {"design": make_order()["design"], "fields": {"headline": f"{began}"}, "size": "300x250"}
    assert client.post("/v1/preview", json=wanted).status_code == 200
    assert time.monotonic() - began < 3
    client.post(f"{home}/cancel")


def test_the_description_names_every_route_and_its_errors(client):
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]
    post = document["paths"]["/v1/exports"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ExportRequest"
    }
    assert set(post["responses"]) == {"200", "202", "default"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/exports/unknown", 404),
        ("GET", "/v1/exports/unknown/events", 404),
        ("POST", "/v1/exports/unknown/cancel", 404),
        ("GET", "/v1/designs/unknown", 404),
        ("GET", "/v1/feeds/unknown", 404),
        ("GET", "/v1/assets/unknown", 404),
        ("DELETE", "/v1/exports", 405),
        ("GET", "/v1/exports?limit=many", 422),
        ("GET", "/v1/exports/unknown/files/99999999999999999999999", 422),
        ("GET", "/v1/preview?design=plain", 422),
        ("GET", "/v1/preview?design=unknown&size=300x250", 404),
    ],
)
def test_every_error_is_a_problem(client, method, path, status):
    response = client.request(method, path)
    body = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    assert body["status"] == status
    assert body["title"]
    assert len(body["detail"]) > 10


def test_health_says_what_runs(client):
    health = client.get("/healthz").json()
    assert health["status"] == "ok"
    assert "render_batch" in health["subscriptions"]
    assert health["store"]["bytes"] > 0


def test_many_waiting_requests_hold_no_worker(client, ask, make_order):
    """Twenty requests wait on one export while another one is still served."""
    home = ask(make_order(80, sizes=["1600x1600"], formats=["png"]), wait=None).headers["location"]
    waiting = [threading.Thread(target=lambda: client.get(home, headers={"Prefer": "wait=3"})) for _ in range(20)]
    for thread in waiting:
        thread.start()
    began = time.monotonic()
    assert client.get("/healthz").status_code == 200
    assert time.monotonic() - began < 1
    client.post(f"{home}/cancel")
    for thread in waiting:
        thread.join()


def _small():
    return {
        "design": {
            "version": 1,
            "name": "plain",
            "title": "Plain",
            "background": "#ffffff",
            "sizes": ["300x250", "728x90"],
            "layers": [{"type": "text", "id": "h", "text": "{{ headline }}", "size": "20%"}],
        },
        "rows": [{"headline": "Hello"}],
    }
