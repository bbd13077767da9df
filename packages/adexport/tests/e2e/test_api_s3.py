"""Files in S3 as programs see them: shown by the service, downloaded from S3, the zip made once."""

import io
import json
import time
import zipfile

import boto3
import httpx
import pytest

BUCKET = "adexport-test-api"


@pytest.fixture
def s3(aws_endpoint, aws_credentials):
    client = boto3.client("s3", endpoint_url=aws_endpoint)
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return client


def test_a_worker_with_a_folder_of_its_own_makes_files_that_are_downloaded_from_s3(
    tmp_path, run_adexport, make_order, new_database, aws_endpoint, s3
):
    part = tmp_path.name.lower().replace("_", "-")
    with new_database() as url:
        place = {"ADEXPORT_STORE": url, "ADEXPORT_FILES": f"s3://{BUCKET}/{part}?endpoint={aws_endpoint}"}
        with (
            run_adexport(tmp_path / "one", "serve", "--port", "18260", "--no-worker", **place) as server,
            run_adexport(tmp_path / "two", "worker", wait=False, **place),
            httpx.Client(base_url=server.url, timeout=40) as client,
        ):
            home = client.post("/v1/exports", json=make_order()).headers["location"]
            assert client.get(home, headers={"Prefer": "wait=30"}).json()["export"]["done"] == 4
            manifest = {entry["file"]: entry for entry in client.get(f"{home}/manifest.json").json()}

            shown = client.get(f"{home}/files/0")
            assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
            moved = client.get(f"{home}/files/0", params={"download": 1})
            assert (moved.status_code, moved.headers["cache-control"]) == (307, "no-store")
            saved = httpx.get(moved.headers["location"])
            assert saved.content == shown.content
            assert saved.headers["content-type"] == "image/jpeg"
            assert saved.headers["content-disposition"].startswith("attachment; filename=")
            key = moved.headers["location"].partition("?")[0].rpartition("/")[2]
            assert key in {entry["sha256"] for entry in manifest.values()}

            first = client.get(f"{home}/archive")
            assert first.status_code == 200
            ends = time.monotonic() + 20
            while (again := client.get(f"{home}/archive")).status_code == 200:
                assert time.monotonic() < ends, "the zip was not kept"
                assert again.content == first.content
            linked = httpx.get(again.headers["location"])
            assert linked.content == first.content
            assert linked.headers["content-disposition"] == first.headers["content-disposition"]
            with zipfile.ZipFile(io.BytesIO(linked.content)) as archive:
                assert set(archive.namelist()) == set(manifest) | {"manifest.csv", "manifest.json"}
                assert {each["file"] for each in json.loads(archive.read("manifest.json"))} == set(manifest)
        assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["cache"]


def test_a_bucket_that_cannot_be_used_is_told_at_the_start(tmp_path, run_adexport, aws_endpoint, aws_credentials):
    files = f"s3://adexport-test-nobody/x?endpoint={aws_endpoint}"
    with run_adexport(tmp_path / "data", "serve", "--port", "18270", wait=False, ADEXPORT_FILES=files) as server:
        assert server.process.wait(30) == 3
        _, why, _ = server.log.read_text().splitlines()
        assert "s3://adexport-test-nobody/x" in why
        assert "NoSuchBucket" in why
