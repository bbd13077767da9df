"""Deciders and aggregates: decisions on what the stream holds, retried or not; snapshots; given, when, then."""

# ruff: noqa: PT012 - what raises here is the end of a block, not one call

import asyncio
import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from account import (
    Account,
    AccountCommand,
    AccountCreated,
    AccountEvent,
    BankAccount,
    Create,
    Deposit,
    MoneyDeposited,
    MoneyWithdrawn,
    RefusedError,
    Withdraw,
    account,
)
from msgspec import Struct

from tidings import NO_STREAM, Decider, EventDefinitionError, Service, ServiceError, Snapshots, StreamConflictError
from tidings.testing import given

STREAM = "account-1"


async def opened(service: Service, balance: int) -> None:
    await service.append(STREAM, [AccountCreated(balance=0), MoneyDeposited(amount=balance)], expected=NO_STREAM)


def test_a_decider_by_given_when_then() -> None:
    begun = given(account, AccountCreated(balance=0), MoneyDeposited(amount=100), MoneyWithdrawn(amount=50))
    assert begun.state == Account(is_open=True, balance=50)
    begun.when(Withdraw(account="1", amount=50)).then(MoneyWithdrawn(amount=50)).then_state(
        Account(is_open=True, balance=0)
    )
    begun.when(Withdraw(account="1", amount=51)).then_raises(RefusedError, "the balance is 50")
    begun.when(Create(account="1")).then_nothing_happened()
    for expect in (
        lambda: begun.when(Withdraw(account="1", amount=51)).then(),
        lambda: begun.when(Withdraw(account="1", amount=50)).then_nothing_happened(),
        lambda: begun.when(Withdraw(account="1", amount=50)).then_raises(RefusedError),
        lambda: begun.when(Withdraw(account="1", amount=51)).then_raises(LookupError),
        lambda: begun.when(Withdraw(account="1", amount=51)).then_raises(RefusedError, "the balance is 49"),
        lambda: begun.when(Withdraw(account="1", amount=50)).then_state(Account(is_open=True, balance=1)),
        lambda: begun.when(Withdraw(account="1", amount=50)).then(MoneyWithdrawn(amount=49)),
    ):
        with pytest.raises(AssertionError, match="expected"):
            expect()


def test_an_aggregate_by_given_when_then() -> None:
    begun = given(BankAccount, AccountCreated(balance=0), MoneyDeposited(amount=100))
    begun.when(lambda one: one.withdraw(50)).then(MoneyWithdrawn(amount=50))
    begun.when(lambda one: one.withdraw(101)).then_raises(RefusedError)
    begun.when(lambda one: one.create()).then_nothing_happened()

    def twice(one: BankAccount) -> None:
        one.withdraw(60)
        one.withdraw(60)  # sees what the first has recorded

    begun.when(twice).then_raises(RefusedError, "the balance is 40")


async def test_decisions_are_appended_and_an_aggregate_reads_the_same(store_url: str) -> None:
    async with Service("bank", store=store_url) as service:
        for command in (Create(account="1"), Deposit(account="1", amount=100), Withdraw(account="1", amount=50)):
            decision = await service.decide(account, command)
        assert (decision.state.balance, decision.version, decision.stream) == (50, 3, STREAM)
        assert [one.stream_version for one in decision.envelopes] == [3]
        assert (await service.decide(account, Create(account="1"))).events == ()
        acted = await service.act(BankAccount, STREAM, lambda one: one.deposit(7))
        assert (acted.state.balance, acted.version) == (57, 4)
        with pytest.raises(RefusedError):
            await service.act(BankAccount, STREAM, lambda one: one.withdraw(58))
        assert await service.stream_version(STREAM) == 4
        with pytest.raises(ServiceError, match="Which stream"):
            await service.decide(account, "open it")  # type: ignore[arg-type]


async def test_who_is_overtaken_decides_again_unless_told_not_to(store_url: str) -> None:
    async with Service("bank", store=store_url) as service:
        await opened(service, 100)
        balances: list[int] = []

        async def interfere() -> None:
            await service.append(STREAM, [MoneyWithdrawn(amount=90)], expected=2)

        class Overtaken(Service):
            """Somebody else appends between the load and the append, once."""

            async def append(self, *args: object, **options: object) -> object:  # type: ignore[override]
                if len(balances) == 1:
                    await interfere()
                return await service.append(*args, **options)  # type: ignore[arg-type]

        def decide(command: AccountCommand, state: Account) -> Sequence[AccountEvent]:
            balances.append(state.balance)
            return account.decide(command, state)  # type: ignore[return-value]

        overtaken = Overtaken("bank", store=store_url)
        overtaken.store = service.store
        careful = replace(account, decide=decide)
        with pytest.raises(RefusedError, match="the balance is 10, and 50"):
            await overtaken.decide(careful, Withdraw(account="1", amount=50))
        assert balances == [100, 10]
        await service.append(STREAM, [MoneyDeposited(amount=90)], expected=3)
        balances.clear()
        with pytest.raises(StreamConflictError):
            await functools.partial(overtaken.decide, careful, Withdraw(account="1", amount=1), retries=0)()
        assert balances == [100]


async def test_a_decision_in_a_transaction_sees_what_it_has_appended(store_url: str) -> None:
    async with Service("bank", store=store_url) as service:
        await opened(service, 100)
        async with service.transaction() as tx:
            await service.decide(account, Withdraw(account="1", amount=60), tx=tx)
            with pytest.raises(RefusedError, match="the balance is 40"):
                await service.decide(account, Withdraw(account="1", amount=60), tx=tx)
            decided = await service.decide(account, Withdraw(account="1", amount=40), tx=tx)
            assert decided.version == 4
        assert await service.load(account, STREAM) == decided_load(4)


def decided_load(version: int) -> object:
    from tidings import Loaded

    return Loaded(Account(is_open=True, balance=0), version)


async def test_snapshots_are_kept_by_policy_and_read(store_url: str) -> None:
    applied: list[int] = []

    def evolve(state: Account, event: AccountEvent) -> Account:
        applied.append(1)
        return account.evolve(state, event)

    counting = replace(account, evolve=evolve, snapshots=Snapshots(Account, every=10))
    async with Service("bank", store=store_url) as service:
        await opened(service, 1000)
        for _ in range(21):
            await service.decide(counting, Withdraw(account="1", amount=1))
        row = await service.store.reading.snapshot_of(STREAM, "account")
        assert row is not None
        assert row.stream_version == 20
        applied.clear()
        loaded = await service.load(counting, STREAM)
        assert (loaded.state.balance, loaded.version, loaded.kept, len(applied)) == (979, 23, 20, 3)
        without = await service.load(replace(counting, snapshots=None), STREAM)
        assert (without.state, without.version) == (loaded.state, loaded.version)


@pytest.mark.parametrize("commits", [True, False])
async def test_a_decision_in_a_transaction_keeps_what_it_read(store_url: str, commits: bool) -> None:
    eager = replace(account, snapshots=Snapshots(Account, every=2))
    async with Service("bank", store=store_url) as service:
        await opened(service, 100)
        try:
            async with service.transaction() as tx:
                await service.decide(eager, Withdraw(account="1", amount=1), tx=tx)
                decision = await service.decide(eager, Withdraw(account="1", amount=1), tx=tx)
                assert (decision.state.balance, decision.version) == (98, 4)
                if not commits:
                    raise RefusedError
        except RefusedError:
            pass
        loaded = await service.load(eager, STREAM)
        plain = await service.load(replace(eager, snapshots=None), STREAM)
        assert (loaded.state, loaded.version) == (plain.state, plain.version)
        assert (loaded.state.balance, loaded.kept) == ((98, 2) if commits else (100, 0))


async def test_a_snapshot_of_another_version_is_ignored_and_rewritten(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Richer(Struct, frozen=True):
        """A state of another shape."""

        total: int
        balance: int = 0

    richer: Decider[int, Richer, AccountEvent] = Decider(
        name="account",
        initial=lambda: Richer(0),
        decide=lambda amount, state: [MoneyDeposited(amount=amount)],
        evolve=lambda state, event: Richer(state.total + 1),
        events=account.events,
        snapshots=Snapshots(Richer, every=2, version=2),
    )
    async with Service("bank", store=store_url) as service:
        await opened(service, 100)
        await service.decide(replace(account, snapshots=Snapshots(Account, every=1)), Withdraw(account="1", amount=1))
        assert (await service.load(richer, STREAM)).state == Richer(3)
        assert (await service.decide(richer, 1, stream=STREAM)).state == Richer(4)
        row = await service.store.reading.snapshot_of(STREAM, "account")
        assert row is not None
        assert (row.state_version, row.stream_version) == (2, 4)
        forgot = replace(account, snapshots=Snapshots(Account, every=1, version=2))  # its version was not counted up
        with caplog.at_level(logging.WARNING, "tidings"):
            assert (await service.load(replace(forgot, snapshots=Snapshots(int, 1, 2)), STREAM)).kept == 0  # type: ignore[type-var]
        assert "count its version up" in caplog.text


async def test_a_lost_race_leaves_no_snapshot_behind(store_url: str) -> None:
    """A snapshot newer than the stream would be what every later decision stands on."""
    eager = replace(account, snapshots=Snapshots(Account, every=1))
    async with Service("bank", store=store_url) as service:
        await opened(service, 100)
        outcomes = await asyncio.gather(
            *(service.decide(eager, Withdraw(account="1", amount=1), retries=0) for _ in range(6)),
            return_exceptions=True,
        )
        lost = sum(isinstance(one, StreamConflictError) for one in outcomes)
        assert lost > 0
        with pytest.raises(LookupError):
            async with service.transaction() as tx:
                await service.decide(eager, Withdraw(account="1", amount=90), tx=tx)
                raise LookupError
        row = await service.store.reading.snapshot_of(STREAM, "account")
        assert row is not None
        assert row.stream_version == await service.stream_version(STREAM) == 2 + 6 - lost
        assert (await service.load(eager, STREAM)).state == (
            await service.load(replace(eager, snapshots=None), STREAM)
        ).state


def test_wrong_declarations_say_so(tmp_path: Path) -> None:
    with pytest.raises(EventDefinitionError, match="both count from 1"):
        Snapshots(Account, every=0)
    with pytest.raises(EventDefinitionError, match="cannot be named"):
        replace(account, name="")
