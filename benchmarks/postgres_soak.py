"""Publishing and handling at full speed while an old snapshot is held open, which keeps every dead row in its table.

A shared machine changes its speed more than the snapshot does. So each minute also measures its control: the same load,
turn by turn with the one that is watched, in a fresh database, whose dead rows a snapshot elsewhere does not keep.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import asyncpg
import ours
from postgres_server import Server

from tidings import Service, Transaction

PUBLISHERS = 64
BACKLOG = 2_000
"""Publishers wait while more events than this are not handled."""

TURNS, TURN, CONTROL_TURN = 6, 8.0, 2.0
"""How often a minute measures, and the seconds of each turn."""

DEAD = "SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE n_dead_tup > 1000 ORDER BY n_dead_tup DESC LIMIT 4"


class Load:
    """Publishes and handles through one service, while it is its turn."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._published = 0
        self._handled = 0
        self._room = asyncio.Event()
        self._go = asyncio.Event()
        self._all_handled = asyncio.Event()

        @service.subscribe(ours.OrderPlaced, ordered=True, start="beginning")
        async def charge(event: ours.OrderPlaced, tx: Transaction) -> None:
            await tx.execute(ours.CHARGE, event.order_id, event.number, event.cents)
            self._count_one()

    def _count_one(self) -> None:
        self._handled += 1
        if self._published - self._handled < BACKLOG:
            self._room.set()
        if self._published == self._handled:
            self._all_handled.set()

    async def _publish(self) -> None:
        while True:
            await self._go.wait()
            await self._room.wait()
            number, self._published = self._published, self._published + 1
            if self._published - self._handled >= BACKLOG:
                self._room.clear()
            await self._service.publish(ours.order(number))

    async def take_turn(self, seconds: float) -> tuple[int, float]:
        """Publish for some seconds; return how many events were handled, and in how many seconds all of them were."""
        before, began = self._handled, time.perf_counter()
        self._room.set()
        self._go.set()
        await asyncio.sleep(seconds)
        self._go.clear()
        while self._published > self._handled:
            self._all_handled.clear()
            await self._all_handled.wait()
        return self._handled - before, time.perf_counter() - began

    @asynccontextmanager
    async def running(self) -> "AsyncIterator[Load]":
        """Run the service and its publishers; its connections are opened and its statements prepared."""
        async with self._service:
            publishers = [asyncio.create_task(self._publish()) for _ in range(PUBLISHERS)]
            try:
                await self.take_turn(1)
                yield self
            finally:
                for task in publishers:
                    task.cancel()
                await asyncio.gather(*publishers, return_exceptions=True)


def soak(server: Server, minutes: int) -> None:
    """Publish and handle for some minutes; print each minute's rate, its control's, and the last beside the first."""
    with server.database() as url:
        measured = asyncio.run(_soak(server, url, minutes))
    (first, first_control), (last, last_control) = measured[0], measured[-1]
    print(f"\nthe last minute beside the first: {last / first:.2f}")
    beside = (last / last_control) / (first / first_control)
    print(f"each beside its control, the last beside the first: {beside:.2f} (wanted: ≥ 0.8)")


async def _soak(server: Server, url: str, minutes: int) -> list[tuple[float, float]]:
    watcher = await asyncpg.connect(url)
    async with Load(ours.service_on(url)).running() as load:
        holder = await asyncpg.connect(url)
        snapshot = holder.transaction(isolation="repeatable_read")
        await snapshot.start()
        await holder.fetchval("SELECT count(*) FROM tidings.log")
        measured = [await _minute(number, load, server, watcher) for number in range(1, minutes + 1)]
        await snapshot.rollback()
        await holder.close()
    await watcher.close()
    return measured


async def _minute(number: int, load: Load, server: Server, watcher: Any) -> tuple[float, float]:
    """Return the events per second of the load that is watched, and of its control."""
    turns, control_turns = [], []
    async with _fresh(server) as url, Load(ours.service_on(url)).running() as control:
        for _ in range(TURNS):
            turns.append(await load.take_turn(TURN))
            control_turns.append(await control.take_turn(CONTROL_TURN))
    rate, control_rate = _rate(turns), _rate(control_turns)
    dead = ", ".join(f"{row[0]} {row[1]:,}" for row in await watcher.fetch(DEAD))
    print(
        f"minute {number}: {rate:,.0f} events/s handled, control {control_rate:,.0f}, {rate / control_rate:.2f}; "
        f"dead rows: {dead or 'few'}",
        flush=True,
    )
    return rate, control_rate


@asynccontextmanager
async def _fresh(server: Server) -> AsyncIterator[str]:
    with ExitStack() as made:
        yield await asyncio.to_thread(made.enter_context, server.database())
        await asyncio.to_thread(made.close)


def _rate(turns: list[tuple[int, float]]) -> float:
    """Return the median over the turns of the events per second."""
    return statistics.median(handled / seconds for handled, seconds in turns)
