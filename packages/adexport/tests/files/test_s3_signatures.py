"""Who may read and write files in S3: proved on a server that checks signatures, keys and rights by code of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import boto3
import httpx
import pytest
from seaweed import READER, SECRET, WRITER, SeaweedServer

from adexport.adapters.local_copies import LocalCopies
from adexport.adapters.s3 import S3Files
from adexport.adapters.s3_address import Bucket
from adexport.errors import StorageError
from tidings.backends.s3 import open_blobs
from tidings.errors import ServiceError
from tidings.service import system_clock, uuid7_ids
from tidings.world import World

NAME = "adexport-signatures"
PNG = {"media_type": "image/png", "disposition": 'attachment; filename="a.png"'}


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed") / "files").start()
    yield server
    server.kill()


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch):
    """Lets what follows be done by a user."""

    def become(name: str, secret: str = SECRET) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    become(WRITER)
    return become


@pytest.fixture
def open_files(seaweed: SeaweedServer, as_user, tmp_path):
    """Opens the files of a bucket there, as who we are then."""
    s3 = boto3.Session().client("s3", endpoint_url=seaweed.url)  # boto3.client remembers the first user
    if NAME not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=NAME)
    s3.put_bucket_versioning(Bucket=NAME, VersioningConfiguration={"Status": "Enabled"})

    @asynccontextmanager
    async def opened(**options) -> AsyncIterator[S3Files]:
        bucket = Bucket(NAME, "ads", seaweed.url)
        async with S3Files(bucket, LocalCopies(tmp_path / "copies", 10_000_000), **options) as files:
            yield files

    return opened


def changed(link: str, **parameters: str) -> str:
    """A link with other parameters."""
    parts = urlsplit(link)
    return urlunsplit(parts._replace(query=urlencode({**dict(parse_qsl(parts.query)), **parameters})))


async def test_a_link_gives_one_file_to_be_read_for_a_time_and_nothing_else(open_files):
    async with open_files() as files:
        digest, other = await files.put([b"content", b"another"])
        link = await files.link(digest, **PNG)
    async with httpx.AsyncClient() as client:
        answer = await client.get(link)
        assert (answer.status_code, answer.content) == (200, b"content")
        assert answer.headers["content-disposition"] == PNG["disposition"]
        refused = {
            "without a signature": await client.get(link.partition("?")[0]),
            "another file": await client.get(link.replace(digest, other)),
            "another name": await client.get(
                changed(link, **{"response-content-disposition": 'attachment; filename="b.exe"'})
            ),
            "another type": await client.get(changed(link, **{"response-content-type": "text/html"})),
            "for longer": await client.get(changed(link, **{"X-Amz-Expires": "604800"})),
            "another signature": await client.get(changed(link, **{"X-Amz-Signature": "0" * 64})),
            "to write": await client.put(link, content=b"harm"),
            "to remove": await client.delete(link),
            "the list": await client.get(link.partition("/ads/")[0]),
            "written by anybody": await client.put(link.partition("?")[0], content=b"harm"),
        }
        assert {what: answer.status_code for what, answer in refused.items()} == dict.fromkeys(refused, 403)
        assert (await client.get(link)).content == b"content"


async def test_a_link_ends(open_files):
    async with open_files(link_seconds=2) as files:
        (digest,) = await files.put([b"short"])
        link = await files.link(digest, **PNG)
    async with httpx.AsyncClient() as client:
        for _ in range(100):
            if (answer := await client.get(link)).status_code != 200:
                break
            await asyncio.sleep(0.1)
    assert answer.status_code == 403


async def test_a_wrong_secret_stores_and_reads_nothing_and_is_told(open_files, as_user):
    async with open_files() as files:
        (digest,) = await files.put([b"content"])
    as_user(WRITER, "guessed")
    async with open_files() as files:
        for refused in (files.put([b"harm"]), files.read(digest), files.claim("me")):
            with pytest.raises(StorageError, match=r"SignatureDoesNotMatch|403|denied"):
                await refused


async def test_who_may_only_read_cannot_write(open_files, as_user):
    async with open_files() as files:
        (digest,) = await files.put([b"content"])
    as_user(READER)
    async with open_files() as files:
        assert await files.read(digest) == b"content"
        with pytest.raises(StorageError, match="AccessDenied"):
            await files.put([b"harm"])


async def test_blobs_are_created_once_and_by_nobody_else(open_files, seaweed, as_user):
    world = World(system_clock, Random(), uuid7_ids)
    url = f"s3://{NAME}/outcomes?endpoint={seaweed.url}"
    blobs = open_blobs(url, world)
    await blobs.open()
    assert await blobs.create("a", b"first") == b"first"
    assert await blobs.create("a", b"second") == b"first"
    assert await blobs.read("a") == b"first"
    await blobs.close()
    as_user(WRITER, "guessed")
    with pytest.raises(ServiceError, match="403"):
        await open_blobs(url, world).open()
