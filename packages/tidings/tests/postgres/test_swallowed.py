"""Handlers that fail among others, and failed statements whose errors are swallowed: Postgres gives all of them up."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from tidings import Event, RetryPolicy, Service, Transaction
from tidings.errors import ConstraintError, StatementError

TABLE = "CREATE TABLE IF NOT EXISTS done (number integer PRIMARY KEY)"
INSERT = "INSERT INTO done VALUES ($1)"


class Numbered(Event, name="swallowed.numbered", version=1):
    number: int


def service_on(url: str) -> Service:
    service = Service("swallowed", store=url)
    service.register(Numbered)
    service.schema(TABLE)
    return service


async def insert_twice(tx: Transaction, number: int) -> None:
    await tx.execute(INSERT, number)
    with suppress(ConstraintError):
        await tx.execute(INSERT, number)


async def test_a_handler_that_swallows_it_fails_alone(postgres_url: str) -> None:
    """Its neighbours in the batch keep what they wrote; it is retried and dies, and never counts as handled."""
    async with service_on(postgres_url) as service, service.transaction() as tx:
        for number in range(10):
            tx.publish(Numbered(number=number))
    service, attempts = service_on(postgres_url), []

    @service.subscribe(Numbered, start="beginning", retry=RetryPolicy(attempts=2, backoff=timedelta(0)))
    async def handle(event: Numbered, tx: Transaction) -> None:
        if event.number == 4:
            attempts.append(tx.attempt)
            await insert_twice(tx, event.number)
        else:
            await tx.execute(INSERT, event.number)

    async with service, asyncio.timeout(20):
        while not await service.fetch_value("SELECT count(*) FROM tidings.held WHERE state = 'dead'"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while await service.fetch_value("SELECT count(*) FROM done") < 9:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        rows = await service.fetch_all("SELECT number FROM done ORDER BY number")
    assert [row[0] for row in rows] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert attempts[-1] == 2


async def test_a_block_that_swallows_it_says_that_nothing_was_committed(postgres_url: str) -> None:
    async with service_on(postgres_url) as service:
        with pytest.raises(StatementError, match="swallowed"):
            async with service.transaction() as tx:
                await insert_twice(tx, 1)
        assert await service.fetch_value("SELECT count(*) FROM done") == 0
        async with service.transaction() as tx:
            await tx.execute(INSERT, 2)
        assert await service.fetch_value("SELECT number FROM done") == 2


async def test_a_batch_without_savepoints_keeps_nothing_of_a_handler_that_failed(postgres_url: str) -> None:
    """It is run again with them: its neighbours write once, and what it wrote before it failed is gone."""
    async with service_on(postgres_url) as service, service.transaction() as tx:
        for number in range(10):
            tx.publish(Numbered(number=number))
    service, calls = service_on(postgres_url), list[tuple[int, int]]()

    @service.subscribe(Numbered, start="beginning", retry=RetryPolicy(attempts=2, backoff=timedelta(0)))
    async def handle(event: Numbered, tx: Transaction) -> None:
        calls.append((event.number, tx.attempt))
        await tx.execute(INSERT, event.number + (100 if event.number == 4 and tx.attempt == 1 else 0))
        if event.number == 4 and tx.attempt == 1:
            raise LookupError("the first attempt")

    async with service, asyncio.timeout(20):
        while await service.fetch_value("SELECT count(*) FROM done") < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        rows = await service.fetch_all("SELECT number FROM done ORDER BY number")
    assert [row[0] for row in rows] == list(range(10))
    assert calls.count((4, 1)) == 2, "the batch was run again"
    assert calls.count((4, 2)) == 1
