"""What workers remember of earlier batches: in the database, or in notes beside the files where there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import msgspec

from adexport.arguments import microseconds, numbered, table
from adexport.deciding import EXPORT, stream_of
from adexport.errors import StorageError
from adexport.events import ExportCancelled, ExportFailed, RenderBatchRequested
from adexport.ports import Made, Notes
from tidings import Service, Transaction, Work

_LOG = logging.getLogger("adexport.worker")
_REMEMBER = """INSERT INTO adexport_render (key, sha256, bytes, quality, created_us)
 SELECT file.*, CAST($1 AS BIGINT) FROM ({files}) AS file WHERE true ON CONFLICT DO NOTHING"""
_MADE = msgspec.json.Decoder(Made)


class DatabaseMemory:
    """Implements ports.RenderMemory by the tables of the service."""

    def __init__(self, service: Service) -> None:
        """Reads through `service`."""
        self._service = service

    async def wanted(self, event: RenderBatchRequested) -> bool:
        """Whether the export still waits for this round."""
        standing = (await self._service.load(EXPORT, stream_of(event.export_id))).state.active
        return standing is not None and standing.round == event.round

    async def known(self, keys: Sequence[str]) -> dict[str, Made]:
        """What was made under these keys."""
        rows = await self._service.fetch_all(
            f"SELECT key, sha256, bytes, quality FROM adexport_render WHERE key IN ({numbered(len(keys))})", *keys
        )
        return {row["key"]: Made(sha256=row["sha256"], bytes=row["bytes"], quality=row["quality"]) for row in rows}

    async def remember(self, tx: Transaction, made: Mapping[str, Made]) -> None:
        """Note what was made, in the transaction."""
        # In the order of their keys: batches that made the same files at the same time must not wait for each other.
        values = [(key, each.sha256, each.bytes, each.quality) for key, each in sorted(made.items())]
        if values:
            rows, args = table(("TEXT", "TEXT", "BIGINT", "TEXT"), values, first=2)
            await tx.execute(_REMEMBER.format(files=rows), microseconds(tx.now()), *args)


class NotedMemory:
    """Implements ports.RenderMemory by notes beside the files: for workers without a database."""

    def __init__(self, notes: Notes) -> None:
        """Reads and writes `notes`."""
        self._notes = notes

    async def wanted(self, event: RenderBatchRequested) -> bool:
        """Whether nobody has noted that this round has ended."""
        return await self._notes.read_note(_ended(event.export_id, event.round)) is None

    async def known(self, keys: Sequence[str]) -> dict[str, Made]:
        """What was made under these keys."""
        found = await asyncio.gather(*(self._notes.read_note(_rendered(key)) for key in keys))
        return {key: _MADE.decode(note) for key, note in zip(keys, found, strict=True) if note is not None}

    async def remember(self, tx: Transaction, made: Mapping[str, Made]) -> None:
        """Note what was made. A note that cannot be written costs only that the file is made again some day."""
        notes = [self._notes.write_note(_rendered(key), msgspec.json.encode(each)) for key, each in made.items()]
        failed = [each for each in await asyncio.gather(*notes, return_exceptions=True) if each is not None]
        for error in failed:
            if not isinstance(error, StorageError):
                raise error
        if failed:
            _LOG.warning("%d of %d files will not be reused: %s", len(failed), len(made), failed[0])


def subscribe_noting(service: Service, notes: Notes) -> None:
    """Tell workers without a database that a round has ended early: what is left of it is not worth rendering."""

    @service.subscribe(ExportCancelled, ExportFailed, pause_after=None)
    async def note_end(event: ExportCancelled | ExportFailed, work: Work) -> None:
        await notes.write_note(_ended(event.export_id, event.round), b"")


def _ended(export_id: str, round: int) -> str:
    return f"ended/{export_id}-{round}"


def _rendered(key: str) -> str:
    return f"renders/{key}"
