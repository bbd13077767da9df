"""Files in an S3 bucket, each under the SHA-256 of its content; what was not used for long goes, version by version."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adexport.adapters.local_copies import LocalCopies
from adexport.adapters.s3_address import Bucket
from adexport.adapters.s3_client import AbsentError, S3Client, TakenError
from adexport.adapters.s3_passing import Passing
from adexport.errors import FileMissingError, StorageError
from adexport.ports import check_digest

_OWNER = "owner"
_FILES = "files/"
_ARCHIVES = "archives/"
_NOTES = "notes/"
_DELETED_AT_ONCE = 1000  # what one call takes
_RESTS = timedelta(days=1)


class S3Files:
    """A content-addressed part of a bucket: `files/digest`, for several processes; see ports.FileStore and Notes.

    The bucket keeps versions. A file was used last when its newest version was made: a use copies it onto itself, once
    in `rests` at most. `forget` deletes versions by their ids, so that of a later use stays, whoever comes first.
    A link can be followed for `link_seconds`. `copies` holds local copies.
    """

    def __init__(
        self, bucket: Bucket, copies: LocalCopies, *, link_seconds: int = 300, rests: timedelta = _RESTS
    ) -> None:
        """Connects to nothing yet."""
        self._bucket = bucket
        self._s3 = S3Client(bucket)
        self._passing = Passing(self._s3)
        self._copies = copies
        self._link_seconds = link_seconds
        self._rests = rests
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """The store, connected. Raises StorageError."""
        await self._s3.open()
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up archives that have not passed whole, and disconnect."""
        await self._passing.close()
        await self._s3.close()

    async def put(self, contents: Sequence[bytes]) -> list[str]:
        """Store each content, which S3 checks against its SHA-256; return the digests in order. Raises StorageError."""
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        await asyncio.gather(*(self._put(*each) for each in dict(zip(digests, contents, strict=True)).items()))
        return digests

    async def read(self, digest: str) -> bytes:
        """The content of `digest`, checked against it. Raises FileMissingError and StorageError."""
        try:
            content = await self._s3.read(_path(digest))
        except AbsentError as error:
            raise FileMissingError.of(digest) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise StorageError(
                f"{self._bucket} holds other bytes as {digest[:12]}… than were stored. Bring an earlier version back."
            )
        return content

    def read_blocking(self, digest: str) -> bytes:
        """The content of `digest`, for code that runs in a thread while this store is open. Raises FileMissingError."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self.read(digest), self._loop).result()

    async def local(self, digest: str) -> Path:
        """A local copy of `digest`. Raises FileMissingError."""
        return await self._copies.path(check_digest(digest), self.read)

    async def present(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that are stored here. Each counts as used now. Raises StorageError."""
        wanted = list(dict.fromkeys(digests))
        used = await asyncio.gather(*(self._use(digest) for digest in wanted))
        return {digest for digest, there in zip(wanted, used, strict=True) if there}

    async def forget(self, before: datetime, keep: Collection[str]) -> int:
        """Remove files last used before then, but those of `keep`, and old archives and notes; return how many files.

        A file may stay for `rests` longer than that. Raises StorageError.
        """
        files = await self._remove_versions(_FILES, before - self._rests, keep)
        for folder in (_ARCHIVES, _NOTES):
            await self._remove_versions(folder, before, ())
        return files

    async def claim(self, owner: str) -> str:
        """Note for good whose files these are, unless that is noted already; return the owner. Raises StorageError."""
        status = await self._s3.call("get_bucket_versioning")
        if status.get("Status") != "Enabled":
            raise StorageError(
                f"{self._bucket} keeps no versions, and without them cleaning could remove a file that is just being"
                f" used. Run: aws s3api put-bucket-versioning --bucket {self._bucket.name}"
                " --versioning-configuration Status=Enabled"
            )
        try:
            await self._s3.call("put_object", _OWNER, Body=owner.encode(), IfNoneMatch="*")
        except TakenError:
            return (await self._s3.read(_OWNER)).decode()
        return owner

    def url(self, digest: str) -> str:
        """The address of `digest` in S3."""
        return f"s3://{self._bucket.name}/{self._bucket.key(_path(digest))}"

    async def link(self, name: str, *, media_type: str, disposition: str) -> str | None:
        """A signed link to a digest's content, or to an archive by its name; None if it is not here."""
        path = _ARCHIVES + name if name.endswith(".zip") else _path(name)
        try:
            await self._s3.call("head_object", path)
        except AbsentError:
            return None
        return await self._s3.presigned(
            path, self._link_seconds, ResponseContentType=media_type, ResponseContentDisposition=disposition
        )

    def passing(self, name: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of an archive; once all have passed, it is kept under its name."""
        return self._passing.keep(_ARCHIVES + name, pieces)

    async def read_note(self, name: str) -> bytes | None:
        """The note of this name, None if there is none."""
        try:
            return await self._s3.read(_NOTES + name)
        except AbsentError:
            return None

    async def write_note(self, name: str, text: bytes) -> None:
        """Write a note, also over an earlier one."""
        await self._s3.call("put_object", _NOTES + name, Body=text)

    async def _put(self, digest: str, content: bytes) -> None:
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        while True:
            try:
                await self._s3.call("put_object", _path(digest), Body=content, ChecksumSHA256=checksum, IfNoneMatch="*")
                return
            except TakenError:
                if await self._use(digest):  # else it was removed at this moment: once more
                    return

    async def _use(self, digest: str) -> bool:
        """Note that a file is used now, by a version of now; False when it is not there."""
        path = _path(digest)
        try:
            head = await self._s3.call("head_object", path)
            if _now(head) - head["LastModified"] >= self._rests:
                source = {"Bucket": self._bucket.name, "Key": self._bucket.key(path)}
                await self._s3.call("copy_object", path, CopySource=source, MetadataDirective="REPLACE")
        except AbsentError:
            return False
        return True

    async def _remove_versions(self, folder: str, before: datetime, keep: Collection[str]) -> int:
        """Remove versions of `folder` made before then; return how many objects have none left."""
        removed = 0
        async for page in self._s3.pages("list_object_versions", folder):
            old = [
                version
                for version in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
                if version["LastModified"] < before and version["Key"].rpartition("/")[2] not in keep
            ]
            await self._remove(old)
            removed += sum(version["IsLatest"] for version in old)
        return removed

    async def _remove(self, versions: list[dict[str, Any]]) -> None:
        for start in range(0, len(versions), _DELETED_AT_ONCE):
            part = versions[start : start + _DELETED_AT_ONCE]
            named = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in part]
            answer = await self._s3.call("delete_objects", Delete={"Objects": named, "Quiet": True})
            if refused := answer.get("Errors"):
                raise StorageError(
                    f"{self._bucket} did not let {len(refused)} old files be removed: {refused[0].get('Message')}. Let"
                    " this service's role use s3:DeleteObjectVersion."
                )


def _path(digest: str) -> str:
    return _FILES + check_digest(digest)


def _now(answer: dict[str, Any]) -> datetime:
    """The time of the server that answered: the one by which it dates its versions, too."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
