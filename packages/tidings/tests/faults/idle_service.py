"""Measures what a service with nothing to do costs: `python idle_service.py STORE` prints JSON.

Handlers of every shape, a transport and timers are there; one event was handled before the measurement began.
"""

import asyncio
import json
import sys
import time

from tidings import Event, Service, Transaction, Work

SECONDS = 5.0


class Noted(Event, name="idle.noted", key="account"):
    account: str


async def main(store: str) -> None:
    """Handle one event, then do nothing for some seconds."""
    service = Service("idle", store=store, transport="memory://idle")
    handled = asyncio.Event()

    async def note(event: Noted, tx: Transaction) -> None:
        handled.set()

    async def work(event: Noted, work: Work) -> None:
        pass

    for number in range(4):
        service.subscribe(Noted, name=f"note-{number}", ordered=bool(number % 2))(note)
        service.subscribe(Noted, name=f"work-{number}", ordered=bool(number % 2))(work)
    async with service:
        await service.publish(Noted(account="a"))
        await handled.wait()
        await asyncio.sleep(1.0)
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(SECONDS)
        share = (time.process_time() - used) / (time.monotonic() - began)
    print(json.dumps({"share": round(share, 5), "handled": handled.is_set()}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
