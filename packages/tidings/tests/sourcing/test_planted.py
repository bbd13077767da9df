"""Bugs that others have shipped, planted into streams and snapshots: each is seen by a test that promises otherwise."""

# ruff: noqa: PT012 - what raises here is the end of a block, not one call

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from account import Account, AccountCreated, Deposit, MoneyDeposited, Withdraw, account

from tidings import NO_STREAM, Event, Service, Snapshots, StreamConflictError
from tidings.backends.postgres import open_store as open_postgres
from tidings.backends.postgres.driver import HeldSession
from tidings.backends.sqlite import open_store as open_sqlite
from tidings.backends.sqlite.statements import log, streams
from tidings.publishing.appending import wrap_for_stream
from tidings.publishing.transaction import Transaction
from tidings.rows import SnapshotRow
from tidings.store import Store
from tidings.testing.conformance import StoreSuite
from tidings.testing.conformance.samples import still_world

S = TypeVar("S")
EAGER = dataclasses.replace(account, snapshots=Snapshots(Account, every=1))
PLAIN = dataclasses.replace(account, snapshots=None)

UPSERT_ON_SQLITE = (
    "INSERT INTO tidings_stream (stream, version) VALUES (?1, ?3 + ?2) ON CONFLICT (stream) "
    "DO UPDATE SET version = version + ?2 WHERE version = ?3 AND archived IS NULL RETURNING version"
)
_FUNCTION = "CREATE OR REPLACE FUNCTION tidings.move_head(text, bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS "
UPSERT_ON_POSTGRES = f"""{_FUNCTION} $$
DECLARE moved bigint;
BEGIN
  INSERT INTO tidings.stream AS s (stream, version) VALUES ($1, coalesce($2, 0) + $3) ON CONFLICT (stream)
    DO UPDATE SET version = s.version + $3 WHERE ($2 IS NULL OR s.version = $2) AND s.archived IS NULL
    RETURNING s.version INTO moved;
  RETURN moved;
END $$
"""
CHECK_THEN_ACT = f"""{_FUNCTION} $$
DECLARE moved bigint;
BEGIN
  IF $2 IS DISTINCT FROM coalesce((SELECT s.version FROM tidings.stream s WHERE s.stream = $1), 0) THEN
    RETURN NULL;
  END IF;
  PERFORM pg_sleep(0.02);
  INSERT INTO tidings.stream AS s (stream, version) VALUES ($1, $3) ON CONFLICT (stream)
    DO UPDATE SET version = s.version + $3 RETURNING s.version INTO moved;
  RETURN moved;
END $$
"""


class Planted(StoreSuite):
    """The suite over a store into which SQL has planted a bug."""

    def __init__(self, url: str, sql: str = "") -> None:
        self._url = url
        self._sql = sql

    def make(self, folder: Path) -> Store:
        opening = open_postgres if self._url.startswith("postgresql") else open_sqlite
        return opening(self._url, still_world())

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Store]:
        async with super().opened(folder) as store:
            if self._sql:
                await store.script(self._sql)
            yield store


async def test_a_head_that_is_upserted(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts "expected 5" on a stream that is not there."""
    monkeypatch.setattr(streams, "_MOVE", UPSERT_ON_SQLITE)
    planted = Planted(store_url, UPSERT_ON_POSTGRES if store_url.startswith("postgresql") else "")
    with pytest.raises(AssertionError):
        await planted.test_an_append_is_taken_at_the_expected_version_only(tmp_path)


async def test_a_head_that_is_looked_at_first_and_moved_later(postgres_url: str, tmp_path: Path) -> None:
    """On SQLite there is one writer at a time, who sees what is."""
    planted = Planted(postgres_url, CHECK_THEN_ACT)
    with pytest.raises(AssertionError):
        await planted.test_of_transactions_at_once_one_wins_and_the_others_go_on(tmp_path)


async def test_columns_of_the_first_event_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What later events say besides is lost."""
    monkeypatch.setattr(log, "present", lambda rows: [n for n, value in enumerate(rows[0]) if value is not None])
    planted = Planted(f"sqlite:///{tmp_path}/planted.db")
    with pytest.raises(AssertionError):
        await planted.test_many_events_at_once_keep_their_order_and_all_that_they_say(tmp_path)


@pytest.mark.parametrize("bug", [lambda rows: rows[::-1], lambda rows: rows[:-1]], ids=["turned", "short"])
async def test_rows_that_are_copied_otherwise(
    bug: Any, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = HeldSession.copy
    monkeypatch.setattr(HeldSession, "copy", lambda self, table, names, rows: copy(self, table, names, bug(rows)))
    with pytest.raises(AssertionError):
        await Planted(postgres_url).test_many_events_at_once_keep_their_order_and_all_that_they_say(tmp_path)


async def append_before_the_check(self: Transaction, stream: str, events: Sequence[Event], *, expected: Any) -> Any:
    """Hand the events to the outbox before the stream's head is looked at."""
    append = wrap_for_stream(self._producer, stream, events, expected, self._cause, self._ids)
    placed = append.placed((append.expected or 0) + len(append.envelopes))
    self._outbox.envelopes.extend(placed)
    statements = await self.statements()
    return placed if await statements.move_head(stream, append.expected, len(placed)) else None


@pytest.mark.parametrize("bug", [False, True], ids=["without", "with"])
async def test_events_that_are_written_before_the_check(
    store_url: str, monkeypatch: pytest.MonkeyPatch, bug: bool
) -> None:
    if bug:
        monkeypatch.setattr(Transaction, "append", append_before_the_check)
    service = Service("bank", store=store_url)
    service.register(MoneyDeposited)
    async with service:
        async with service.transaction() as tx:
            try:
                await tx.append("a-1", [MoneyDeposited(amount=1)], expected=7)
            except Exception:
                assert not bug
        found = [one async for one in service.read_all()]
    assert bool(found) is bug


class TooEarly(Service):
    """Keeps a snapshot of what it is about to append."""

    async def append(self, stream: str, events: Sequence[Event], **options: Any) -> Any:
        """Keep first, append then."""
        loaded = await self.load(EAGER, stream)
        state = EAGER.after(loaded.state, events)  # type: ignore[arg-type]
        assert EAGER.snapshots is not None
        row = EAGER.snapshots.row(stream, EAGER.name, state, loaded.version + len(events), self.world.now())
        await self.store.run(lambda statements: statements.keep_snapshot(row))
        return await super().append(stream, events, **options)


@pytest.mark.parametrize("bug", [False, True], ids=["without", "with"])
async def test_a_snapshot_that_is_newer_than_what_was_read(store_url: str, bug: bool) -> None:
    async with (TooEarly if bug else Service)("bank", store=store_url) as service:
        opening = [AccountCreated(balance=0), MoneyDeposited(amount=100)]
        await Service.append(service, "account-1", opening, expected=NO_STREAM)
        racing = (service.decide(EAGER, Withdraw(account="1", amount=amount), retries=0) for amount in (1, 2, 3, 4))
        await asyncio.gather(*racing, return_exceptions=True)
        # With the bug the snapshot may be ahead of the stream already, and the decision be refused for it.
        with pytest.raises((LookupError, StreamConflictError) if bug else LookupError):
            async with service.transaction() as tx:
                await service.decide(EAGER, Withdraw(account="1", amount=50), tx=tx)
                raise LookupError
        kept = await service.load(EAGER, "account-1")
        read = await service.load(PLAIN, "account-1")
        agrees = (kept.state, kept.version) == (read.state, read.version)
        if bug and agrees:  # the first to keep was the first to append: let the next one fail
            with pytest.raises(Exception, match="was expected"):
                await TooEarly.append(service, "account-1", [MoneyDeposited(amount=9)], expected=99)  # type: ignore[arg-type]
            kept = await service.load(EAGER, "account-1")
            agrees = (kept.state, kept.version) == (read.state, read.version)
    assert agrees is not bug


@pytest.mark.parametrize("bug", [False, True], ids=["without", "with"])
async def test_a_snapshot_whose_version_is_not_checked(
    store_url: str, monkeypatch: pytest.MonkeyPatch, bug: bool
) -> None:
    read = Snapshots.read

    def unchecked(self: Snapshots[S], row: SnapshotRow | None) -> tuple[S, int] | None:
        return read(self, None if row is None else msgspec.structs.replace(row, state_version=self.version))

    if bug:
        monkeypatch.setattr(Snapshots, "read", unchecked)
    # What evolve makes of a deposit has changed, and the state's version was counted up.
    doubling = dataclasses.replace(
        PLAIN, initial=lambda: Account(is_open=True, balance=0), evolve=lambda state, event: Account(True, 7),
        snapshots=Snapshots(Account, every=1, version=2),
    )  # fmt: skip
    async with Service("bank", store=store_url) as service:
        await service.append("account-1", [AccountCreated(balance=0)], expected=NO_STREAM)
        await service.decide(EAGER, Deposit(account="1", amount=100))
        assert ((await service.load(doubling, "account-1")).state.balance == 100) is bug
