"""Queries over both stores: what they read, that they write nothing, what they wait for, what an event refers to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from accounts import Deposited, balances, bank
from msgspec import Struct

from tidings import (
    ANY,
    Command,
    HandlerError,
    Projection,
    ProjectionLagError,
    Query,
    ReadModel,
    ReadOnly,
    ReferenceBehindError,
    ReferenceGoneError,
    RequestError,
    Service,
    ServiceError,
    StatementError,
    Transaction,
    TransactionHeldTooLongError,
    Work,
)
from tidings.sourcing import replay
from tidings.statements import Statements

pytestmark = pytest.mark.timeout(60)


class BalanceOf(Query[int]):
    """How much is there?"""

    account: str


class Pay(Command, stream="account-{account}"):
    """Pay in."""

    account: str
    cents: int


async def cents(query: BalanceOf, read: ReadOnly) -> int:
    return int(await read.fetch_value("SELECT cents FROM {balances} WHERE account = $1", query.account) or 0)


def paying(service: Service, view: Projection) -> Service:
    service.query(BalanceOf, view)(cents)

    @service.handle(Pay)
    async def pay(command: Pay, tx: Transaction) -> None:
        event = Deposited(account=command.account, cents=command.cents)
        await tx.append(f"account-{command.account}", [event], expected=ANY)

    return service


def slow(service: Service) -> Projection:
    """Declare balances that take their time."""
    view = service.projection("balances", schema="CREATE TABLE IF NOT EXISTS {balances} (account TEXT, cents BIGINT)")

    @view.on(Deposited)
    async def deposited(event: Deposited, model: ReadModel) -> None:
        await asyncio.sleep(0.1)
        await model.execute("INSERT INTO {balances} VALUES ($1, $2)", event.account, event.cents)

    return view


class AsksFirst(Service):
    """Planted: what it reads is as it was before it waited."""

    async def _wait(self, *args: Any) -> None:
        self.waiting = args

    async def _read(self, *args: Any) -> Any:
        plain, wait = self.store.querying, super()._wait

        @asynccontextmanager
        async def too_early() -> AsyncIterator[Statements]:
            async with plain() as statements:
                await statements.live_version("balances")
                await wait(*self.waiting)
                yield statements

        self.store.querying = too_early  # type: ignore[method-assign]
        return await super()._read(*args)


class Writes(Service):
    """Planted: questions are asked in a transaction as any other."""

    async def _read(self, *args: Any) -> Any:
        self.store.querying = self.store.transaction  # type: ignore[method-assign]
        return await super()._read(*args)


@pytest.mark.parametrize("bug", [False, True], ids=["without", "with"])
async def test_an_answer_knows_of_what_was_waited_for(store_url: str, bug: bool) -> None:
    service = (AsksFirst if bug else Service)("bank", store=store_url)
    paying(service, slow(service))
    async with service:
        paid = await service.execute(Pay(account="ann", cents=7))
        answer = await service.ask(BalanceOf(account="ann"), after=paid)
        assert (answer == 7) is not bug
        if not bug:
            said = await service.publish(Deposited(account="ben", cents=5))
            assert await service.ask(BalanceOf(account="ben"), after=said) == 5
            await service.publish(Deposited(account="cat", cents=3))
            position = await service.store.reading.head()
            assert await service.ask(BalanceOf(account="cat"), after=position) == 3


WRITES = (
    "INSERT INTO {balances} VALUES ('x', 1, 1) RETURNING cents",
    "UPDATE {balances} SET cents = 0",
    "DELETE FROM {balances}",
    "DROP TABLE {balances}",
    "WITH gone AS (DELETE FROM {balances} RETURNING 1) SELECT count(*) FROM gone",
)


@pytest.mark.parametrize("bug", [False, True], ids=["without", "with"])
async def test_what_would_write_is_refused(store_url: str, bug: bool) -> None:
    service = (Writes if bug else Service)("bank", store=store_url)
    view = balances(service)
    paying(service, view)

    class Sneaky(Query[int]):
        """Wants more than an answer."""

        sql: str

    @service.query(Sneaky, view)
    async def sneak(query: Sneaky, read: ReadOnly) -> int:
        await read.fetch_all(query.sql)
        return 1

    async with service:
        await service.ask(BalanceOf(account="ann"), after=await service.execute(Pay(account="ann", cents=7)))
        if bug:
            assert await service.ask(Sneaky(sql=WRITES[0])) == 1
        for sql in WRITES if not bug else ():
            with pytest.raises(StatementError):
                await service.ask(Sneaky(sql=sql))
        assert await view.fetch_value("SELECT count(*) FROM {balances}") == (2 if bug else 1)
        assert not hasattr(ReadOnly, "execute")
        if not bug:
            with pytest.raises(ServiceError, match=r"\{totals\} is no table .* which have balances, balances_by_cents"):
                await service.ask(Sneaky(sql="SELECT * FROM {totals}"))


async def test_one_query_sees_one_moment_and_several_at_once(store_url: str) -> None:
    service = bank(store_url)
    view = balances(service)
    paying(service, view)

    class Twice(Query[tuple[int, int]]):
        """Looks two times."""

    looked, go_on = asyncio.Event(), asyncio.Event()

    @service.query(Twice, view)
    async def twice(query: Twice, read: ReadOnly) -> tuple[int, int]:
        first = await read.fetch_value("SELECT coalesce(sum(cents), 0) FROM {balances}")
        looked.set()
        await go_on.wait()
        return int(first), int(await read.fetch_value("SELECT coalesce(sum(cents), 0) FROM {balances}"))

    async with service:
        await service.ask(BalanceOf(account="ann"), after=await service.execute(Pay(account="ann", cents=7)))
        asking = asyncio.ensure_future(service.ask(Twice()))
        await looked.wait()
        later = await service.execute(Pay(account="ann", cents=1))
        assert await service.ask(BalanceOf(account="ann"), after=later) == 8  # beside the one that is still open
        go_on.set()
        assert await asking == (7, 7)
        assert await service.ask(Twice()) == (8, 8)


async def test_the_live_version_is_read_also_when_it_is_swapped_and_dropped_meanwhile(store_url: str) -> None:
    service = bank(store_url)
    balances(service, 1)
    view = balances(service, 2)
    calls: list[int] = []

    class Moves(Query[int]):
        """Counts."""

    @service.query(Moves, view)
    async def moves(query: Moves, read: ReadOnly) -> int:
        calls.append(1)
        if len(calls) == 1:  # before its first statement: the old version goes
            await replay.swap(service.store, "balances", 1, patience=20)
            await service.store.script("DROP TABLE balances_v2")
        return int(await read.fetch_value("SELECT sum(moves) FROM {balances}"))

    async with service:
        await view.wait_until_caught_up(await service.publish(Deposited(account="ann", cents=1)))
        # On SQLite the moment that is read has the old tables still; on Postgres they are gone, and it is asked again.
        assert (await service.ask(Moves()), len(calls)) == (1, 1 if store_url.startswith("sqlite") else 2)


async def test_what_does_not_come_in_time_says_so(store_url: str) -> None:
    service = bank(store_url)
    paying(service, balances(service))
    async with service.running(consumers=False):  # nobody keeps the projection
        late = await service.execute(Pay(account="ann", cents=1))
        with pytest.raises(ProjectionLagError, match=r"balances has not handled position \d+ within 0.2 s"):
            await service.ask(BalanceOf(account="ann"), after=late, patience=timedelta(seconds=0.2))
        assert await service.ask(BalanceOf(account="ann")) == 0


async def test_a_query_that_stays_open_for_too_long_is_ended(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.backends.sqlite.asking.ASKING_SECONDS", 0.2)
    monkeypatch.setattr("tidings.backends.postgres.store.HOLD_LIMIT", 0.2)
    service = bank(store_url)
    view = balances(service)

    class Slow(Query[None]):
        """Forgets to answer."""

    @service.query(Slow, view)
    async def wait(query: Slow, read: ReadOnly) -> None:
        await asyncio.Event().wait()

    async with service:
        with pytest.raises(TransactionHeldTooLongError):
            await service.ask(Slow())


class Order(Struct, frozen=True):
    """An answer with a version."""

    version: int


class OrderById(Query[Order | None]):
    """Which order?"""

    order: str


async def test_a_reference_is_looked_up_as_new_as_the_event_or_newer() -> None:
    service = Service("mail", store="sqlite:///:memory:")
    known = {"new": Order(1), "moved": Order(4)}

    @service.query(OrderById)
    async def over_there(query: OrderById) -> Order | None:
        if query.order == "gone":
            raise ReferenceGoneError("The order was removed.")
        return known.get(query.order)

    assert await service.look_up(OrderById(order="new"), version=1) == Order(1)
    assert (await service.look_up(OrderById(order="moved"), version=3)).version == 4
    with pytest.raises(ReferenceBehindError, match="knows version 4") as caught:
        await service.look_up(OrderById(order="moved"), version=5)
    assert caught.value.retryable
    with pytest.raises(ReferenceBehindError, match="does not know it yet"):
        await service.look_up(OrderById(order="unknown"), version=1)
    with pytest.raises(ReferenceGoneError) as gone:
        await service.look_up(OrderById(order="gone"), version=1)
    assert not gone.value.retryable
    with pytest.raises(ServiceError, match="nobody can be waited for"):
        await service.look_up(OrderById(order="new"), version=1, after=1)


async def test_a_handler_asks_after_the_event_that_it_handles(store_url: str) -> None:
    service = Service("bank", store=store_url)
    paying(service, slow(service))
    found: asyncio.Queue[int] = asyncio.Queue()

    @service.subscribe(Deposited)
    async def tell(event: Deposited, work: Work) -> None:
        found.put_nowait(await service.ask(BalanceOf(account=event.account), after=work.envelope))

    async with service, asyncio.timeout(30):
        await service.publish(Deposited(account="ann", cents=9))
        assert await found.get() == 9


def test_declarations_that_cannot_work_say_so() -> None:
    service = bank("sqlite:///:memory:")
    view = balances(service)
    service.query(BalanceOf, view)(cents)
    with pytest.raises(ServiceError, match="Two handlers for BalanceOf: cents and cents"):
        service.query(BalanceOf, view)(cents)
    with pytest.raises(HandlerError, match="async def cents"):
        service.query(OrderById)(cents)  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match=r"two projections that both have a table \{balances\}"):
        service.query(OrderById, view, balances(service, 2))(cents)  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match=r"Nobody answers OrderById.*answers BalanceOf"):
        asyncio.run(service.ask(OrderById(order="1")))
    with pytest.raises(RequestError, match=r"\$\.account"):
        asyncio.run(service.ask(BalanceOf(account=1)))  # type: ignore[arg-type]
    assert BalanceOf.from_json('{"account": "ann"}') == BalanceOf(account="ann")
