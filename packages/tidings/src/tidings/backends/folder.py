"""Blobs in a folder: `file:///folder`. A file per key, linked into place whole, so that of two writers one wins."""

import asyncio
import hashlib
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tidings.errors import BlobsError, ServiceError
from tidings.world import World

LONGEST = 120
"""Characters of a part of a key that stand in a file's name; what is longer ends in its digest."""


def open_blobs(url: str, world: World) -> "FolderBlobs":
    """Return the blobs of a `file://` URL; raises ServiceError."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.strip("/") or parts.query:
        raise ServiceError(f"{url!r} names no folder: write its whole path with three slashes, file:///var/lib/blobs.")
    return FolderBlobs(Path(url2pathname(parts.path)))


class FolderBlobs:
    """Implements tidings.blobs.Blobs. Processes may share the folder; it must be on one file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> None:
        """Make the folder where there is none; raises ServiceError."""
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(
                f"Blobs cannot be kept in {self._folder}: {error}; name a folder to write in."
            ) from error

    async def close(self) -> None:
        """Nothing is held open."""

    async def create(self, key: str, data: bytes) -> bytes:
        """Write under a key unless something is there, synced to disk; return what is there now."""
        return await asyncio.to_thread(self._create, self._path(key), data)

    async def read(self, key: str) -> bytes | None:
        """Return what is under a key, None if nothing is."""
        return await asyncio.to_thread(_read, self._path(key))

    def _path(self, key: str) -> Path:
        *folders, name = (_safe(part) for part in key.split("/"))
        return self._folder.joinpath(*folders, f"{name}.blob")  # folders have no dot

    def _create(self, path: Path, data: bytes) -> bytes:
        try:
            if self._write(path, data):
                return data
        except OSError as error:
            raise BlobsError(f"{path} cannot be written: {error}.") from error
        there = _read(path)
        if there is None:
            raise BlobsError(f"{path} was removed while it was read: let nothing do that.")
        return there

    def _write(self, path: Path, data: bytes) -> bool:
        """Write a file; False if there is one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{secrets.token_hex(8)}.new")
        try:
            with new.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(new, path)
            except FileExistsError:
                won = False
            else:
                won = True
        finally:
            new.unlink(missing_ok=True)
        # Whoever lost goes by the winner's content, whose name may not be on the disk yet.
        _sync_folders(path.parent, self._folder)
        return won


def _safe(part: str) -> str:
    """Return a part of a key as a name that is another one for another part on every file system."""
    # Capitals too: where a file system takes them for small ones, two keys would be one.
    name = re.sub(r"[^a-z0-9_-]", lambda found: f"%{ord(found[0]):02x}", part) or "%"
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}+{hashlib.sha256(part.encode()).hexdigest()[:40]}"


def _sync_folders(folder: Path, top: Path) -> None:
    """Let the names be on disk, of the new file and of the folders that may be new; Windows has no such call."""
    if os.name == "nt":
        return
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if folder in (top, folder.parent):
            return
        folder = folder.parent


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BlobsError(f"{path} cannot be read: {error}.") from error
