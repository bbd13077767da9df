"""Tidings as measured: one service on one store, through its public face only."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tidings import Event, Service, Transaction, Work

KEYS = 200
NOTE = "Leave it with the neighbour on the second floor, who is at home every day until six in the evening. " * 2
CHARGE = "INSERT INTO charge (order_id, number, cents) VALUES ($1, $2, $3)"
TABLE = "CREATE TABLE IF NOT EXISTS charge (order_id TEXT NOT NULL, number INTEGER NOT NULL, cents INTEGER NOT NULL)"


class OrderPlaced(Event, name="bench.order.placed", version=1, key="order_id"):
    """An order of about 300 bytes of JSON."""

    order_id: str
    number: int
    cents: int
    currency: str
    note: str


def order(number: int) -> OrderPlaced:
    """Return the n-th order; its key is one of KEYS."""
    return OrderPlaced(order_id=f"order-{number % KEYS:06}", number=number, cents=number, currency="EUR", note=NOTE)


def service_on(store: str) -> Service:
    """Return a service on the store that a URL names."""
    service = Service("bench", store=store)
    service.register(OrderPlaced)
    service.schema(TABLE)
    return service


async def publish(store: str, callers: int, count: int) -> float:
    """Publish `count` events, each of `callers` one after the other; return events per second."""
    async with service_on(store) as service:
        await service.publish(order(0))
        events = [order(number) for number in range(count)]
        began = time.perf_counter()
        await asyncio.gather(*(publish_each(service, events[caller::callers]) for caller in range(callers)))
        return count / (time.perf_counter() - began)


async def publish_each(service: Service, events: list[OrderPlaced]) -> None:
    """Publish events one after the other."""
    for event in events:
        await service.publish(event)


async def fill(store: str, count: int) -> None:
    """Make a store whose log holds `count` events that nobody has handled, in the order of their numbers."""
    async with service_on(store).running(consumers=False) as service:
        for first in range(0, count, 1000):
            async with service.transaction() as tx:
                for number in range(first, min(first + 1000, count)):
                    tx.publish(order(number))


async def drain_with_effects(store: str, count: int) -> float:
    """Handle everything, in order, a row each; return events per second from start-up to the last commit."""
    service, handled = service_on(store), asyncio.Event()

    @service.subscribe(OrderPlaced, ordered=True, start="beginning")
    async def charge(event: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(CHARGE, event.order_id, event.number, event.cents)
        if event.number >= count - KEYS:
            handled.set()

    began = time.perf_counter()
    async with service:
        await handled.wait()
        while await service.fetch_value("SELECT count(*) FROM charge") < count:  # noqa: ASYNC110 - a row, not a task
            await asyncio.sleep(0.002)
        return count / (time.perf_counter() - began)


def check_charges(charged: Sequence[Sequence[Any]], count: int) -> None:
    """Exit unless each event has left exactly one row (order, number), those of a key in the order of the events."""
    if sorted(number for _, number in charged) != list(range(count)):
        raise SystemExit(f"{len(charged)} rows for {count} events: effects were lost or doubled.")
    newest: dict[str, int] = {}
    for order_id, number in charged:
        if newest.get(order_id, -1) > number:
            raise SystemExit(f"{order_id}: {number} came after {newest[order_id]}.")
        newest[order_id] = number


async def drain_nothing(store: str, count: int, shape: str, concurrency: int = 20) -> float:
    """Handle everything with a handler that does nothing; return events per second from the first one to the last."""
    service, handled, seen, began = service_on(store), asyncio.Event(), 0, 0.0

    def count_one() -> None:
        nonlocal seen, began
        began = began or time.perf_counter()
        seen += 1
        if seen == count:
            handled.set()

    if shape == "Transaction":

        @service.subscribe(OrderPlaced, start="beginning")
        async def nothing(event: OrderPlaced, tx: Transaction) -> None:
            count_one()

    else:

        @service.subscribe(OrderPlaced, start="beginning", concurrency=concurrency)
        async def nothing_slow(event: OrderPlaced, work: Work) -> None:
            count_one()

    async with service:
        await handled.wait()
        return (count - 1) / (time.perf_counter() - began)


async def latencies(
    store: str, per_second: float, count: int, observe: Callable[[Callable[[str], None] | None], None]
) -> dict[str, list[float]]:
    """Publish at a steady rate beside a handler; return milliseconds from call and from commit to the handler.

    `observe` takes the function that is told of named points (`tidings.points.watch`): one of them is the commit.
    """
    service, moments = service_on(store), Moments()

    @service.subscribe(OrderPlaced, start="beginning")
    async def note(event: OrderPlaced, tx: Transaction) -> None:
        moments.handled[event.number] = time.perf_counter()

    async with service:
        observe(lambda point: moments.committed() if point == "publish.after_commit" else None)
        try:
            await moments.publish_steadily(lambda number: service.publish(order(number)), per_second, count)
        finally:
            observe(None)
    return moments.milliseconds()


class Moments:
    """When each event was published, committed and handled."""

    def __init__(self) -> None:
        self._called: dict[int, float] = {}
        self._committed: dict[int, float] = {}
        self.handled: dict[int, float] = {}

    def committed(self) -> None:
        """Note that the publish under way has committed; at these rates there is one at a time."""
        if len(self._called) > len(self._committed):
            self._committed[len(self._called) - 1] = time.perf_counter()

    async def publish_steadily(
        self,
        publish: Callable[[int], Awaitable[object]],
        per_second: float,
        count: int,
        elsewhere: Awaitable[dict[int, float]] | None = None,
    ) -> None:
        """Publish `count` events at a steady rate; wait until all are handled, here or `elsewhere`, which says when."""
        began = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + (number + 1) / per_second - time.perf_counter()))
            self._called[number] = time.perf_counter()
            await publish(number)
        if elsewhere is not None:
            self.handled = await elsewhere
        while len(self.handled) < count:  # noqa: ASYNC110 - waiting costs no accuracy here
            await asyncio.sleep(0.01)

    def milliseconds(self) -> dict[str, list[float]]:
        """Return the latencies since the call of publish, and since the commit."""
        return {
            "call": [1000 * (self.handled[n] - moment) for n, moment in self._called.items()],
            "commit": [1000 * (self.handled[n] - moment) for n, moment in self._committed.items()],
        }
