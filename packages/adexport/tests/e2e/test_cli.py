"""The command line: an export without a server, lists, errors in three lines, exit codes."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from adexport.entrypoints.cli import main

REFERENCE = Path(__file__).parents[4] / "docs/reference/cli-adexport.md"


@pytest.fixture
def design(tmp_path, make_order):
    path = tmp_path / "design.json"
    path.write_text(json.dumps(make_order()["design"]))
    return path


@pytest.fixture
def feed(tmp_path):
    path = tmp_path / "feed.csv"
    path.write_text("headline,sku\nHello,a-1\nBye,b-2\n")
    return path


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_an_export_without_a_server(tmp_path, design, feed, adexport_command):
    out = tmp_path / "out"
    command = [adexport_command, "export", design, "--feed", feed, "--network", "google-ads", "--format", "png"]
    done = subprocess.run(
        [*command, "--out", out, "--naming", "{network}/{field:sku}_{size}.{ext}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(out / "google-ads/a-1_300x250.png") as image:
        assert image.size == (300, 250)
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest) == len(list((out / "google-ads").iterdir())) >= 40
    assert all((out / entry["file"]).stat().st_size == entry["bytes"] <= 150_000 for entry in manifest)
    assert f"{len(manifest)} of {len(manifest)} files" in done.stderr
    assert done.stdout == ""


def test_a_design_as_the_api_gives_it(tmp_path, make_order, feed):
    path = tmp_path / "design.json"
    path.write_text(json.dumps({"design": {"name": "x"}, "document": make_order()["design"], "sample_rows": []}))
    done = invoke("export", path, "--feed", feed, "--size", "300x250", "--out", tmp_path / "out", "--json")
    assert (done.exit_code, json.loads(done.stdout)["done"]) == (0, 2)


def test_json_for_programs(tmp_path, design, feed):
    done = invoke("export", design, "--feed", feed, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert (report["state"], report["done"], report["failed"], report["failures"]) == ("done", 4, 0, [])


def test_a_sample_by_name_with_its_own_feed(tmp_path):
    name = json.loads(invoke("designs", "--json").stdout)[0]["name"]
    done = invoke("export", name, "--size", "300x250", "--out", tmp_path / "out", "--json")
    assert (done.exit_code, json.loads(done.stdout)["failed"]) == (0, 0)


@pytest.mark.parametrize(("limit", "formats", "code"), [(560, ("png", "jpeg"), 1), (50, ("png",), 3)])
def test_failed_files_are_told_by_the_exit_code(tmp_path, design, feed, limit, formats, code):
    options = [part for name in formats for part in ("--format", name)]
    done = invoke("export", design, "--feed", feed, "--out", tmp_path / "out", "--max-bytes", limit, *options, "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["failed"] > 0) == (code, True)
    assert "over the limit" in report["failures"][0]["reason"]
    assert len(json.loads((tmp_path / "out/manifest.json").read_text())) == report["done"] + report["failed"]


def test_a_folder_with_files_is_left_alone(tmp_path, design, feed):
    (tmp_path / "note.txt").write_text("mine")
    done = invoke("export", design, "--feed", feed, "--out", tmp_path)
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert invoke("export", design, "--feed", feed, "--out", tmp_path, "--overwrite", "--json").exit_code == 0
    assert (tmp_path / "note.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "unknown-design", "--out", "x"),
        ("export", "missing.json", "--out", "x"),
        ("export", "unknown-design", "--network", "nowhere", "--out", "x"),
        ("networks", "nowhere"),
        ("nothing",),
        ("export",),
        ("export", "product-spotlight"),
        ("export", "product-spotlight", "--feed", "missing.csv", "--out", "x"),
        ("export", "product-spotlight", "--quality", "200", "--out", "x"),
        ("export", "product-spotlight", "--quallity", "80", "--out", "x"),
    ],
)
def test_errors_take_three_lines(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["Error", "Why", "What to do"]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("unknown-design",), "`adexport designs`"),
        (("product-spotlight", "--size", "300"), "Write it such as 300x250."),
        (("product-spotlight", "--format", "gif"), "Use png, jpeg, webp."),
        (("product-spotlight", "--network", "google-ads", "--format", "webp"), "Choose one of: png, jpeg."),
    ],
)
def test_advice_is_for_the_command_line(tmp_path, arguments, said):
    done = invoke("export", *arguments, "--out", tmp_path / "x")
    assert said in done.stderr.splitlines()[2]
    assert "/v1/" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("export", "product-spotlight", "--size", "99999x99999", "--out", "x"), "'99999x99999' is not width x height"),
        (("export", "product-spotlight", "--size", "5000x10", "--out", "x"), "Size 5000x10 is outside 1 to 4096 px"),
        (("networks", "nope"), "Why: There is no network 'nope'."),
        (("serv",), "Did you mean 'serve'?"),
        (("serve", "--port", "abc"), "'abc' is not a whole number."),
    ],
)
def test_the_reason_names_the_value(arguments, why):
    said = invoke(*arguments).stderr.splitlines()[1]
    assert why in said
    assert "?." not in said


def test_nothing_is_left_out_where_nothing_is_made(tmp_path):
    arguments = ("export", "product-spotlight", "--network", "google-ads", "--format", "webp", "--out", tmp_path / "x")
    assert "left out" not in invoke(*arguments).stderr


@pytest.mark.parametrize("store", ["", "postgresql://ads@127.0.0.1:1/ads"])
def test_a_worker_makes_no_data_of_its_own(tmp_path, store):
    missing = tmp_path / "dta"
    done = CliRunner().invoke(main, ["worker", "--data", str(missing)], env={"ADEXPORT_STORE": store})
    assert done.exit_code == 3
    assert str(missing) in done.stderr.splitlines()[1]
    assert "adexport serve" in done.stderr.splitlines()[2]
    assert not missing.exists()


def test_a_missing_picture_is_given_by_an_option(tmp_path, make_order):
    missing = {"type": "image", "id": "photo", "source": "sha256:" + "0" * 64, "box": {"left": 0, "top": 0}}
    document = make_order()["design"]
    path = tmp_path / "design.json"
    path.write_text(json.dumps(document | {"layers": [*document["layers"], missing]}))
    done = invoke("export", path, "--out", tmp_path / "x")
    assert "--picture" in done.stderr.splitlines()[2], done.stderr
    assert "/v1/" not in done.stderr


def test_overwrite_leaves_no_file_of_the_earlier_export(tmp_path, design, feed):
    out = tmp_path / "out"
    assert invoke("export", design, "--feed", feed, "--out", out, "--json").exit_code == 0
    (out / "note.txt").write_text("mine")
    assert invoke("export", design, "--size", "468x60", "--out", out, "--overwrite", "--json").exit_code in (0, 2)
    assert invoke("export", design, "--feed", feed, "--size", "468x60", "--out", out, "--overwrite").exit_code == 0
    names = {entry["file"] for entry in json.loads((out / "manifest.json").read_text())}
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == names | {"note.txt", "manifest.csv", "manifest.json"}


def test_lists_for_people_and_programs():
    assert "google-ads" in invoke("networks").stdout
    assert "300x250" in invoke("networks", "google-ads").stdout
    assert len(json.loads(invoke("networks", "--json").stdout)) >= 8
    assert len(json.loads(invoke("designs", "--json").stdout)) == 4
    assert json.loads(invoke("designs", "--json").stdout)[0]["name"] in invoke("designs").stdout


def test_every_command_and_option_is_documented():
    text = REFERENCE.read_text()
    for name, command in main.commands.items():
        assert f"`adexport {name}" in text
        for parameter in command.params:
            for option in parameter.opts:
                assert option in text or not option.startswith("--"), f"{name} {option}"


@pytest.mark.parametrize("command", [("serve", "--port", "18195"), ("worker",)])
def test_a_database_that_is_away_is_told_in_three_lines_without_the_password(tmp_path, command):
    environment = {"ADEXPORT_STORE": "postgresql://ads:hunter2@127.0.0.1:1/ads"}
    done = CliRunner().invoke(main, [*command, "--data", str(tmp_path)], env=environment)
    assert (done.exit_code, done.stdout) == (3, "")
    error, why, advice = done.stderr.splitlines()
    assert error.endswith("did not start.")
    assert "No connection to the database" in why
    assert advice == "What to do: Check that it runs, and ADEXPORT_STORE."
    assert "hunter2" not in done.stderr


def test_an_export_without_a_server_needs_no_database(tmp_path, design, feed):
    arguments = [
        "export",
        str(design),
        "--feed",
        str(feed),
        "--size",
        "300x250",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    done = CliRunner().invoke(main, arguments, env={"ADEXPORT_STORE": "postgresql://ads@127.0.0.1:1/ads"})
    assert (done.exit_code, json.loads(done.stdout)["done"]) == (0, 2)
