"""Hostile inputs at the API and the command line, by their numbers in the research on reliability (section 4).

None may be answered by a 5xx, leave an export behind, or reach the file system. Numbers that cannot occur yet:

- 10 (envelope over a transport's limit), 26 (DNS rebinding), 32-33 (webhooks), 34 (signed links): there is no
  broker, no fetching, no webhook and no signed link in this version.
- 20 (HTML with file:// or endless scripts): designs are JSON; HTML is refused as what it is (see 17 and 18).
- 27-29 (unknown type, future version, no upcaster), 31 (skewed clocks): tested with the library, whose consumers meet
  them; nothing that outsiders send to this API becomes an event type.
- 30 (a message that kills its worker): tests/service/test_exports.py, where a cell kills its rendering process.
- 35 (other tenant): there are no tenants; ids that are not guessed stand in for them (see 35 below).
"""

import io
import json
import struct
import zipfile
import zlib

import pytest
from click.testing import CliRunner
from PIL import Image

from adexport.entrypoints.cli import main

JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
PNG = {"Content-Type": "image/png"}
DESIGN = {
    "version": 1,
    "name": "plain",
    "title": "Plain",
    "background": "#ffffff",
    "layers": [{"type": "text", "id": "h", "text": "{{ headline }}", "size": "20%"}],
}
ROWS = [{"headline": "Hello"}]


def body(**changes):
    return json.dumps({"design": DESIGN, "rows": ROWS, "sizes": ["300x250"], **changes}).encode()


def text_layer(text):
    return {**DESIGN, "layers": [{"type": "text", "id": "h", "text": text, "size": "20%"}]}


def image_layer(source):
    return {**DESIGN, "layers": [{"type": "image", "id": "p", "source": source}]}


def png_of(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zip_bomb():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("feed.csv", b"a" * 20_000_000)
    return out.getvalue()


def gzip_bomb():
    squeeze = zlib.compressobj(9, wbits=31)
    return squeeze.compress(b" " * 20_000_000) + squeeze.flush()


def small_png():
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, "PNG")
    return out.getvalue()


E, P = "/v1/exports", "/v1/preview"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>alert(1)</script></svg>'
ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>'
ADDRESSES = [
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "data:image/png;base64,AAAA",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:127.0.0.1]/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://127.1/",
    "http://①②⑦.0.0.1/",
    "https://example.com/photo.png",
]
NAMES = [
    "../../etc/passwd.{ext}",
    "/etc/{ext}.{ext}",
    "%2e%2e/x.{ext}",
    "C:\\x.{ext}",
    "a" * 300 + ".{ext}",
    "CON.{ext}",
]

# number, method, path, body, headers, expected statuses
CASES = [
    (1, "POST", E, b"", JSON, {400}),
    (1, "POST", E, b"{", JSON, {400}),
    (1, "POST", E, body() + b"x", JSON, {400}),
    (1, "POST", E, body() + body(), JSON, {400}),
    (1, "POST", E, b"\xef\xbb\xbf" + body(), JSON, {400}),
    (1, "POST", E, b"\xff\xfe{\0}\0", JSON, {400}),
    (1, "POST", E, b"null", JSON, {422}),
    (1, "POST", E, b"[]", JSON, {422}),
    (2, "POST", E, body()[:-1] + b', "design": "other"}', JSON, {400}),
    (2, "POST", "/v1/designs", b'{"version": 1, "version": 1}', JSON, {400}),
    (3, "POST", E, body()[:-1] + b', "max_bytes": NaN}', JSON, {400}),
    (3, "POST", E, body()[:-1] + b', "max_bytes": -Infinity}', JSON, {400}),
    (3, "POST", E, body()[:-1] + b', "max_bytes": 1e999}', JSON, {400}),
    (4, "POST", E, body(title="TITLE").replace(b"TITLE", b"\\ud800"), JSON, {400}),
    (4, "POST", E, body(rows=[{"headline": "TEXT"}]).replace(b"TEXT", b"x\\udfffx"), JSON, {400}),
    (4, "POST", E, body(title="TITLE").replace(b"TITLE", b"\\u0000"), JSON, {400}),
    (5, "POST", E, b"[" * 100_000, JSON, {400}),
    (5, "POST", E, b'{"design":' * 65 + b"1" + b"}" * 65, JSON, {400}),
    (6, "POST", E, body()[:-1] + b', "max_bytes": ' + b"9" * 5000 + b"}", JSON, {400}),
    (6, "POST", E, body()[:-1] + b', "max_bytes": 9223372036854775808}', JSON, {400}),
    (7, "POST", E, body(), {**JSON, "Idempotency-Key": "k" * 256}, {400}),
    (7, "POST", E, body(), {**JSON, "Idempotency-Key": ""}, {400}),
    (7, "POST", E, body(), {**JSON, "Idempotency-Key": "schl\xfcssel".encode("latin-1")}, {400}),
    (8, "POST", E, body(title="a\r\nSet-Cookie: x=1"), JSON, {400}),
    (8, "POST", E, body(naming="a\r\n{row}.{ext}"), JSON, {400}),
    (8, "POST", "/v1/feeds?filename=a%0d%0ab.csv", b"headline\nx\n", CSV, {400}),
    (9, "POST", E, body(title="x" * 1_100_000), JSON, {413}),
    (9, "POST", E, b" " * 1_048_577, JSON, {413}),
    (9, "POST", "/v1/designs", b" " * 1_048_577, JSON, {413}),
    (9, "POST", "/v1/feeds", b"a\n" * 2_600_000, CSV, {413}),
    (9, "POST", "/v1/assets", b"\x89PNG" + b"\0" * 20_000_000, PNG, {413}),
    (11, "POST", E, body(), {"Content-Type": "text/plain"}, {415}),
    (11, "POST", E, body(), {}, {415}),
    (11, "POST", E, body(), {"Content-Type": "application/x-www-form-urlencoded"}, {415}),
    (11, "POST", "/v1/assets", SVG, {"Content-Type": "image/svg+xml"}, {415}),
    (13, "POST", E, body(surprise=1), JSON, {422}),
    (13, "POST", E, body(design={**DESIGN, "script": "alert(1)"}), JSON, {422}),
    (13, "POST", P, json.dumps({"design": DESIGN, "size": "9x9", "x": 1}).encode(), JSON, {422}),
    *[(14, "POST", E, body(naming=name), JSON, {422}) for name in NAMES[:5]],
    (14, "GET", f"{E}/..%2f..%2fetc%2fpasswd/files/0", b"", {}, {404}),
    (14, "GET", "/v1/assets/..%2f..%2f..%2fetc%2fpasswd", b"", {}, {404}),
    (14, "GET", "/v1/assets/%2e%2e", b"", {}, {404}),
    (14, "GET", "/static/..%2f..%2fsettings.py", b"", {}, {404}),
    (15, "POST", "/v1/feeds", zip_bomb(), CSV, {422}),
    (15, "POST", E, gzip_bomb(), {**JSON, "Content-Encoding": "gzip"}, {415}),
    (15, "POST", "/v1/feeds", gzip_bomb(), CSV, {422}),
    (16, "POST", "/v1/assets", png_of(12_000, 12_000), PNG, {422}),
    (16, "POST", "/v1/assets", png_of(65_000, 65_000), PNG, {422}),
    (16, "POST", E, body(sizes=["9999x9999"]), JSON, {422}),
    (16, "POST", P, json.dumps({"design": DESIGN, "size": "9999x9999", "fields": ROWS[0]}).encode(), JSON, {422}),
    (17, "POST", "/v1/assets", b"GIF89a" + b"\0" * 50, PNG, {422}),
    (17, "POST", "/v1/assets", small_png()[:30], PNG, {422}),
    (17, "POST", "/v1/assets", b"<html><script>for(;;);</script></html>", PNG, {422}),
    (17, "POST", "/v1/feeds", small_png(), CSV, {422}),
    (18, "POST", "/v1/assets", ENTITIES, PNG, {422}),
    (19, "POST", "/v1/assets", SVG, PNG, {422}),
    (21, "POST", E, body(design=text_layer("{{ ''.__class__.__mro__ }}")), JSON, {422}),
    (21, "POST", E, body(design=text_layer("{% for x in y %}{% endfor %} {{ headline | system }}")), JSON, {422}),
    (21, "POST", E, body(naming="{design.__class__}.{ext}"), JSON, {422}),
    (22, "POST", E, body(naming="a" * 190 + "{" * 9), JSON, {422}),
    (22, "POST", E, body(design=text_layer("{{" * 20_000)), JSON, {422}),
    *[(23, "POST", E, body(design=image_layer(address)), JSON, {422}) for address in ADDRESSES],
    *[
        (24, "POST", E, body(design=image_layer("{{ photo }}"), rows=[{"photo": address}]), JSON, {422})
        for address in ADDRESSES
    ],
    (25, "POST", "/v1/feeds", b"headline\nx\0y\n", CSV, {422}),
    (25, "POST", "/v1/feeds", b"a,a\n1,2\n", CSV, {422}),
    (25, "POST", "/v1/feeds", b"a\n" + b"1\n" * 10_001, CSV, {422}),
    (25, "POST", "/v1/feeds", b"a\n" + b"x" * 10_001, CSV, {422}),
    (25, "POST", "/v1/feeds", b"", CSV, {422}),
    (25, "POST", E, body(rows=ROWS * 10_001), JSON, {422}),
    (25, "POST", E, body(rows=[]), JSON, {422}),
    (35, "GET", f"{E}/00000000000000000000", b"", {}, {404}),
    (36, "POST", f"{E}/x/cancel", b"", {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, {403}),
    (36, "POST", E, body(), {**JSON, "Origin": "https://evil.example"}, {403}),
    (36, "GET", E, b"", {"Host": "evil.example"}, {403}),
    (
        36,
        "POST",
        E,
        body(),
        {**JSON, "Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"},
        {403},
    ),
    (0, "POST", E, body(max_bytes=0), JSON, {422}),
    (0, "POST", E, body(max_bytes=True), JSON, {422}),
    (0, "POST", E, body(quality=101), JSON, {422}),
    (0, "POST", E, body(formats=["exe"]), JSON, {422}),
    (0, "POST", E, body(networks=["nowhere"]), JSON, {422}),
    (0, "POST", E, body(feed="0" * 64, rows=None), JSON, {404}),
    (0, "POST", E, body(feed="0" * 64), JSON, {422}),
    (0, "GET", f"{E}?cursor=%00%ff", b"", {}, {400}),
    (0, "GET", f"{E}?cursor=LTEuYQ", b"", {}, {400}),
    (0, "GET", f"{E}?cursor=MTIzLgA", b"", {}, {400}),
    (0, "GET", f"{E}?search=%00", b"", {}, {400}),
    (0, "GET", f"{E}/%00", b"", {}, {400}),
    (0, "GET", "/v1/designs/%00", b"", {}, {400}),
    (0, "GET", "/exports?q=%00", b"", {}, {400}),
    (0, "POST", "/exports/new", b"design=%00", {"Content-Type": "application/x-www-form-urlencoded"}, {400}),
    (
        0,
        "POST",
        "/exports/new",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\0b"\r\n\r\nx\r\n--b--\r\n',
        {"Content-Type": "multipart/form-data; boundary=b"},
        {400},
    ),
    (0, "GET", f"{E}?limit=-1", b"", {}, {422}),
    (0, "GET", f"{E}/x/files/-1", b"", {}, {422}),
]


@pytest.mark.parametrize(
    ("number", "method", "path", "content", "headers", "expected"),
    CASES,
    ids=[f"{number:02}-{index}" for index, (number, *_) in enumerate(CASES)],
)
def test_a_hostile_request_is_refused_as_a_problem(client, number, method, path, content, headers, expected):
    before = client.get(E).json()["items"]
    response = client.request(method, path, content=content, headers=headers)
    assert response.status_code in expected, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert len(problem["detail"]) > 10
    assert client.get(E).json()["items"] == before


def test_07_a_missing_key_is_allowed(ask):
    assert ask().status_code == 200


def test_12_a_key_used_again_with_another_body_is_refused(ask, make_order):
    key = {"Idempotency-Key": "hostile twelve"}
    assert ask(make_order(1), **key).status_code == 200
    assert ask(make_order(2), **key).status_code == 422


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "a/b", "CON", "nul.txt", "x\u202egnp", "＼＼host", "a" * 500, "..", ""]
)
def test_14_field_values_in_file_names_are_made_safe(client, ask, make_order, name):
    rows = [{"headline": name or " "}]
    home = ask({**make_order(1), "rows": rows, "naming": "{field:headline}_{width}.{ext}"}).headers["location"]
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"{home}/archive").content))
    for entry in archive.namelist():
        assert ".." not in entry.split("/")
        assert not entry.startswith(("/", "\\"))
        assert not set(entry) & set('\\:%*?"<>|\r\n\u202e＼')
        assert len(entry.encode()) <= 255


def test_37_markup_in_names_is_shown_as_text(client, ask, make_order):
    attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    design = {**make_order()["design"], "title": attack}
    response = ask({**make_order(1), "design": design, "title": attack, "rows": [{"headline": attack}]})
    for path in ("/exports", response.headers["location"].replace("/v1", "")):
        page = client.get(path, headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
    manifest = client.get(f"{response.headers['location']}/manifest.csv")
    assert manifest.headers["x-content-type-options"] == "nosniff"


def test_37_formulas_in_a_feed_stay_text_in_the_manifest(client, ask, make_order):
    order = {**make_order(1), "rows": [{"headline": "=cmd|' /C calc'!A0"}]}
    home = ask({**order, "naming": "{field:headline}.{ext}"}).headers["location"]
    lines = client.get(f"{home}/manifest.csv").text.splitlines()[1:]
    assert lines
    assert not any(line.startswith(("=", "+", "-", "@")) for line in lines)


def test_38_line_breaks_never_reach_the_log(server, client):
    client.get("/v1/exports/x%0d%0aFORGED%20LINE")
    client.get("/v1/x%0aFORGED%20LINE")
    assert "\nFORGED LINE" not in server.log.read_text()


def test_the_server_never_failed(server, client):
    """Runs after the cases above: the log shows no error of the server's own."""
    assert client.get("/healthz").json()["status"] == "ok"
    assert "Traceback" not in server.log.read_text()


FILES = {
    1: ("design.json", b"{"),
    2: ("design.json", b'{"version": 1, "version": 1}'),
    3: ("design.json", json.dumps(DESIGN).encode()[:-1] + b', "x": NaN}'),
    4: ("design.json", json.dumps(text_layer("TEXT")).encode().replace(b"TEXT", b"\\ud800")),
    5: ("design.json", b"[" * 100_000),
    6: ("design.json", b'{"version": ' + b"1" * 5000 + b"}"),
    13: ("design.json", json.dumps({**DESIGN, "surprise": 1}).encode()),
    21: ("design.json", json.dumps(text_layer("{{ x.__class__ }}")).encode()),
    23: ("design.json", json.dumps(image_layer("file:///etc/passwd")).encode()),
    15: ("feed.csv", zip_bomb()),
    25: ("feed.csv", b"headline\nx\0y\n"),
    17: ("picture.png", b"GIF89a"),
    16: ("picture.png", png_of(12_000, 12_000)),
}


@pytest.mark.parametrize("number", sorted(FILES))
def test_a_hostile_file_is_refused_by_the_command_line(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "design.json").write_text(json.dumps(DESIGN))
    (tmp_path / "feed.csv").write_text("headline\nHello\n")
    (tmp_path / "picture.png").write_bytes(small_png())
    name, content = FILES[number]
    (tmp_path / name).write_bytes(content)
    inputs = ["design.json", "--feed", "feed.csv", "--picture", "picture.png"]
    done = CliRunner().invoke(main, ["export", *inputs, "--size", "300x250", "--out", "out"])
    assert done.exit_code == 2, done.stderr
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines[-3:]] == ["Error", "Why", "What to do"]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
