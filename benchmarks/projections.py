"""Replay into a counting projection beside raw asyncpg (or sqlite3) and msgspec over the same rows.

python benchmarks/projections.py [--events 100000,1000000] [--rounds 3] [--store sqlite,postgres]

Raw reads the same rows in pages and decodes them into the same class, and keeps the counts in a dict: it has no
progress, no transaction and no table. Ours ends with the counts in a table, and its progress beside them.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import asyncpg
import msgspec
from frame import Case, Goal, installed, machine, print_report, run_rounds
from postgres_server import running

from tidings import Event, ReadModel, Service
from tidings.events import Envelope
from tidings.events.event import reader

PAGE = 5000
ACCOUNTS = 100


class Deposited(Event, name="bench.deposited", version=1, key="account"):
    """Money came in, with the fields of an ordinary event."""

    account: str
    cents: int
    currency: str
    note: str


def envelopes(service: Service, numbers: range) -> list[Envelope]:
    """Return the envelopes of some events."""
    return [
        service._producer.wrap(Deposited(account=f"a{n % ACCOUNTS}", cents=n, currency="EUR", note="as ordered"))
        for n in numbers
    ]


async def fill(url: str, events: int) -> None:
    """Publish so many events, a thousand a commit."""
    service = Service("bank", store=url)
    service.register(Deposited)
    async with service.running(consumers=False):
        for start in range(0, events, 1000):
            await service.store.publish(envelopes(service, range(start, min(start + 1000, events))))
        if url.startswith("postgresql"):
            await service.store.script("ANALYZE tidings.log")


async def replay(url: str, version: int) -> float:
    """Build a version from the beginning; return events per second."""
    service = Service("bank", store=url)
    schema = "CREATE TABLE IF NOT EXISTS {counts} (account TEXT PRIMARY KEY, events BIGINT NOT NULL)"
    counts = service.projection("counts", version=version, schema=schema)

    @counts.on(Deposited, batched=True)
    async def count(events: Sequence[Deposited], model: ReadModel) -> None:
        found: dict[str, int] = {}
        for event in events:
            found[event.account] = found.get(event.account, 0) + 1
        rows = ", ".join(f"(${2 * n + 1}, ${2 * n + 2})" for n in range(len(found)))
        await model.execute(
            f"INSERT INTO {{counts}} (account, events) VALUES {rows} ON CONFLICT (account) DO UPDATE "
            "SET events = {counts}.events + excluded.events",
            *[value for pair in sorted(found.items()) for value in pair],
        )

    async with service:
        begun = time.perf_counter()
        head = await service.store.reading.head()
        name = counts.subscription_name
        while not await service.store.reading.reached(name, head):
            # The lanes' steps are asked, which costs nothing; the log is only looked at once they have got there.
            while min([step.position for step in await service.store.reading.steps(name)]) < head - 5000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.002)
        seconds = time.perf_counter() - begun
        assert await service.fetch_value(f"SELECT sum(events) FROM counts_v{version}") == head
        row = next(one for one in await service.store.reading.projections() if one.version == version)
        await service.store.run(lambda said: said.forget_projection(row))
    return head / seconds


async def raw_postgres(url: str) -> float:
    """Read and decode all of it by asyncpg and msgspec; return events per second."""
    connection: Any = await asyncpg.connect(url)
    decode = reader(Deposited).decode
    sql = "SELECT position, type, version, data FROM tidings.log WHERE position > $1 ORDER BY position LIMIT $2"
    counts: dict[str, int] = {}
    begun, after, events = time.perf_counter(), 0, 0
    while rows := await connection.fetch(sql, after, PAGE):
        for row in rows:
            event = decode(row[3])
            counts[event.account] = counts.get(event.account, 0) + 1
        after, events = rows[-1][0], events + len(rows)
    seconds = time.perf_counter() - begun
    await connection.close()
    return events / seconds


def raw_sqlite(url: str) -> float:
    """Read and decode all of it by sqlite3 and msgspec; return events per second."""
    connection = sqlite3.connect(url.partition(":///")[2])
    decode = msgspec.json.Decoder(Deposited).decode
    sql = "SELECT position, type, version, data FROM tidings_log WHERE position > ? ORDER BY position LIMIT ?"
    counts: dict[str, int] = {}
    begun, after, events = time.perf_counter(), 0, 0
    while rows := connection.execute(sql, (after, PAGE)).fetchall():
        for row in rows:
            event = decode(row[3])
            counts[event.account] = counts.get(event.account, 0) + 1
        after, events = rows[-1][0], events + len(rows)
    seconds = time.perf_counter() - begun
    connection.close()
    return events / seconds


versions = iter(range(1, 10_000))


def cases_of(url: str, label: str) -> list[Case]:
    """Return what is measured over one store."""

    def raw() -> dict[str, list[float]]:
        rate = asyncio.run(raw_postgres(url)) if url.startswith("postgresql") else raw_sqlite(url)
        return {f"raw, {label}": [rate]}

    def ours() -> dict[str, list[float]]:
        return {f"projection, {label}": [asyncio.run(replay(url, next(versions)))]}

    return [Case(raw), Case(ours)]


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description="Measure a replay into a counting projection beside raw reading.")
    parser.add_argument("--events", default="100000,1000000", help="sizes of the log")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", default="sqlite,postgres")
    parser.add_argument("--server", help="the URL of a database on a server where databases may be created")
    args = parser.parse_args()
    with running(args.server) as server, tempfile.TemporaryDirectory() as folder:
        for events in map(int, args.events.split(",")):
            for store in args.stores.split(","):
                with (
                    server.database() if store == "postgres" else nullcontext(f"sqlite:///{folder}/{events}.db") as url
                ):
                    asyncio.run(fill(url, events))
                    label = f"{store}, {events:,} events"
                    results = run_rounds(cases_of(url, label), args.rounds)
                goal = Goal(f"projection, {label}", (f"raw, {label}",), at_least=0.5)
                print_report(results, [goal], {})
        for name, value in {**machine(), **installed("tidings", "asyncpg", "msgspec")}.items():
            print(f"- {name}: {value}")


if __name__ == "__main__":
    main()
