"""One of several processes on a file: `python peer_service.py FOLDER consume|publish`.

`publish` publishes at a steady pace and ends; `consume` notes for each event how long it took to arrive, and runs on.
"""

import asyncio
import sys
import time
from pathlib import Path

from tidings import Event, Service, Transaction

EVENTS, PAUSE_SECONDS = 40, 0.05


class Said(Event, name="peer.said", key="account"):
    account: str
    at: int


def make_service(folder: Path) -> Service:
    """Declare the service."""
    service = Service("peer", store=f"sqlite+apsw:///{folder}/peer.db")
    service.schema("CREATE TABLE IF NOT EXISTS heard (account TEXT, at INTEGER, nanoseconds INTEGER)")

    @service.subscribe(Said, ordered=True)
    async def hear(event: Said, tx: Transaction) -> None:
        await tx.execute("INSERT INTO heard VALUES ($1, $2, $3)", event.account, event.at, time.time_ns() - event.at)

    return service


async def consume(folder: Path) -> None:
    """Run until killed, or until the file `stop` appears."""
    async with make_service(folder):
        while not (folder / "stop").exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.05)


async def publish(folder: Path) -> None:
    """Publish one event after the other; nothing is handled here."""
    service = make_service(folder)
    async with service.running(consumers=False):
        for number in range(EVENTS):
            await service.publish(Said(account=f"a{number}", at=time.time_ns()))
            await asyncio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    asyncio.run({"consume": consume, "publish": publish}[sys.argv[2]](Path(sys.argv[1])))
