"""PORT: what Ad Export asks of the outside: a place for files, and a place to render."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from adexport.errors import FileMissingError
from adexport.events import CellOrder, RenderBatchRequested
from tidings import Transaction

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(digest: str) -> str:
    """The digest itself, if it is one: the only way from a text to a place. Raises FileMissingError."""
    if not _DIGEST.fullmatch(digest):
        raise FileMissingError("A digest is 64 hexadecimal digits in lower case.")
    return digest


class FileStore(Protocol):
    """Bytes by the hex SHA-256 of their content: written once, never changed. All methods may raise StorageError.

    Used as an async context manager: entering connects, leaving disconnects.
    """

    async def __aenter__(self) -> Self:
        """The store, connected."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        ...

    async def put(self, contents: Sequence[bytes]) -> list[str]:
        """Store each content durably and return their digests in order; equal content is stored once."""
        ...

    async def read(self, digest: str) -> bytes:
        """The content. Raises FileMissingError."""
        ...

    def read_blocking(self, digest: str) -> bytes:
        """The content, for code that runs in a thread. Raises FileMissingError."""
        ...

    async def local(self, digest: str) -> Path:
        """A local file with the content, for readers in other processes. Raises FileMissingError."""
        ...

    async def present(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that are stored, which counts as a use of them; so does `put`."""
        ...

    async def forget(self, before: datetime, keep: Collection[str]) -> int:
        """Remove contents last used before then, but those of `keep`; return how many. Safe beside `put`."""
        ...

    async def claim(self, owner: str) -> str:
        """Note for good whose files these are, unless that is noted already; return the owner."""
        ...

    def url(self, digest: str) -> str:
        """The address of the content in this store."""
        ...

    async def link(self, name: str, *, media_type: str, disposition: str) -> str | None:
        """Where anybody can get a digest's content, or an archive by its name, for a short time; else None.

        None says that this store has no such addresses, or not this content. The answer there has this
        `Content-Type` and this `Content-Disposition`.
        """
        ...

    def passing(self, name: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of an archive, unchanged. Once all have passed, `link` may know them by this name."""
        ...


class Notes(Protocol):
    """Small texts beside the files, for workers that share nothing else. All methods may raise StorageError."""

    async def read_note(self, name: str) -> bytes | None:
        """The note of this name, None if there is none."""
        ...

    async def write_note(self, name: str, text: bytes) -> None:
        """Write a note, also over an earlier one."""
        ...


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was made earlier: its digest, its size, and how it was encoded."""

    sha256: str
    bytes: int
    quality: str


class RenderMemory(Protocol):
    """What a worker must know of what happened elsewhere."""

    async def wanted(self, event: RenderBatchRequested) -> bool:
        """False once the export is over (cancelled, past its deadline) or a newer round replaced this one."""
        ...

    async def known(self, keys: Sequence[str]) -> dict[str, Made]:
        """What was made under these keys of CellOrder, which need not be stored any more."""
        ...

    async def remember(self, tx: Transaction, made: Mapping[str, Made]) -> None:
        """Let later batches know what was made, by its key."""
        ...


class RenderJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a rendering process gets: everything, so that it needs no database and no network.

    `design` is the design document as JSON, `rows` the fields by row index, `assets` local files by digest.
    """

    design: bytes
    rows: dict[int, dict[str, str]]
    cells: list[CellOrder]
    assets: dict[str, str]


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one cell: `data`, or a `cause` and a `reason` why it cannot be used.

    `verdict` is "ok" or "cannot_fit" (then `data` is the smallest that was reached, over the limit); `seconds` of work.
    """

    index: int
    seconds: float
    data: bytes | None = None
    verdict: str = ""
    quality: str = ""
    cause: str = ""
    reason: str = ""
    best_bytes: int | None = None


class Renderer(Protocol):
    """Renders jobs outside this process."""

    async def render(self, job: RenderJob) -> list[Rendered]:
        """One result for each cell of the job, in order. Raises RenderingCrashedError or RenderingTimedOutError."""
        ...
