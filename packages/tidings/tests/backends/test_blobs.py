"""Blobs in a folder and in S3: the suite over both, what their URLs may say, and what goes wrong on the way."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidings.backends import folder as folder_backend
from tidings.backends import s3
from tidings.errors import BlobsError, ServiceError
from tidings.service import open_blobs
from tidings.testing.conformance import BlobsSuite
from tidings.testing.conformance.transports.opening import real_world


class TestFolder(BlobsSuite):
    open_blobs = staticmethod(folder_backend.open_blobs)

    def url(self, folder: Path) -> str:
        return (folder / "blobs").as_uri()

    async def test_what_a_killed_writer_left_is_no_blob(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs:
            await blobs.create("a/some", b"x")
            (tmp_path / "blobs" / "a" / ".0123.new").write_bytes(b"ha")
            assert await blobs.create("a/other", b"y") == b"y"
            names = sorted(path.name for path in (tmp_path / "blobs" / "a").iterdir())
            assert names == [".0123.new", "other.blob", "some.blob"]

    async def test_no_key_leaves_the_folder(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs:
            await blobs.create("../../out", b"x")
            await blobs.create("/etc/out", b"x")
            assert await blobs.read("../../out") == b"x"
        assert os.listdir(tmp_path) == ["blobs"]

    async def test_a_place_that_is_no_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "blobs").write_text("a file")
        with pytest.raises(ServiceError, match=r"cannot be kept in .*name a folder"):
            async with self.opened(self.url(tmp_path)):
                pass

    async def test_a_folder_that_went_away_is_told_and_can_come_back(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs:
            (tmp_path / "blobs").rmdir()
            (tmp_path / "blobs").write_text("a file")
            with pytest.raises(BlobsError, match="cannot be written") as raised:
                await blobs.create("some", b"x")
            assert raised.value.retryable
            (tmp_path / "blobs").unlink()
            assert await blobs.create("some", b"x") == b"x"


class TestS3(BlobsSuite):
    open_blobs = staticmethod(s3.open_blobs)

    @pytest.fixture(autouse=True)
    async def _in_aws(self, aws_endpoint: str, aws_credentials: None) -> None:
        self.endpoint = aws_endpoint
        self.bucket = f"blobs-{secrets.token_hex(6)}"
        async with s3.get_session().create_client("s3", region_name="us-east-1", endpoint_url=aws_endpoint) as client:
            await client.create_bucket(Bucket=self.bucket)

    def url(self, folder: Path) -> str:
        return f"s3://{self.bucket}/some/prefix?region=us-east-1&endpoint={self.endpoint}"

    async def test_a_bucket_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ServiceError, match=r"no-such-bucket cannot be used (.*): there is no such bucket"):
            async with self.opened(f"s3://no-such-bucket?region=us-east-1&endpoint={self.endpoint}"):
                pass

    async def test_where_nothing_answers_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "TRIES", 2)
        blobs = s3.open_blobs("s3://some?region=us-east-1&endpoint=http://127.0.0.1:9", real_world())
        with pytest.raises(BlobsError, match="does not answer"):
            await blobs.open()

    async def test_bytes_that_changed_on_the_way_are_not_given(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs, _changing(self.endpoint, b"secret", b"seCret") as changing:
            await blobs.create("some", b"the secret thing")
            url = self.url(tmp_path).replace(self.endpoint, changing)
            async with self.opened(url) as through:
                with pytest.raises(BlobsError, match="did not give some"):
                    await through.read("some")

    async def test_a_writer_whose_answer_was_lost_is_told_its_own_bytes(self, tmp_path: Path) -> None:
        async with _losing(self.endpoint, b"PUT ") as losing:
            url = self.url(tmp_path).replace(self.endpoint, losing.url)
            async with self.opened(url) as through:
                assert await through.create("some", b"mine") == b"mine"
        assert losing.lost == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3:///prefix", "names no bucket"),
        ("s3://bucket?zone=1", "'zone', which is not known"),
        ("file://host/folder", "names no folder"),
        ("file:///", "names no folder"),
        ("ftp://host", "not a place for blobs this version knows: use one of file, s3"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, says: str) -> None:
    with pytest.raises(ServiceError, match=says):
        open_blobs(url, real_world())


class _Losing:
    """Between client and server: of the first request that begins so, the server's answer is lost."""

    def __init__(self, begins: bytes, old: bytes = b"", new: bytes = b"") -> None:
        self.begins, self.old, self.new = begins, old, new
        self.url = ""
        self.lost = 0
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        losing = False

        async def there() -> None:
            nonlocal losing
            while data := await reader.read(65536):
                losing = losing or (self.lost == 0 and bool(self.begins) and data.startswith(self.begins))
                up_writer.write(data)
            up_writer.close()

        asking = asyncio.create_task(there())
        while data := await up_reader.read(65536):
            if losing and b"100 Continue" not in data[:30]:
                self.lost += 1
                break
            writer.write(data.replace(self.old, self.new) if self.old else data)
        asking.cancel()
        up_writer.close()
        writer.close()


@asynccontextmanager
async def _losing(endpoint: str, begins: bytes) -> AsyncIterator[_Losing]:
    async with _between(endpoint, _Losing(begins)) as losing:
        yield losing


@asynccontextmanager
async def _changing(endpoint: str, old: bytes, new: bytes) -> AsyncIterator[str]:
    async with _between(endpoint, _Losing(b"", old, new)) as changing:
        yield changing.url


@asynccontextmanager
async def _between(endpoint: str, between: _Losing) -> AsyncIterator[_Losing]:
    between.port = int(endpoint.rpartition(":")[2])
    server = await asyncio.start_server(between.handle, "127.0.0.1", 0)
    between.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield between
    finally:
        server.close()
