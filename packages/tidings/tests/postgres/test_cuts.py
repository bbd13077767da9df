"""What a lost connection must not do: count as an attempt, or leave work that nobody runs. And services that share."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

from tidings import Event, RetryPolicy, Service, Transaction, Work
from tidings.backends.postgres import PostgresStore
from tidings.consuming.effects import Effects
from tidings.errors import StoreUnavailableError
from tidings.rows import LaneStep, Ready
from tidings.statements import Statements

ONCE = RetryPolicy(attempts=1, backoff=timedelta(milliseconds=20))
"""An attempt that were counted wrongly would be the last."""


class Placed(Event, name="cuts.placed", key="order"):
    order: str


class Paid(Event, name="cuts.paid", key="order"):
    order: str


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await holds():  # noqa: ASYNC110 - other connections do it
            await asyncio.sleep(0.02)


async def own_all_lanes(service: Service, subscription: str, owner: str) -> None:
    """Leave every lane as a worker does that died."""

    async def unit(statements: Statements) -> None:
        steps = await statements.steps(subscription)
        await statements.advance(subscription, [LaneStep(s.lane, s.step + 1, s.position, owner) for s in steps])

    await service.store.run(unit)


async def handle_while_cut(url: str, owner: str | None) -> list[int]:
    """Let a handler's connection be cut in its first run; return the attempts that it saw."""
    seen: list[int] = []
    service = Service("cut", store=url)

    @service.subscribe(Placed, ordered=True, retry=ONCE)
    async def book(event: Placed, tx: Transaction) -> None:
        seen.append(tx.attempt)
        if len(seen) == 1:
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async with service:
        pass
    async with service.running(consumers=False):
        if owner is not None:
            await own_all_lanes(service, "book", owner)
    async with service:
        await service.publish(Placed(order="a"))

        async def is_over() -> bool:
            held = await service.store.reading.held("book", range(1, 9))
            return len(seen) > 1 or any(row.state == "dead" for row in held)

        await until(is_over)
    return seen


@pytest.mark.parametrize("owner", [None, "died"])
async def test_a_cut_connection_is_no_attempt(postgres_url: str, owner: str | None) -> None:
    assert await handle_while_cut(postgres_url, owner) == [1, 1]


async def test_an_attempt_that_was_counted_first_would_count(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Effects, "_noting_cuts", lambda self, *counted: nullcontext())
    assert await handle_while_cut(postgres_url, "died") == [1]


async def test_work_whose_claim_succeeded_unheard_is_run(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = 0
    run = PostgresStore.run

    async def run_and_lose(self: PostgresStore, unit: Callable[[Statements], Awaitable[Any]]) -> Any:
        nonlocal cut
        result = await run(self, unit)
        if not cut and isinstance(result, list) and result and isinstance(result[0], Ready):
            cut += 1
            raise StoreUnavailableError("The connection broke after the commit.")
        return result

    monkeypatch.setattr(PostgresStore, "run", run_and_lose)
    seen: list[int] = []
    service = Service("claims", store=postgres_url)

    @service.subscribe(Placed, retry=ONCE)
    async def deliver(event: Placed, work: Work) -> None:
        seen.append(work.attempt)

    async with service:
        await service.publish(Placed(order="a"))

        async def is_run() -> bool:
            return bool(seen)

        await until(is_run)
    assert (cut, seen) == (1, [1])


async def test_services_share_a_log_and_own_their_tables(postgres_url: str) -> None:
    shop, bank = Service("shop", store=postgres_url), Service("bank", store=postgres_url)
    shop.schema("CREATE TABLE IF NOT EXISTS shop_paid (id text)")
    bank.schema("CREATE TABLE IF NOT EXISTS bank_seen (subscription text, id text)")

    @shop.subscribe(Paid)
    async def note(event: Paid, tx: Transaction) -> None:
        await tx.execute("INSERT INTO shop_paid VALUES ($1)", event.order)

    @bank.subscribe(Placed)
    async def charge(event: Placed, tx: Transaction) -> None:
        await tx.execute("INSERT INTO bank_seen VALUES ('charge', $1)", event.order)
        tx.publish(Paid(order=event.order))

    @bank.subscribe(Placed, ordered=True)
    async def audit(event: Placed, tx: Transaction) -> None:
        await tx.execute("INSERT INTO bank_seen VALUES ('audit', $1)", event.order)

    async with bank, shop:
        for number in range(20):
            await shop.publish(Placed(order=str(number)))

        async def is_over() -> bool:
            return (
                await shop.fetch_value("SELECT count(*) FROM shop_paid") == 20
                and await bank.fetch_value("SELECT count(*) FROM bank_seen") == 40
            )

        await until(is_over)
        rows = await bank.fetch_all("SELECT subscription, count(DISTINCT id) FROM bank_seen GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in rows] == [("audit", 20), ("charge", 20)]
        sources = await bank.fetch_all("SELECT type, min(source), max(source) FROM tidings.log GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in sources] == [("cuts.paid", "bank", "bank"), ("cuts.placed", "shop", "shop")]
