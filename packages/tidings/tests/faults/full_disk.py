"""Runs a service on a disk that fills up and is freed again: `python full_disk.py FOLDER SCHEME pages|tmpfs`.

`pages` makes SQLite itself refuse to grow; `tmpfs` mounts a file system of 2 MiB on FOLDER (in a mount namespace of
its own, so that it goes with the process). Prints what was seen as JSON.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tidings import Event, RetryPolicy, Service, StoreFullError, Transaction
from tidings.backends.sqlite.store import SqliteStore

DISK_BYTES = 2 * 1024 * 1024
MOST_PUBLISHES = 2000
AFTERWARDS = 5


class Noted(Event, name="disk.noted", key="account"):
    account: str
    text: str


def make_service(folder: Path, scheme: str) -> Service:
    """Declare a service whose handler needs disk too, and would be dead after one counted failure."""
    service = Service("disk", store=f"{scheme}:///{folder}/disk.db")
    service.schema("CREATE TABLE IF NOT EXISTS effect (id TEXT, attempt INTEGER, text TEXT)")

    async def note(event: Noted, tx: Transaction) -> None:
        assert tx.envelope is not None
        await tx.execute("INSERT INTO effect VALUES ($1, $2, $3)", tx.envelope.id, tx.attempt, event.text)

    service.subscribe(Noted, ordered=True, retry=RetryPolicy(attempts=1))(note)
    return service


async def fill(service: Service, acknowledged: list[str]) -> str:
    """Publish until the disk is full; return the error's text."""
    for number in range(MOST_PUBLISHES):
        try:
            published = await service.publish(Noted(account=f"a{number % 3}", text="x" * 5000))
        except StoreFullError as error:
            return str(error)
        acknowledged.append(published.id)
    return ""


def limit(folder: Path, kind: str, store: SqliteStore) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what makes the disk small, and what frees it."""
    if kind == "tmpfs":
        ballast = folder / "ballast"
        return lambda: ballast.write_bytes(bytes(DISK_BYTES // 2)), ballast.unlink
    connection = store._writing
    assert connection is not None

    def allow(pages: int) -> None:
        connection.rows(f"PRAGMA max_page_count = {pages}")

    return lambda: allow(DISK_BYTES // 2 // 4096), lambda: allow(1_000_000)


async def settled(service: Service) -> bool:
    """Wait until every event has its effect."""
    for _ in range(1000):
        events = await service.fetch_value("SELECT count(*) FROM tidings_log")
        if await service.fetch_value("SELECT count(*) FROM effect") == events:
            return True
        await asyncio.sleep(0.02)
    return False


async def main(folder: Path, scheme: str, kind: str) -> None:
    """Fill, look, free, look again."""
    service = make_service(folder, scheme)
    acknowledged: list[str] = []
    async with service:
        assert isinstance(service.store, SqliteStore)
        shrink, free = limit(folder, kind, service.store)
        shrink()
        error = await fill(service, acknowledged)
        await asyncio.sleep(0.5)  # handlers meet the full disk, and must not be blamed for it
        second_error = await fill(service, acknowledged)
        held_while_full = await service.fetch_value("SELECT count(*) FROM tidings_held")
        free()
        for number in range(AFTERWARDS):
            acknowledged.append((await service.publish(Noted(account="after", text=str(number)))).id)
        report = {
            "error": error,
            "second_error": second_error,
            "held_while_full": held_while_full,
            "settled": await settled(service),
            "acknowledged": acknowledged,
            "log": [row[0] for row in await service.fetch_all("SELECT id FROM tidings_log")],
            "effects": [tuple(row) for row in await service.fetch_all("SELECT id, attempt FROM effect")],
            "held": await service.fetch_value("SELECT count(*) FROM tidings_held"),
            "integrity": await service.fetch_value("SELECT * FROM pragma_integrity_check"),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    if sys.argv[3] == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", sys.argv[1]], check=True)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
