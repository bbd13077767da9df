"""The service that the kill tests kill: every shape of handler, timers, both ways of a transport, retries, redrives.

Each handler leaves one row in `effect`, which has no unique constraint: an event handled twice is seen. What a client
was told is published stands in `acked.txt`, written after the publish returned.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal

import file_transport

from tidings import Event, RetryPolicy, Service, Transaction, Work
from tidings.errors import StoreBusyError, StoreUnavailableError
from tidings.events import Envelope, encode_event, envelope_to_json
from tidings.operations import Filter, letters, redrive
from tidings.rows import DEAD

ACCOUNTS = 12
ROUND_SECONDS = 0.03
CLIENT_SECONDS = 0.03
"""Between two rounds of the clients."""

BACKLOG = 100
"""Clients publish no more while so many events wait, for a service that is killed and cut off all the time gets less
done on a slow machine than on a quick one, and what is left must drain within a minute."""

PATIENT = RetryPolicy(
    attempts=1000, backoff=timedelta(milliseconds=20), max_backoff=timedelta(milliseconds=60), never=(ValueError,)
)
"""No event of the storm dies because its process was killed often; what raises ValueError dies at once."""

DEAD_LETTERS = Filter(states=(DEAD,))

TABLES = """
CREATE TABLE IF NOT EXISTS effect (
  seq {serial}, subscription TEXT NOT NULL, id TEXT NOT NULL, attempt INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS intent (number BIGINT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS mended (number BIGINT PRIMARY KEY);
"""
SERIAL = {"sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT", "postgresql": "bigserial PRIMARY KEY"}
PREFIX = {"sqlite": "tidings_", "postgresql": "tidings."}
"""Kind of store -> what its tables of the library begin with."""


def kind_of(store: str) -> str:
    """Return the kind of store that a URL names."""
    return store.partition(":")[0].partition("+")[0]


class Placed(Event, name="storm.placed", key="account"):
    account: str
    number: int
    kind: Literal["plain", "flaky", "bad"]


class Booked(Event, name="storm.booked", key="account"):
    account: str
    number: int


class Delivered(Event, name="storm.delivered", key="account"):
    account: str
    number: int


class Reminder(Event, name="storm.reminder", key="account"):
    account: str
    number: int


class Arrived(Event, name="other.arrived", key="account"):
    account: str
    number: int


async def effect(tx: Transaction, subscription: str) -> None:
    """Leave the row that shows that an event was handled."""
    assert tx.envelope is not None
    await tx.execute(
        "INSERT INTO effect (subscription, id, attempt) VALUES ($1, $2, $3)", subscription, tx.envelope.id, tx.attempt
    )


async def ledger(event: Placed, tx: Transaction) -> None:
    tx.publish(Booked(account=event.account, number=event.number))
    tx.publish(Reminder(account=event.account, number=event.number), delay=timedelta(milliseconds=20))
    await effect(tx, "ledger")
    if event.kind == "flaky" and tx.attempt == 1:
        raise RuntimeError("the first attempt fails, after it wrote and published")
    mended = await tx.fetch_one("SELECT 1 FROM mended WHERE number = $1", event.number)
    if event.kind == "bad" and mended is None:
        raise ValueError("nobody can handle this before it is mended")


async def deliver(event: Placed, work: Work) -> None:
    await asyncio.sleep(0.001)
    if event.kind == "flaky" and work.attempt == 1:
        raise RuntimeError("the first attempt fails")
    async with work.finish() as tx:
        await effect(tx, "deliver")
        tx.publish(Delivered(account=event.account, number=event.number))


async def notify(event: Placed, work: Work) -> None:
    async with work.finish() as tx:
        await effect(tx, "notify")


async def remind(event: Reminder, tx: Transaction) -> None:
    await effect(tx, "remind")


async def arrive(event: Arrived, tx: Transaction) -> None:
    await effect(tx, "arrive")


def make_service(folder: Path, store: str) -> Service:
    """Declare the service over a store, and over the transport's files in a folder."""
    service = Service("storm", store=store, transport=file_transport.url(folder))
    service.schema(TABLES.format(serial=SERIAL[kind_of(store)]))
    service.register(Booked, Delivered)
    for handler, event, ordered in (
        (ledger, Placed, True),
        (deliver, Placed, False),
        (notify, Placed, True),
        (remind, Reminder, False),
        (arrive, Arrived, True),
    ):
        service.subscribe(event, ordered=ordered, retry=PATIENT, pause_after=None)(handler)
    return service


async def while_the_store_answers(call: Awaitable[None]) -> None:
    """Await a call; that the server cut it off, or is too busy, is no defect: it was not acknowledged."""
    try:
        await call
    except (StoreUnavailableError, StoreBusyError) as error:
        print("not acknowledged:", error, file=sys.stderr)


class Client:
    """Publishes in every way there is, until its process dies, and writes down what was acknowledged."""

    def __init__(self, service: Service, folder: Path, random: Random, store: str, clients: int) -> None:
        self._service = service
        self._folder = folder
        self._random = random
        self._pause = CLIENT_SECONDS * clients
        self._backlog = (
            f"SELECT (SELECT count(*) FROM {PREFIX[kind_of(store)]}log WHERE type = 'storm.placed')"
            " - (SELECT count(*) FROM effect WHERE subscription = 'ledger')"
        )

    async def run(self) -> None:
        while True:
            await while_the_store_answers(self._round())
            await asyncio.sleep(self._pause)

    async def _round(self) -> None:
        if await self._service.fetch_value(self._backlog) < BACKLOG:
            ways = (self._plain, self._plain, self._delayed, self._twice, self._in_transaction)
            await asyncio.gather(*(while_the_store_answers(way()) for way in ways))
            self._send_from_outside()

    def _event(self) -> Placed:
        kind = self._random.choices(("plain", "flaky", "bad"), (80, 10, 10))[0]
        account = f"account-{self._random.randrange(ACCOUNTS)}"
        return Placed(account=account, number=self._random.getrandbits(48), kind=kind)

    def _acknowledged(self, *ids: str) -> None:
        file_transport.append(self._folder / "acked.txt", [event_id.encode() for event_id in ids])

    async def _plain(self) -> None:
        self._acknowledged((await self._service.publish(self._event())).id)

    async def _delayed(self) -> None:
        self._acknowledged((await self._service.publish(self._event(), delay=timedelta(milliseconds=10))).id)

    async def _twice(self) -> None:
        event = self._event()
        await self._service.publish(event, id=f"chosen-{event.number}")
        self._acknowledged((await self._service.publish(event, id=f"chosen-{event.number}")).id)

    async def _in_transaction(self) -> None:
        event = self._event()
        async with self._service.transaction() as tx:
            await tx.execute("INSERT INTO intent (number) VALUES ($1)", event.number)
            published = tx.publish(event)
        self._acknowledged(published.id)

    def _send_from_outside(self) -> None:
        event = Arrived(account=f"account-{self._random.randrange(ACCOUNTS)}", number=self._random.getrandbits(48))
        envelope = Envelope(
            id=f"outside-{event.number}",
            source="other",
            type="other.arrived",
            time=datetime.now(UTC),
            key=event.account,
            correlation=f"outside-{event.number}",
            data=encode_event(event),
        )
        copies = self._random.choice((1, 1, 2))
        file_transport.append(self._folder / "in.jsonl", [envelope_to_json(envelope)] * copies)


class Operator:
    """Mends what the dead letters complain of, and redrives them; one in every process, so several press at once."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def run(self) -> None:
        while True:
            await while_the_store_answers(self._mend())
            await asyncio.sleep(ROUND_SECONDS)

    async def _mend(self) -> None:
        for letter in await letters(self._service.store, DEAD_LETTERS, limit=20):
            assert letter.event is not None
            number = json.loads(letter.event.data)["number"]
            async with self._service.transaction() as tx:
                await tx.execute("INSERT INTO mended (number) VALUES ($1) ON CONFLICT DO NOTHING", number)
            await redrive(self._service.store, DEAD_LETTERS, actor="operator", now=self._service.world.now())


async def is_drained(service: Service, folder: Path, store: str) -> bool:
    """Say whether everything landed, every event has its effects, and every event of ours was sent."""
    prefix = PREFIX[kind_of(store)]
    for table in ("held", "ready", "scheduled"):
        if await service.fetch_value(f"SELECT count(*) FROM {prefix}{table}"):
            return False
    rows = await service.fetch_all(f"SELECT type, count(*) FROM {prefix}log GROUP BY type")
    counts = dict(tuple(row) for row in rows)
    effects = await service.fetch_value("SELECT count(*) FROM (SELECT DISTINCT subscription, id FROM effect) e")
    expected = 3 * counts["storm.placed"] + counts["storm.reminder"] + counts["other.arrived"]
    landed = int((folder / "in.settled").read_text()) == (folder / "in.jsonl").stat().st_size
    own = sum(counts.values()) - counts["other.arrived"]
    return bool(effects == expected) and landed and len(set(sent_ids(folder))) == own


def sent_ids(folder: Path) -> list[str]:
    """Return the ids of what the relay has sent, in its order."""
    return [json.loads(line)["id"] for line in (folder / "out.jsonl").read_bytes().splitlines()]
