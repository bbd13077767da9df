"""Files in a local folder, each under the SHA-256 of its content: complete or not there, also after a power cut."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from adexport.errors import FileMissingError, StorageError
from adexport.ports import check_digest

# Beside the folders of the files, where no digest can lead.
_OWNER = ".owner"


class LocalFiles:
    """A content-addressed folder: `root/ab/abcdef…`. Safe for several processes at once; see ports.FileStore."""

    def __init__(self, root: Path) -> None:
        """Creates `root` where it is missing. Raises StorageError."""
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The folder {root} cannot be created: {error.strerror}. Choose another one.") from error
        self._root = root

    async def __aenter__(self) -> Self:
        """The store itself: a folder needs no connection."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""

    async def put(self, contents: Sequence[bytes]) -> list[str]:
        """Store each content and return the digests in order. Durable when it returns. Raises StorageError."""
        return await asyncio.to_thread(self._put_all, contents)

    async def read(self, digest: str) -> bytes:
        """The content of `digest`. Raises FileMissingError."""
        return await asyncio.to_thread(self.read_blocking, digest)

    def read_blocking(self, digest: str) -> bytes:
        """The content of `digest`, for code that runs in a thread. Raises FileMissingError."""
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError as error:
            raise FileMissingError.of(digest) from error

    async def local(self, digest: str) -> Path:
        """The path of `digest`. Raises FileMissingError."""
        path = self._path(digest)
        if not await asyncio.to_thread(path.is_file):
            raise FileMissingError.of(digest)
        return path

    async def present(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that are stored here. Each counts as used now. Raises StorageError."""
        return await asyncio.to_thread(self._used, digests)

    async def forget(self, before: datetime, keep: Collection[str]) -> int:
        """Remove files last used before then, but those of `keep`; return how many. Raises StorageError.

        What a process that died left half-written goes, too.
        """
        folders = await asyncio.to_thread(lambda: [path for path in self._root.iterdir() if path.is_dir()])
        limit = before.timestamp()
        # Folder by folder, so that a worker that stops need not wait for all of them.
        return sum([await asyncio.to_thread(_forget_in, folder, limit, keep) for folder in folders])

    async def claim(self, owner: str) -> str:
        """Note for good whose files these are, unless that is noted already; return the owner. Raises StorageError."""
        return await asyncio.to_thread(self._claim, owner)

    def url(self, digest: str) -> str:
        """The address of `digest`: a name, not a path of this machine."""
        return f"sha256:{digest}"

    async def link(self, name: str, *, media_type: str, disposition: str) -> str | None:
        """None: files of a folder have no address of their own."""
        return None

    def passing(self, name: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces as they are: an archive from a folder is as quickly made again."""
        return pieces

    def _path(self, digest: str) -> Path:
        return self._root / check_digest(digest)[:2] / digest

    def _claim(self, owner: str) -> str:
        path = self._root / _OWNER
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._root, prefix=".new-")
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(f"{owner}\n")
                    file.flush()
                    os.fsync(file.fileno())
                # A link never replaces: of several that start at once, one names the owner, the others read it whole.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
                    _sync_folder(self._root)
            finally:
                os.unlink(temporary)
            return path.read_text().strip()
        except OSError as error:
            raise StorageError(f"{path} cannot be written or read: {error.strerror}. Mend the folder.") from error

    def _used(self, digests: Sequence[str]) -> set[str]:
        try:
            return {digest for digest in digests if _use(self._path(digest))}
        except OSError as error:
            raise StorageError(f"Files cannot be used in {self._root}: {error.strerror}. Mend the folder.") from error

    def _put_all(self, contents: Sequence[bytes]) -> list[str]:
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        try:
            touched = {
                path.parent
                for path, content in zip(map(self._path, digests), contents, strict=True)
                if _write(path, content)
            }
            for folder in touched:
                _sync_folder(folder)
        except OSError as error:
            raise StorageError(
                f"Files cannot be written to {self._root}: {error.strerror}. Free space or mend the folder."
            ) from error
        return digests


def _use(path: Path) -> bool:
    """Note that a file is used now, by its time of change; False when it is not there."""
    try:
        os.utime(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _forget_in(folder: Path, limit: float, keep: Collection[str]) -> int:
    try:
        return sum(_forget(path, limit) for path in folder.iterdir() if path.name not in keep)
    except OSError as error:
        raise StorageError(f"Files cannot be removed from {folder}: {error.strerror}. Mend the folder.") from error


def _forget(path: Path, limit: float) -> bool:
    """Remove a file unless it was used after `limit`, also when that happens at this moment."""
    aside = path.with_name(f".old-{path.name.removeprefix('.old-')}")
    try:
        if path.stat().st_mtime >= limit:
            return False
        path.rename(aside)  # from here on whoever puts the same content writes it anew
        if aside.stat().st_mtime >= limit:
            aside.rename(path)
            return False
        aside.unlink()
    except FileNotFoundError:  # another process was here first
        return False
    return True


def _write(path: Path, content: bytes) -> bool:
    """Write `content` in one step: a reader sees all of it or nothing. False when it was there already."""
    if _use(path):
        return False
    path.parent.mkdir(exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
