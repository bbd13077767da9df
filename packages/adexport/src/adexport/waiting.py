"""Snapshots that wait in the database because the place of the files could not take them: no request is turned away."""

from __future__ import annotations

import logging
from datetime import timedelta

from adexport.events import SnapshotKeptBack
from adexport.ports import FileStore
from tidings import RetryPolicy, Service, Transaction

_LOG = logging.getLogger("adexport.files")
# As long as an export can wait for its deadline, and a day more.
UNTIL_STORED = RetryPolicy(
    attempts=10_000, backoff=timedelta(seconds=1), max_backoff=timedelta(seconds=15), max_age=timedelta(days=2)
)


class KeptSnapshot:
    """The digest of a snapshot, and its bytes where the place of the files has yet to take them."""

    def __init__(self, digest: str, waiting: bytes | None = None) -> None:
        """`waiting` is None for a snapshot that is stored."""
        self.digest = digest
        self.waiting = waiting


async def keep_back(tx: Transaction, export_id: str, snapshot: KeptSnapshot) -> None:
    """Write a snapshot that is not stored beside its export, and say so."""
    if snapshot.waiting is None:
        return
    await tx.execute(
        "INSERT INTO adexport_waiting (digest, content) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        snapshot.digest,
        snapshot.waiting,
    )
    tx.publish(SnapshotKeptBack(export_id=export_id, snapshot=snapshot.digest))


async def waits(tx: Transaction, digest: str) -> bool:
    """Whether a snapshot has yet to be stored."""
    return await tx.fetch_value("SELECT 1 FROM adexport_waiting WHERE digest = $1", digest) is not None


async def store_waiting(service: Service, files: FileStore, digest: str) -> None:
    """Store a snapshot, unless the same one of another export has been stored meanwhile. Raises StorageError."""
    content = await service.fetch_value("SELECT content FROM adexport_waiting WHERE digest = $1", digest)
    if content is not None:
        await files.put([bytes(content)])
        _LOG.info("A snapshot that had to wait is stored: %s", digest)


async def stored(tx: Transaction, digest: str) -> None:
    """Let go of the bytes of a snapshot that is stored."""
    await tx.execute("DELETE FROM adexport_waiting WHERE digest = $1", digest)
