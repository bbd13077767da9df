"""A newer version's migration is applied beside the previous version's workers, which notice nothing of it."""

import asyncio
import random
import time
from collections import Counter
from typing import Any

import asyncpg
import pytest

from tidings import Event, Service, StoreVersionError, Transaction, Work
from tidings.backends.postgres import PostgresStore, migrations, open_store, store
from tidings.errors import StoreBusyError
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.world import World

NEXT = """
ALTER TABLE tidings.log ADD COLUMN noted text;
ALTER TABLE tidings.held ADD COLUMN noted text NOT NULL DEFAULT 'nothing';
ALTER TABLE tidings.ready ADD COLUMN noted text;
ALTER TABLE tidings.progress ADD COLUMN noted text;
CREATE INDEX held_noted ON tidings.held (noted);
CREATE TABLE tidings.noted (id text PRIMARY KEY);
"""
"""All that a next version may do: add."""

NEWER = [*migrations.known(), ("9999_next", NEXT)]


class Placed(Event, name="migrations.placed", key="order"):
    order: str
    number: int


def new_store(url: str) -> PostgresStore:
    return open_store(url, World(system_clock, random.Random(), uuid7_ids))


async def migrate(url: str) -> None:
    made = new_store(url)
    await made.open(migrate=True)
    await made.close()


def make(url: str) -> Service:
    service = Service("old", store=url)
    service.schema("CREATE TABLE IF NOT EXISTS effect (handler text, id integer)")

    @service.subscribe(Placed, ordered=True)
    async def book(event: Placed, tx: Transaction) -> None:
        await tx.execute("INSERT INTO effect VALUES ('book', $1)", event.number)
        if event.number % 20 == 0 and tx.attempt == 1:  # each holds its key for a second
            raise RuntimeError("held, and tried again")

    @service.subscribe(Placed)
    async def send(event: Placed, work: Work) -> None:
        async with work.finish() as tx:
            await tx.execute("INSERT INTO effect VALUES ('send', $1)", event.number)

    return service


async def publish_for(service: Service, seconds: float, first: int) -> int:
    number, until = first, time.monotonic() + seconds
    while time.monotonic() < until:
        await service.publish(Placed(order=f"o{number % 3}", number=number))
        number += 1
        await asyncio.sleep(0.005)
    return number


async def test_a_migration_that_adds_leaves_running_workers_alone(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make(postgres_url)
    async with service:
        publishing = asyncio.create_task(publish_for(service, 2, 0))
        await asyncio.sleep(0.5)
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "known", lambda: NEWER)
            await migrate(postgres_url)
        assert await service.fetch_value("SELECT count(*) FROM tidings.meta WHERE name = 'migration:9999_next'") == 1
        published = await publishing
    async with service:  # the previous version starts on the newer store, too
        published = await publish_for(service, 0.3, published)

        async def effects() -> Counter[tuple[str, int]]:
            return Counter(tuple(row) for row in await service.fetch_all("SELECT handler, id FROM effect"))

        expected = Counter({(name, number): 1 for name in ("book", "send") for number in range(published)})
        async with asyncio.timeout(20):
            while await effects() != expected:  # noqa: ASYNC110 - the workers do it
                await asyncio.sleep(0.05)


async def test_a_version_that_needs_more_than_the_store_has_refuses_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(postgres_url)
    monkeypatch.setattr(migrations, "known", lambda: NEWER)
    with pytest.raises(StoreVersionError, match="9999_next"):
        await new_store(postgres_url).open(migrate=False)


async def test_a_migration_that_waits_for_a_table_keeps_nobody_waiting_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(store, "MIGRATION_PAUSE", 0.1)
    await migrate(postgres_url)
    old = new_store(postgres_url)
    await old.open(migrate=False)
    reader: Any = await asyncpg.connect(postgres_url)
    monkeypatch.setattr(migrations, "known", lambda: NEWER)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT 1 FROM tidings.log LIMIT 1")
            migrating = asyncio.create_task(migrate(postgres_url))
            for number in range(10):
                await asyncio.sleep(0.1)
                async with asyncio.timeout(2):
                    await old.publish([envelope(f"e{number}")])
            assert not migrating.done()
        await migrating
        monkeypatch.setattr(store, "MIGRATION_TRIES", 2)
        monkeypatch.setattr(migrations, "known", lambda: [*NEWER, ("9999_third", "ALTER TABLE tidings.log ADD x text")])
        async with reader.transaction():
            await reader.fetch("SELECT 1 FROM tidings.log LIMIT 1")
            with pytest.raises(StoreBusyError):
                await migrate(postgres_url)
    finally:
        await reader.close()
        await old.close()


async def test_a_schema_that_an_administrator_has_made_asks_for_no_right_to_make_one(postgres_url: str) -> None:
    admin = await asyncpg.connect(postgres_url)
    role = f"owner_{random.randrange(10**12)}"
    await admin.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA tidings AUTHORIZATION {role}")
    try:
        made = new_store(postgres_url.replace("postgres@", f"{role}@", 1))
        await made.open(migrate=True)
        await made.publish([envelope("e1")])
        assert await made.reading.head() == 1
        await made.close()
    finally:
        await admin.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
        await admin.close()
