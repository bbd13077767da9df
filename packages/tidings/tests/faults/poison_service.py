"""A service that one event in each of its subscriptions kills.

python poison_service.py STORE_URL CONCURRENCY SUBSCRIPTION…
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta

from tidings import Event, RetryPolicy, Service, Transaction, Work

RETRY = RetryPolicy(attempts=3, backoff=timedelta(milliseconds=300))


class Placed(Event, name="poison.placed", key="account"):
    account: str
    number: int
    kills: str


async def handled(tx: Transaction, name: str, event: Placed) -> None:
    """Leave the row of a handled event."""
    await tx.execute("INSERT INTO effect VALUES ($1, $2, $3)", name, event.account, event.number)


def maybe_die(name: str, event: Placed) -> None:
    """Kill this process if the event is made to."""
    if event.kills == name:
        os.kill(os.getpid(), signal.SIGKILL)


async def plain(event: Placed, tx: Transaction) -> None:
    await handled(tx, "plain", event)
    maybe_die("plain", event)


async def ordered(event: Placed, tx: Transaction) -> None:
    await handled(tx, "ordered", event)
    maybe_die("ordered", event)


async def work(event: Placed, work: Work) -> None:
    maybe_die("work", event)
    async with work.finish() as tx:
        await handled(tx, "work", event)


async def ordered_work(event: Placed, work: Work) -> None:
    maybe_die("ordered_work", event)
    async with work.finish() as tx:
        await handled(tx, "ordered_work", event)


HANDLERS = {handler.__name__: handler for handler in (plain, ordered, work, ordered_work)}


def make_service(url: str, concurrency: int, names: Sequence[str]) -> Service:
    """Declare the service with some of its subscriptions."""
    service = Service("poison", store=url)
    service.schema("CREATE TABLE IF NOT EXISTS effect (subscription TEXT, account TEXT, number INTEGER)")
    for name in names:
        keeps_order = name.startswith("ordered")
        service.subscribe(Placed, ordered=keeps_order, retry=RETRY, start="beginning", concurrency=concurrency)(
            HANDLERS[name]
        )
    return service


async def main(url: str, concurrency: str, *names: str) -> None:
    """Run the service until something kills it."""
    async with make_service(url, int(concurrency), names):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
