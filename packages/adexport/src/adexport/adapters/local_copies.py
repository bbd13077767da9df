"""Copies of far files in a local folder, for processes that read files: the least used go when there are too many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from adexport.adapters.local_files import LocalFiles

_NEEDED_SECONDS = 300.0


class LocalCopies:
    """A folder of about `most_bytes`. What was asked for in the last five minutes stays, for a job may be about to read
    it, however much that is.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Creates `folder` where it is missing. Raises StorageError."""
        self._folder = folder
        self._files = LocalFiles(folder)
        self._most_bytes = most_bytes

    async def path(self, digest: str, fetch: Callable[[str], Awaitable[bytes]]) -> Path:
        """The local copy of `digest`, fetched where there is none. Raises FileMissingError and StorageError."""
        if not await self._files.present([digest]):
            await self._files.put([await fetch(digest)])
            await asyncio.to_thread(self._shrink)
        return await self._files.local(digest)

    def _shrink(self) -> None:
        """Remove the files that were used longest ago until the rest fits."""
        found = [(path.stat(), path) for path in self._folder.rglob("*") if path.is_file()]
        found.sort(key=lambda each: each[0].st_mtime)
        if not found:
            return
        # By the newest file, which has just been written: no clock of ours is needed.
        unneeded = found[-1][0].st_mtime - _NEEDED_SECONDS
        total = sum(status.st_size for status, _ in found)
        for status, path in found:
            if total <= self._most_bytes or status.st_mtime > unneeded:
                return
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            total -= status.st_size
