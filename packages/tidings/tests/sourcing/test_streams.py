"""Streams through a service's face: appends, reading by today's classes, archives, what is refused."""

# ruff: noqa: PT012 - what raises here is the end of a block, not one call

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from account import AccountCreated, MoneyDeposited, MoneyWithdrawn

from tidings import (
    ANY,
    NO_STREAM,
    Event,
    EventEncodeError,
    Service,
    ServiceError,
    StreamArchivedError,
    StreamConflictError,
    StreamError,
    Transaction,
)


class Paid(Event, name="till.paid", key="till"):
    """Money was put into a till."""

    till: str
    cents: int


class PaidOnce(Event, name="till.paid_once", keep=timedelta(days=1)):
    """Is forgotten after a day."""


def bank(url: str) -> Service:
    service = Service("bank", store=url)
    service.register(AccountCreated, MoneyDeposited, MoneyWithdrawn, Paid)
    return service


async def events(recorded: Any) -> list[Event]:
    return [one.event async for one in recorded]


async def test_an_append_says_its_versions_and_a_conflict_says_what_to_do(store_url: str) -> None:
    async with bank(store_url) as service:
        written = await service.append("a-1", [AccountCreated(balance=0), MoneyDeposited(amount=100)], expected=0)
        assert [(one.stream, one.stream_version, one.key) for one in written] == [("a-1", 1, "a-1"), ("a-1", 2, "a-1")]
        with pytest.raises(StreamConflictError, match=r"'a-1' was expected to be at version 1, but it is at version 2"):
            await service.append("a-1", [MoneyDeposited(amount=1)], expected=1)
        with pytest.raises(StreamConflictError, match="expected not to exist yet") as caught:
            await service.append("a-1", [MoneyDeposited(amount=1)], expected=NO_STREAM)
        assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("a-1", 0, 2)
        assert caught.value.retryable
        with pytest.raises(StreamConflictError, match="but it does not exist"):
            await service.append("a-2", [MoneyDeposited(amount=1)], expected=5)
        assert await service.stream_version("a-1") == 2
        assert await service.stream_version("a-2") == 0
        (recorded, _) = [one async for one in service.read_stream("a-1")]
        assert (recorded.id, recorded.time, recorded.correlation) == (written[0].id, written[0].time, written[0].id)


async def test_a_conflict_in_a_transaction_leaves_it_as_it_was(store_url: str) -> None:
    async with bank(store_url) as service:
        service_rows = "CREATE TABLE notes (text TEXT)"
        await service.store.script(service_rows)
        await service.append("a-1", [AccountCreated(balance=0)], expected=NO_STREAM)
        async with service.transaction() as tx:
            await tx.execute("INSERT INTO notes VALUES ('before')")
            with pytest.raises(StreamConflictError):
                await tx.append("a-1", [MoneyDeposited(amount=1)], expected=7)
            await tx.execute("INSERT INTO notes VALUES ('after')")
            await tx.append("a-1", [MoneyDeposited(amount=2)], expected=1)
        assert [row[0] for row in await service.fetch_all("SELECT text FROM notes")] == ["before", "after"]
        with pytest.raises(LookupError):
            async with service.transaction() as tx:
                await tx.append("a-1", [MoneyDeposited(amount=3)], expected=2)
                await tx.append("a-new", [MoneyDeposited(amount=4)], expected=NO_STREAM)
                raise LookupError
        assert await events(service.read_all()) == [AccountCreated(balance=0), MoneyDeposited(amount=2)]
        assert await service.stream_version("a-new") == 0


async def test_subscriptions_see_what_is_appended_and_append_what_they_will(store_url: str) -> None:
    service = bank(store_url)
    seen = asyncio.Event()

    @service.subscribe(MoneyDeposited, ordered=True)
    async def mirror(event: MoneyDeposited, tx: Transaction) -> None:
        assert tx.envelope is not None
        assert tx.envelope.stream_version is not None
        await tx.append(f"mirror-of-{tx.envelope.stream}", [MoneyWithdrawn(amount=event.amount)], expected=ANY)
        if event.amount == 3:
            seen.set()

    async with service:
        await service.append("a-1", [MoneyDeposited(amount=n) for n in (1, 2, 3)], expected=NO_STREAM)
        async with asyncio.timeout(20):
            await seen.wait()
            while await service.stream_version("mirror-of-a-1") < 3:  # noqa: ASYNC110 - a row
                await asyncio.sleep(0.01)
        found = [one async for one in service.read_stream("mirror-of-a-1")]
        assert [one.event for one in found] == [MoneyWithdrawn(amount=n) for n in (1, 2, 3)]
        deposits = [one async for one in service.read_stream("a-1")]
        assert [one.causation for one in found] == [one.id for one in deposits]


async def test_old_versions_come_as_todays_class(store_url: str) -> None:
    class PaidNow(Event, name="till.paid", version=2, key="till"):
        """Money was put into a till, in a currency."""

        till: str
        cents: int
        currency: str

    async with bank(store_url) as service:
        await service.append("till-1", [Paid(till="t", cents=5)], expected=NO_STREAM)
        service.register(PaidNow)
        service.upcaster("till.paid", 1)(lambda data: {**data, "currency": "EUR"})
        await service.append("till-1", [PaidNow(till="t", cents=6, currency="USD")], expected=1)
        expected = [PaidNow(till="t", cents=5, currency="EUR"), PaidNow(till="t", cents=6, currency="USD")]
        assert await events(service.read_stream("till-1")) == expected
        assert await events(service.read_all(backward=True)) == expected[::-1]
        (first, _) = [one async for one in service.read_all()]
        record = (await service.store.reading.records([first.position]))[first.position]
        assert record.envelope.key == "t"  # the type says its own


async def test_long_streams_are_read_page_by_page(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.sourcing.stream.PAGE", 7)
    async with bank(store_url) as service:
        for stream in ("a-1", "b-1", "a-2"):
            await service.append(stream, [MoneyDeposited(amount=n) for n in range(1, 31)], expected=NO_STREAM)
        read = service.read_stream

        async def amounts(recorded: Any) -> list[int]:
            return [one.event.amount async for one in recorded]

        assert await amounts(read("a-1")) == list(range(1, 31))
        assert await amounts(read("a-1", after=14)) == list(range(15, 31))
        assert await amounts(read("a-1", before=9, backward=True)) == list(range(8, 0, -1))
        assert await amounts(service.read_all(prefix="a-")) == list(range(1, 31)) * 2
        every = [one async for one in service.read_all()]
        assert [one.position for one in every] == sorted(one.position for one in every)
        assert len(every) == 90
        back = [one.position async for one in service.read_all(backward=True, after=every[9].position)]
        assert back == [one.position for one in every[:9:-1]]
        since = every[30].time
        assert all(one.time >= since for one in [one async for one in service.read_all(since=since)])
        assert len(await amounts(service.read_all(since=since))) >= 60
        assert [head.stream async for head in service.streams("a-")] == ["a-1", "a-2"]
        assert await amounts(read("nothing")) == []


async def test_an_archived_stream_says_so(store_url: str) -> None:
    async with bank(store_url) as service:
        await service.append("a-1", [AccountCreated(balance=0)], expected=NO_STREAM)
        await service.archive_stream("a-1")
        with pytest.raises(StreamArchivedError, match="restore_stream"):
            await service.append("a-1", [MoneyDeposited(amount=1)], expected=ANY)
        with pytest.raises(StreamArchivedError, match="archived=True"):
            await events(service.read_stream("a-1"))
        assert await events(service.read_stream("a-1", archived=True)) == [AccountCreated(balance=0)]
        assert await events(service.read_all()) == []
        await service.restore_stream("a-1")
        await service.append("a-1", [MoneyDeposited(amount=1)], expected=1)
        assert len(await events(service.read_all())) == 2
        with pytest.raises(StreamError, match="no stream 'b'"):
            await service.archive_stream("b")


async def test_what_makes_no_sense_is_refused(store_url: str) -> None:
    async with bank(store_url) as service:
        for stream in ("", "a\nb", "x" * 600):
            with pytest.raises(ServiceError, match="cannot be named"):
                await service.append(stream, [AccountCreated(balance=0)], expected=NO_STREAM)
        with pytest.raises(ServiceError, match="no events"):
            await service.append("a-1", [], expected=NO_STREAM)
        with pytest.raises(ServiceError, match="no version"):
            await service.append("a-1", [AccountCreated(balance=0)], expected=-1)
        with pytest.raises(EventEncodeError, match="keep="):
            await service.append("a-1", [PaidOnce()], expected=NO_STREAM)
        assert await service.stream_version("a-1") == 0
