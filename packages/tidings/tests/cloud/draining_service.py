"""A service that drains a dead-letter queue, as a process: python draining_service.py URL FOLDER [POINT].

It ends by SIGKILL at the first visit of POINT, else once its one dead letter is there and its fact was heard; then it
prints what the log and the dead letters hold. The event of a new folder is published first.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tidings import Event, Service, Transaction, Undelivered, operations
from tidings.operations import Filter
from tidings.points import watch
from tidings.rows import DEAD


class Asked(Event, name="drained.asked", key="customer"):
    """Something is asked for."""

    customer: str


def made(url: str, folder: Path) -> Service:
    """Return the service; what it hears of is noted in its database."""
    service = Service("asking", store=f"sqlite:///{folder}/asking.db", transport=url)
    service.schema("CREATE TABLE IF NOT EXISTS heard (event_id TEXT)")
    service.register(Asked)

    @service.subscribe(Undelivered, start="beginning")
    async def hear(event: Undelivered, tx: Transaction) -> None:
        await tx.execute("INSERT INTO heard VALUES ($1)", event.event_id)

    return service


async def run(url: str, folder: Path, point: str) -> None:
    """Run until killed, or until there is something to print."""
    service = made(url, folder)
    is_new = not (folder / "asking.db").exists()
    if point:
        watch(lambda reached: os.kill(os.getpid(), signal.SIGKILL) if reached == point else None)
    async with service:
        if is_new:
            await service.publish(Asked(customer="c"))
        while True:
            letters = await operations.letters(service.store, Filter(states=(DEAD,)))
            heard = await service.fetch_all("SELECT event_id FROM heard")
            if letters and heard and not point:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(2 * 1.0)  # twice the lease: what was not acknowledged has come again
        letters = await operations.letters(service.store, Filter(states=(DEAD,)))
        heard = await service.fetch_all("SELECT event_id FROM heard")
        log = [record.envelope.type for record in await service.store.reading.recent(0, 100)]
        said = {
            "letters": [[one.subscription, one.position] for one in letters],
            "heard": len(heard), "facts": log.count("tidings.undelivered"),
        }  # fmt: skip
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))
