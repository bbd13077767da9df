"""Publishing and handling at full speed while an old snapshot is held open, which keeps every dead row in its table."""

import asyncio
import time
from typing import Any

import asyncpg
import ours

from tidings import Service, Transaction

PUBLISHERS = 64
BACKLOG = 2_000
"""Publishers wait while more events than this are not handled."""

DEAD = "SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE n_dead_tup > 1000 ORDER BY n_dead_tup DESC LIMIT 4"


class Counted:
    """How many events were published and handled."""

    def __init__(self) -> None:
        self.published = 0
        self.handled = 0
        self.room = asyncio.Event()
        self.room.set()

    def handle_one(self) -> None:
        """Count one, and let publishers go on."""
        self.handled += 1
        if self.published - self.handled < BACKLOG:
            self.room.set()


async def soak(url: str, minutes: int) -> None:
    """Publish and handle for some minutes; print each minute's rate, and the last beside the first."""
    service, counted = ours.service_on(url), Counted()

    @service.subscribe(ours.OrderPlaced, ordered=True, start="beginning")
    async def charge(event: ours.OrderPlaced, tx: Transaction) -> None:
        await tx.execute(ours.CHARGE, event.order_id, event.number, event.cents)
        counted.handle_one()

    watcher = await asyncpg.connect(url)
    async with service:
        holder = await asyncpg.connect(url)
        snapshot = holder.transaction(isolation="repeatable_read")
        await snapshot.start()
        await holder.fetchval("SELECT count(*) FROM tidings.log")
        publishers = [asyncio.create_task(_publish(service, counted)) for _ in range(PUBLISHERS)]
        rates = [await _minute(number, counted, watcher) for number in range(1, minutes + 1)]
        for task in publishers:
            task.cancel()
        await asyncio.gather(*publishers, return_exceptions=True)
        await snapshot.rollback()
        await holder.close()
    await watcher.close()
    print(f"\nthe last minute beside the first: {rates[-1] / rates[0]:.2f} (wanted: ≥ 0.8)")


async def _publish(service: Service, counted: Counted) -> None:
    while True:
        await counted.room.wait()
        number, counted.published = counted.published, counted.published + 1
        if counted.published - counted.handled >= BACKLOG:
            counted.room.clear()
        await service.publish(ours.order(number))


async def _minute(number: int, counted: Counted, watcher: Any) -> float:
    before, began = counted.handled, time.perf_counter()
    await asyncio.sleep(60)
    rate = (counted.handled - before) / (time.perf_counter() - began)
    dead = ", ".join(f"{row[0]} {row[1]:,}" for row in await watcher.fetch(DEAD))
    print(f"minute {number}: {rate:,.0f} events/s handled; dead rows: {dead or 'few'}", flush=True)
    return rate
