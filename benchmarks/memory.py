"""Measures whether memory grows with events: `python benchmarks/memory.py [EVENTS]` (default 100,000) prints JSON.

One process publishes and handles, ordered, with one write of the handler's own each, one event in ten as Work, and
an outgoing event of each.
RSS is the highest so far, so a peak in between counts too.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from tidings import Event, Service, Transaction, Work

EVENTS = 100_000
AT_ONCE = 250
STATUS = Path("/proc/self/status")


class Noted(Event, name="memory.noted", key="account"):
    """Handled inside a transaction."""

    account: str
    number: int


class Asked(Event, name="memory.asked"):
    """Handled as Work."""

    number: int


class Handled(Event, name="memory.handled"):
    """Says that one of the others was handled."""


def make_service(folder: Path) -> Service:
    """Declare a service with both shapes of handlers over a file in a folder."""
    service = Service("memory", store=f"sqlite:///{folder}/memory.db")
    service.schema("CREATE TABLE IF NOT EXISTS total (account TEXT PRIMARY KEY, number INTEGER NOT NULL)")

    @service.subscribe(Noted, ordered=True)
    async def note(event: Noted, tx: Transaction) -> None:
        await tx.execute(
            "INSERT INTO total VALUES ($1, 1) ON CONFLICT (account) DO UPDATE SET number = number + 1", event.account
        )
        tx.publish(Handled())

    @service.subscribe(Asked)
    async def answer(event: Asked, work: Work) -> None:
        async with work.finish() as tx:
            await tx.execute(
                "INSERT INTO total VALUES ('asked', 1) ON CONFLICT (account) DO UPDATE SET number = number + 1"
            )
            tx.publish(Handled())

    return service


async def publish_and_handle(service: Service, first: int, until: int) -> None:
    """Publish a range of events, so many at once, and wait until each is handled."""
    for start in range(first, until, AT_ONCE):
        events: list[Event] = [
            Asked(number=n) if n % 10 == 0 else Noted(account=f"account-{n % 1000}", number=n)
            for n in range(start, min(until, start + AT_ONCE))
        ]
        await asyncio.gather(*map(service.publish, events))
        async for _ in service.changes(Handled):
            if await service.fetch_value("SELECT sum(number) FROM total") == start + len(events):
                break


def rss() -> int:
    """Return the highest resident size so far, in bytes.

    Linux: VmHWM of proc(5), because getrusage there still counts the process that started this one. macOS: getrusage.
    """
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def measure(events: int) -> dict[str, float]:
    """Return RSS after a tenth of the events and after all of them, and their ratio."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with make_service(Path(folder)) as service:
            await publish_and_handle(service, 0, events // 10)
            after_a_tenth = rss()
            await publish_and_handle(service, events // 10, events)
    return {
        "events": events,
        "rss_after_a_tenth": after_a_tenth,
        "rss_after_all": rss(),
        "ratio": round(rss() / after_a_tenth, 3),
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))))
