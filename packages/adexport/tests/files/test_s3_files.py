"""Files in S3: checked both ways, links that end, archives in parts, local copies, and what an outage looks like."""

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from adexport.adapters import s3_passing
from adexport.adapters.local_copies import LocalCopies
from adexport.adapters.s3_address import Bucket, read_bucket
from adexport.errors import FileMissingError, StorageAwayError, StorageError
from adexport.settings import SettingsError

FIVE_MIB = 5 * 1024 * 1024


def keys(s3, bucket):
    found = s3.list_objects_v2(Bucket=bucket.name, Prefix=bucket.prefix).get("Contents", [])
    return sorted(each["Key"].removeprefix(f"{bucket.prefix}/") for each in found)


def versions(s3, bucket):
    return s3.list_object_versions(Bucket=bucket.name, Prefix=bucket.prefix).get("Versions", [])


async def pieces_of(data: bytes, size: int = 700_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def until(true, seconds: float = 10.0):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


async def test_s3_is_given_the_digest_to_check_what_arrives(open_s3, bucket, s3):
    async with open_s3() as files:
        (digest,) = await files.put([b"content"])
    head = s3.head_object(Bucket=bucket.name, Key=bucket.key(f"files/{digest}"), ChecksumMode="ENABLED")
    assert base64.b64decode(head["ChecksumSHA256"]).hex() == digest


async def test_other_bytes_than_were_stored_are_not_given_out(open_s3, bucket, s3):
    async with open_s3() as files:
        (digest,) = await files.put([b"content"])
        s3.put_object(Bucket=bucket.name, Key=bucket.key(f"files/{digest}"), Body=b"CONTENT")
        with pytest.raises(StorageError, match="other bytes"):
            await files.read(digest)
        with pytest.raises(StorageError, match="other bytes"):
            await files.local(digest)


async def test_a_link_gives_the_file_for_its_time_and_to_nobody_who_changes_it(open_s3):
    async with open_s3(link_seconds=2) as files:
        (digest,) = await files.put([b"content"])
        link = await files.link(digest, media_type="image/png", disposition='attachment; filename="a.png"')
        assert await files.link("0" * 64, media_type="image/png", disposition="attachment") is None
        with pytest.raises(FileMissingError):
            await files.link("../owner", media_type="text/plain", disposition="attachment")
    async with httpx.AsyncClient() as client:
        answer = await client.get(link)
        assert (answer.status_code, answer.content) == (200, b"content")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"] == 'attachment; filename="a.png"'
        assert (await client.get(link.replace(digest, "1" * 64))).status_code == 403
        await asyncio.sleep(2.5)
        assert (await client.get(link)).status_code == 403


async def test_a_use_is_noted_once_in_its_time(open_s3, bucket, s3):
    async with open_s3(rests=timedelta(days=1)) as files:
        (digest,) = await files.put([b"content"])
        await files.put([b"content"])
        assert await files.present([digest]) == {digest}
        assert len(versions(s3, bucket)) == 1
        # It may have been used until a day after its last version: so long it stays.
        assert await files.forget(datetime.now(UTC) + timedelta(hours=23), set()) == 0
        assert await files.forget(datetime.now(UTC) + timedelta(hours=25), set()) == 1
    assert versions(s3, bucket) == []


async def test_what_a_use_replaces_goes_with_the_next_cleaning(open_s3, bucket, s3):
    async with open_s3() as files:
        (digest,) = await files.put([b"content"])
        await asyncio.sleep(0.05)
        before = datetime.now(UTC)
        await asyncio.sleep(0.05)
        assert await files.present([digest]) == {digest}
        assert len(versions(s3, bucket)) == 2
        assert await files.forget(before, set()) == 0
        assert len(versions(s3, bucket)) == 1
        assert await files.read(digest) == b"content"


async def test_a_bucket_without_versions_is_refused(open_s3, bucket, s3):
    s3.create_bucket(Bucket="adexport-test-plain")
    async with open_s3(replace(bucket, name="adexport-test-plain")) as files:
        with pytest.raises(StorageError, match="put-bucket-versioning"):
            await files.claim("store")


async def test_a_missing_bucket_and_a_dead_server_are_told_within_seconds(open_s3, bucket):
    began = time.monotonic()
    for at, why, away in ((replace(bucket, name="adexport-test-none"), "NoSuchBucket", False),
                          (replace(bucket, endpoint="http://127.0.0.1:9"), "Could not connect", True)):  # fmt: skip
        async with open_s3(at) as files:
            with pytest.raises(StorageError, match=why) as told:
                await files.claim("store")
            assert isinstance(told.value, StorageAwayError) == away
            with pytest.raises(StorageError, match=why):
                await files.put([b"content"])
            with pytest.raises(StorageError, match=why):
                await files.claim("store")
    assert time.monotonic() - began < 10


async def test_an_archive_passes_and_is_there_afterwards(open_s3, bucket, s3):
    data = os.urandom(2 * s3_passing.PART_BYTES + 12_345)
    async with open_s3() as files:
        assert await files.link("a.zip", media_type="application/zip", disposition="attachment") is None
        passed = b"".join([piece async for piece in files.passing("a.zip", pieces_of(data))])
        assert passed == data
        await until(lambda: keys(s3, bucket) == ["archives/a.zip"])
        link = await files.link("a.zip", media_type="application/zip", disposition="attachment")
        again = b"".join([piece async for piece in files.passing("a.zip", pieces_of(data))])
        assert again == data
        await asyncio.gather(*files._passing._tasks)
        assert len(versions(s3, bucket)) == 1, "kept twice"
        async with httpx.AsyncClient() as client:
            assert hashlib.sha256((await client.get(link)).content).digest() == hashlib.sha256(data).digest()
            part = await client.get(link, headers={"Range": "bytes=100-199"})
            assert (part.status_code, part.content) == (206, data[100:200])
        assert s3.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.prefix).get("Uploads", []) == []
        await files.forget(datetime.now(UTC) + timedelta(minutes=1), set())
        assert keys(s3, bucket) == []


async def test_of_an_archive_whose_reader_leaves_nothing_is_kept(open_s3, bucket, s3):
    async with open_s3() as files:
        passing = files.passing("a.zip", pieces_of(os.urandom(3 * s3_passing.PART_BYTES)))
        for _ in range(30):
            await anext(passing)
        assert s3.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.prefix)["Uploads"]
        await passing.aclose()
        await until(lambda: not s3.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.prefix).get("Uploads"))
    assert keys(s3, bucket) == []


async def test_an_archive_reaches_its_reader_also_when_s3_takes_it_no_more(open_s3, bucket, caplog):
    data = os.urandom(s3_passing.PART_BYTES + 1)
    async with open_s3(replace(bucket, endpoint="http://127.0.0.1:9")) as files:
        assert b"".join([piece async for piece in files.passing("a.zip", pieces_of(data))]) == data
        await asyncio.gather(*files._passing._tasks)
    assert "could not be kept" in caplog.text


async def test_local_copies_stay_within_their_folder_but_not_at_the_cost_of_what_is_needed(tmp_path):
    copies, fetched = LocalCopies(tmp_path, 2500), []

    async def fetch(digest: str) -> bytes:
        fetched.append(digest)
        return contents[digest]

    contents = {hashlib.sha256(data).hexdigest(): data for data in (bytes([number]) * 1000 for number in range(5))}
    paths = {digest: await copies.path(digest, fetch) for digest in contents}
    assert all(path.exists() for path in paths.values()), "a job may be about to read it"
    for path in paths.values():
        os.utime(path, (1, 1))
    first, *others = contents
    assert await copies.path(first, fetch) == paths[first]
    assert len(fetched) == 5, "what is there is not fetched again"
    contents["new"] = b""
    new = hashlib.sha256(b"new").hexdigest()
    contents[new] = b"new"
    await copies.path(new, fetch)
    left = [digest for digest in others if paths[digest].exists()]
    assert paths[first].exists()
    assert len(left) == 1, "two of a thousand bytes and a small one fit"


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("s3://my-files", Bucket("my-files")),
        ("s3://my-files/ads/2026/", Bucket("my-files", "ads/2026")),
        ("s3://my-files/ads?region=eu-west-1", Bucket("my-files", "ads", None, "eu-west-1")),
        ("s3://my-files?endpoint=http://127.0.0.1:4566", Bucket("my-files", "", "http://127.0.0.1:4566")),
    ],
)
def test_an_address_names_a_part_of_a_bucket(url, bucket):
    assert read_bucket(url) == bucket
    assert bucket.key("files/x").endswith("files/x")
    assert url.startswith(str(bucket))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://my-files", "not of the form"),
        ("s3://", "not of the form"),
        ("s3://My_Files", "not of the form"),
        ("s3://key:secret@my-files", "not of the form"),
        ("s3://my-files/a b", "not of the form"),
        ("s3://my-files?secret=1", "option 'secret'"),
        ("s3://my-files?endpoint=http://user:secret@host", "endpoint"),
        ("s3://my-files?endpoint=host:1", "endpoint"),
    ],
)
def test_other_addresses_are_refused_and_not_shown(url, why):
    with pytest.raises(SettingsError, match=why) as refused:
        read_bucket(url)
    assert "secret@" not in str(refused.value)
