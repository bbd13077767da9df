"""Latency from the commit to the handler on Postgres, within one process and between two; also the second process.

python benchmarks/postgres_latency.py SIDE URL COUNT handles COUNT events and prints when each reached its handler, by
the clock that all processes of a machine share.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence

import ours
from peers import raw_postgres

from tidings import Service, Transaction, points

Seen = dict[str, list[float]]


async def tidings(url: str, rate: float, count: int) -> Seen:
    """Publish and handle in this process."""
    return await ours.latencies(url, rate, count, points.watch)


async def tidings_apart(url: str, rate: float, count: int) -> Seen:
    """Publish here, handle in another process."""
    moments = ours.Moments()
    handling = await _start_handling("tidings", url, count)
    async with _noting(url, lambda event: None).running(consumers=False) as service:
        points.watch(lambda point: moments.committed() if point == "publish.after_commit" else None)
        try:
            await moments.publish_steadily(lambda number: service.publish(ours.order(number)), rate, count, handling)
        finally:
            points.watch(None)
    return moments.milliseconds()


async def raw(url: str, rate: float, rows: Sequence[raw_postgres.Row], *, in_transaction: bool) -> Seen:
    """Publish and handle in this process."""
    moments, ready = ours.Moments(), asyncio.Event()

    async def handle(event: ours.OrderPlaced) -> None:
        moments.handled[event.number] = time.perf_counter()

    running = asyncio.create_task(raw_postgres.Loop(url, ours.OrderPlaced).run(handle, ready.set))
    await ready.wait()
    await _publish_raw(url, moments, rate, rows, in_transaction, None)
    running.cancel()
    await asyncio.wait([running])
    return moments.milliseconds()


async def raw_apart(url: str, rate: float, rows: Sequence[raw_postgres.Row], *, in_transaction: bool) -> Seen:
    """Publish here, handle in another process."""
    moments = ours.Moments()
    handling = await _start_handling("raw", url, len(rows))
    await _publish_raw(url, moments, rate, rows, in_transaction, handling)
    return moments.milliseconds()


async def _publish_raw(
    url: str,
    moments: ours.Moments,
    rate: float,
    rows: Sequence[raw_postgres.Row],
    in_transaction: bool,
    handling: "asyncio.Task[dict[int, float]] | None",
) -> None:
    publisher = raw_postgres.Publisher(url, in_transaction=in_transaction, committed=moments.committed)
    await publisher.connect()
    await moments.publish_steadily(lambda number: publisher.publish(rows[number]), rate, len(rows), handling)
    await publisher.close()


async def _start_handling(side: str, url: str, count: int) -> "asyncio.Task[dict[int, float]]":
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, side, url, str(count), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    if not await process.stdout.readline():
        raise SystemExit(f"The process that handles ({side}) ended before it was ready.")

    async def finish() -> dict[int, float]:
        told, _ = await process.communicate()
        return {int(number): moment for number, moment in json.loads(told).items()}

    return asyncio.create_task(finish())


def _noting(url: str, note_one: Callable[[ours.OrderPlaced], None]) -> Service:
    service = ours.service_on(url)

    @service.subscribe(ours.OrderPlaced, start="beginning")
    async def note(event: ours.OrderPlaced, tx: Transaction) -> None:
        note_one(event)

    return service


class _Handled:
    """When each event reached the handler."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.moments: dict[int, float] = {}
        self.all = asyncio.Event()

    def note(self, event: ours.OrderPlaced) -> None:
        self.moments[event.number] = time.perf_counter()
        if len(self.moments) == self._count:
            self.all.set()


async def _handle_tidings(url: str, count: int) -> dict[int, float]:
    handled = _Handled(count)
    async with _noting(url, handled.note):
        _say_ready()
        await handled.all.wait()
    return handled.moments


async def _handle_raw(url: str, count: int) -> dict[int, float]:
    handled = _Handled(count)

    async def note(event: ours.OrderPlaced) -> None:
        handled.note(event)

    running = asyncio.create_task(raw_postgres.Loop(url, ours.OrderPlaced).run(note, _say_ready))
    await handled.all.wait()
    running.cancel()
    return handled.moments


def _say_ready() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    handle = {"tidings": _handle_tidings, "raw": _handle_raw}[sys.argv[1]]
    print(json.dumps(asyncio.run(handle(sys.argv[2], int(sys.argv[3])))))
