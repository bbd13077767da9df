"""Keeps an archive in S3 while its pieces pass by on their way to a reader: in parts, so that it may be large."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from adexport.adapters.s3_client import S3Client, TakenError
from adexport.errors import StorageError

PART_BYTES = 8 * 1024 * 1024
"""Of one part; S3 takes 10,000 parts of 5 MiB to 5 GiB, so archives up to 84 GB."""
_AHEAD = 4
_LOG = logging.getLogger("adexport.files")


class Passing:
    """Archives that are on their way, each written by a task of its own: a reader who leaves only ends that."""

    def __init__(self, client: S3Client) -> None:
        """Opens nothing itself."""
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up what has not passed whole, and wait until S3 has forgotten it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def keep(self, path: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces, unchanged; once the last has been taken, the whole is under `path`. S3's failures stop nobody."""
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        writing = asyncio.create_task(self._write(path, waiting))
        self._tasks.add(writing)
        writing.add_done_callback(self._tasks.discard)
        complete = False
        try:
            async for piece in pieces:
                yield piece
                await _put(waiting, piece, writing)
            complete = True
            await _put(waiting, None, writing)
        finally:
            if not complete:
                writing.cancel()

    async def _write(self, path: str, waiting: asyncio.Queue[bytes | None]) -> None:
        try:
            created = await self._client.call(
                "create_multipart_upload", path, ChecksumAlgorithm="SHA256", ContentType="application/zip"
            )
            upload = created["UploadId"]
            try:
                parts = [
                    await self._part(path, upload, number, part) async for number, part in _numbered(_parts(waiting))
                ]
                await self._client.call(
                    "complete_multipart_upload",
                    path,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                )
            except BaseException:
                await self._client.call("abort_multipart_upload", path, UploadId=upload)
                raise
        except TakenError:
            pass  # another reader's copy was whole first
        except StorageError as error:
            _LOG.warning("An archive could not be kept in S3; it is made again when it is asked for: %s", error)

    async def _part(self, path: str, upload: str, number: int, part: bytes) -> dict[str, Any]:
        checksum = base64.b64encode(await asyncio.to_thread(lambda: hashlib.sha256(part).digest())).decode()
        answer = await self._client.call(
            "upload_part", path, UploadId=upload, PartNumber=number, Body=part, ChecksumSHA256=checksum
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}


async def _put(waiting: asyncio.Queue[bytes | None], piece: bytes | None, writing: asyncio.Task[None]) -> None:
    """Hand a piece to the task, unless it has ended: then S3 takes no more, and the reader goes on without it."""
    putting = asyncio.ensure_future(waiting.put(piece))
    try:
        await asyncio.wait({putting, writing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        putting.cancel()


async def _parts(waiting: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    held = bytearray()
    while (piece := await waiting.get()) is not None:
        held += piece
        while len(held) >= PART_BYTES:
            yield bytes(held[:PART_BYTES])
            del held[:PART_BYTES]
    yield bytes(held)


async def _numbered(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for part in parts:
        number += 1
        yield number, part
