"""A service that freezes itself with SIGSTOP at a named place: `python zombie_service.py FOLDER PLACE EVENTS`.

The first process to reach the place freezes; the file `frozen` in the folder keeps every later one from it. Its lease
is one second long. It publishes so many events, then some more until one is frozen, and runs until the file `stop`
appears.
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import file_transport

from tidings import Event, RetryPolicy, Service, Transaction, Work, points
from tidings.backends.sqlite.store import SqliteStore
from tidings.consuming import leases

TABLE = "CREATE TABLE IF NOT EXISTS effect (seq INTEGER PRIMARY KEY, subscription TEXT, id TEXT, pid INTEGER)"
RETRY = RetryPolicy(attempts=5, backoff=timedelta(milliseconds=50))
INSERT = "INSERT INTO effect (subscription, id, pid) VALUES ($1, $2, $3)"


class Placed(Event, name="zombie.placed", key="account"):
    account: str
    number: int


class Freezing:
    """Stops this process as SIGSTOP does, once, at one place, and never while it holds the file's write lock."""

    def __init__(self, folder: Path, place: str, store: SqliteStore) -> None:
        self._mark = folder / "frozen"
        self._place = place
        self._store = store

    def at(self, place: str) -> None:
        if place != self._place or self._mark.exists() or not self._store._open_writer.idle:
            return
        self._mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)


def make_service(folder: Path, place: str) -> Service:
    """Declare the service, and let it freeze."""
    service = Service("zombie", store=f"sqlite+apsw:///{folder}/zombie.db", transport=file_transport.url(folder))
    service.schema(TABLE)
    assert isinstance(service.store, SqliteStore)
    freezing = Freezing(folder, place, service.store)
    points.watch(freezing.at)

    async def ledger(event: Placed, tx: Transaction) -> None:
        assert tx.envelope is not None
        await tx.execute(INSERT, "ledger", tx.envelope.id, os.getpid())

    async def work(event: Placed, work: Work) -> None:
        freezing.at("in work")
        async with work.finish() as tx:
            await tx.execute(INSERT, "work", work.envelope.id, os.getpid())

    for handler in (ledger, work):
        service.subscribe(Placed, ordered=True, retry=RETRY)(handler)
    return service


async def main(folder: Path, place: str, events: int) -> None:
    """Publish, and run until told to stop. One event more at a time, until a process is frozen."""
    leases.LEASE_SECONDS, leases.BEAT_SECONDS = 1.0, 0.2
    service = make_service(folder, place)
    async with service.running(consumers=False, relay=False):
        await publish(service, events)
    async with service:
        while not (folder / "stop").exists():
            if not (folder / "frozen").exists():
                await publish(service, 1)
            await asyncio.sleep(0.03)


async def publish(service: Service, events: int) -> None:
    """Publish events of five accounts."""
    for number in range(events):
        await service.publish(Placed(account=f"a{number % 5}", number=number))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
