"""Commands: who obeys them, what comes of one, once for each id, in one's own transaction and in handlers."""

# ruff: noqa: PT012 - what raises here is the end of a block, not one call

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from account import AccountCreated, BankAccount, MoneyDeposited, MoneyWithdrawn, RefusedError
from commanded import STREAM, Note, Noted, Open, Pay, Seen, Take, balance, bank, by_events, notes

from tidings import (
    Aggregate,
    Command,
    HandlerError,
    RequestError,
    Service,
    ServiceError,
    StatementError,
    StreamConflictError,
    StrictJSONError,
    Transaction,
    Work,
)


async def test_a_command_is_obeyed_by_a_decider_an_aggregate_or_a_function(store_url: str) -> None:
    async with bank(store_url) as service:
        opened = await service.execute(Open(account="1", balance=100))
        assert (opened.stream, opened.version, opened.events) == (STREAM, 1, (AccountCreated(balance=100),))
        assert not opened.repeated
        nothing = await service.execute(Open(account="1"))
        assert (nothing.version, nothing.events) == (1, ())
        taken = await service.execute(Take(account="1", amount=30))
        assert (taken.version, taken.events) == (2, (MoneyWithdrawn(amount=30),))
        paid = await service.execute(Pay(account="1", amount=7))
        assert (paid.version, paid.events, await balance(service)) == (3, (MoneyDeposited(amount=7),), 77)
        with pytest.raises(RefusedError, match="the balance is 77"):
            await service.execute(Take(account="1", amount=78))
        noted = await service.execute(Note(text="hello"))
        assert (noted.stream, noted.version, noted.events) == (None, 0, (Noted(text="hello"),))
        with pytest.raises(RefusedError, match="no such note"):
            await service.execute(Note(text="refused"))
        assert await notes(service) == ["hello"]
        assert [row.envelope.type for row in await service.store.reading.recent(0, 99)].count("bank.noted") == 1


async def test_an_id_is_executed_once_whoever_obeys(store_url: str) -> None:
    async with bank(store_url) as service:
        await service.execute(Open(account="1", balance=100))
        first = await service.execute(Take(account="1", amount=60), id="take-1")
        await service.execute(Pay(account="1", amount=1))
        again = await service.execute(Take(account="1", amount=60), id="take-1")  # which would be refused now
        assert again.repeated
        assert (again.version, again.events, again.envelopes) == (first.version, first.events, first.envelopes)
        assert await balance(service) == 41
        for _ in range(2):
            assert (await service.execute(Pay(account="1", amount=2), id="pay-1")).events == (MoneyDeposited(amount=2),)
            assert (await service.execute(Note(text="once"), id="note-1")).events == (Noted(text="once"),)
            assert (await service.execute(Open(account="1"), id="open-1")).version == 4
        assert (await balance(service), await notes(service)) == (43, ["once"])
        with pytest.raises(ServiceError, match="every request has an id of its own"):
            await service.execute(Open(account="2"), id="take-1")
        with pytest.raises(RefusedError):
            await service.execute(Take(account="1", amount=44), id="take-2")
        await service.execute(Pay(account="1", amount=1))
        taken = await service.execute(Take(account="1", amount=44), id="take-2")  # what was refused was not executed
        assert (taken.repeated, await balance(service)) == (False, 0)


async def test_an_id_is_known_by_its_events_after_its_note_was_forgotten(store_url: str) -> None:
    async with bank(store_url) as service:
        await service.execute(Open(account="1", balance=100), id="o")
        first = await service.execute(Take(account="1", amount=60), id="t")
        forgotten = await service.store.run(lambda said: said.forget_admitted(2**60, 1000))
        assert forgotten == 2
        again = await service.execute(Take(account="1", amount=60), id="t")
        assert (again.repeated, again.envelopes, await balance(service)) == (True, first.envelopes, 40)


async def test_a_repeat_finds_what_was_published_also_beside_a_stream_and_later(store_url: str) -> None:
    service = bank(store_url)

    class Remind(Command, stream="account-{account}"):
        """Says something later, and something now, and appends nothing."""

        account: str

    @service.handle(Remind)
    async def remind(command: Remind, tx: Transaction) -> None:
        tx.publish(Noted(text="later"), delay=timedelta(hours=1))
        tx.publish(Noted(text="now"))

    async with service:
        for repeated in (False, True, True):
            done = await service.execute(Remind(account="1"), id="r")
            assert (done.repeated, done.version, done.events) == (repeated, 0, (Noted(text="now"),))


async def test_copies_that_come_together_are_executed_once(store_url: str) -> None:
    async with bank(store_url) as service:
        await service.execute(Open(account="1", balance=1000))
        commands = [Take(account="1", amount=1), Pay(account="1", amount=3), Note(text="n")]
        done = await asyncio.gather(
            *(service.execute(one, id=f"{type(one).__name__}-{n}") for n in range(6) for one in commands * 3)
        )
        assert sum(not one.repeated for one in done) == 18
        assert (await balance(service), await notes(service)) == (1000 - 6 + 18, ["n"] * 6)
        assert await service.stream_version(STREAM) == 13


async def test_a_race_is_decided_again_as_often_as_declared(store_url: str) -> None:
    async with bank(store_url) as service:
        await service.execute(Open(account="1", balance=10))
        results = await asyncio.gather(
            *(service.execute(Take(account="1", amount=1), id=f"t{n}" if n % 2 else None) for n in range(20)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, RefusedError) for one in results) == 10
        assert await balance(service) == 0

        calls: list[int] = []

        class Stamp(Command, stream="account-{account}"):
            """Appends what it has no right to."""

            account: str

        @service.handle(Stamp, retries=2)
        async def stamp(command: Stamp, tx: Transaction) -> None:
            calls.append(1)
            await tx.append(STREAM, [MoneyDeposited(amount=1)], expected=3)

        with pytest.raises(StreamConflictError, match="was expected to be at version 3, but it is at version 11"):
            await service.execute(Stamp(account="1"))
        assert len(calls) == 3


async def test_in_a_transaction_of_ones_own_it_commits_with_the_rest_and_is_undone_alone(store_url: str) -> None:
    async with bank(store_url) as service:
        await service.execute(Open(account="1", balance=100))
        with pytest.raises(LookupError):
            async with service.transaction() as tx:
                await service.execute(Take(account="1", amount=10), id="t", tx=tx)
                raise LookupError
        assert await balance(service) == 100
        async with service.transaction(correlation="chain") as tx:
            await tx.execute("INSERT INTO notes VALUES ('before')")
            taken = await service.execute(Take(account="1", amount=10), id="t", tx=tx)
            assert (taken.repeated, taken.version) == (False, 2)
            within = await service.execute(Take(account="1", amount=10), id="t", tx=tx)
            assert (within.repeated, within.version, within.envelopes) == (True, 2, taken.envelopes)
            with pytest.raises(RefusedError):
                await service.execute(Note(text="refused"), id="n", tx=tx)
            with pytest.raises(RefusedError):
                await service.execute(Take(account="1", amount=91), id="u", tx=tx)
            await service.execute(Note(text="after"), tx=tx)
        assert (await balance(service), await notes(service)) == (90, ["after", "before"])
        assert {one.correlation for one in taken.envelopes} == {"chain"}
        assert not (await service.execute(Take(account="1", amount=90), id="u")).repeated


async def test_one_that_is_cut_off_takes_its_transaction_with_it(store_url: str) -> None:
    async with bank(store_url) as service:
        written = asyncio.Event()

        class Wait(Command):
            """Writes, and does not end."""

        @service.handle(Wait)
        async def wait(command: Wait, tx: Transaction) -> None:
            await tx.execute("INSERT INTO notes VALUES ('half')")
            written.set()
            await asyncio.Event().wait()

        with pytest.raises(StatementError, match="cut off"):
            async with service.transaction() as tx:
                executing = asyncio.ensure_future(service.execute(Wait(), id="w", tx=tx))
                await written.wait()
                executing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await executing
        assert await notes(service) == []


async def test_in_handlers_it_is_part_of_the_delivery_and_known_by_its_cause(store_url: str) -> None:
    service = bank(store_url)
    done = asyncio.Event()

    @service.subscribe(Seen, ordered=True)
    async def take(event: Seen, tx: Transaction) -> None:
        taken = await service.execute(Take(account=event.account, amount=event.amount), tx=tx)
        if tx.attempt == 1:
            raise ConnectionError("once")
        assert [one.id for one in taken.envelopes] == [one.id for one in tx.appended(STREAM)]

    @service.subscribe(Seen)
    async def note(event: Seen, work: Work) -> None:
        await service.execute(Note(text=event.account), id=f"note-{work.idempotency_key}")
        async with work.finish() as tx:
            await service.execute(Note(text="finished"), tx=tx)
        done.set()

    async with service:
        await service.execute(Open(account="1", balance=100))
        seen = await service.publish(Seen(account="1", amount=40))
        async with asyncio.timeout(30):
            await done.wait()
            while await balance(service) != 60:  # noqa: ASYNC110 - a row
                await asyncio.sleep(0.01)
        caused = await service.store.reading.caused_by(seen.correlation)
        assert sorted(one.envelope.type for one in caused) == ["bank.money.withdrawn", "bank.noted", "bank.noted"]
        assert {one.envelope.causation for one in caused} == {seen.id}
        alone = await service.execute(Take(account="1", amount=1))
        keyed = await service.execute(
            Take(account="1", amount=1), id="keyed", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01"
        )
        for one in (alone, keyed):
            assert {(said.correlation, said.causation) for said in one.envelopes} == {(one.id, one.id)}
        assert keyed.id == "keyed"
        assert keyed.envelopes[0].traceparent == "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
        named = await service.execute(Take(account="1", amount=1), correlation="chain")
        assert [(said.correlation, said.causation) for said in named.envelopes] == [("chain", named.id)]


async def test_snapshots_are_kept_with_and_without_an_id(store_url: str) -> None:
    async with bank(store_url) as service:
        await service.execute(Open(account="1", balance=100))
        for number in range(5):
            await service.execute(Take(account="1", amount=1), id=f"t{number}")
        row = await service.store.reading.snapshot_of(STREAM, "account")
        assert row is not None
        assert row.stream_version == 5
        for _ in range(4):
            await service.execute(Take(account="1", amount=1))
        row = await service.store.reading.snapshot_of(STREAM, "account")
        assert row is not None
        assert row.stream_version == 10


async def test_what_does_not_fit_is_refused_before_anything_is_done(store_url: str) -> None:
    read: Any = Take.from_json
    assert read(b'{"account": "1", "amount": 5}') == Take(account="1", amount=5)
    for document in (b'{"account": "1", "amount": 0}', b'{"account": "1"}', b'{"account": 1, "amount": 2}'):
        with pytest.raises(RequestError, match="Take cannot be read: "):
            read(document)
    with pytest.raises(RequestError, match="unknown field `amuont`"):
        read(b'{"account": "1", "amount": 5, "amuont": 6}')
    with pytest.raises(StrictJSONError, match="amount"):
        read(b'{"account": "1", "amount": 5, "amount": 6}')
    async with bank(store_url) as service:
        await service.execute(Open(account="1", balance=100))
        for wrong in (Take(account="1", amount=-5), Take(account="1", amount="5")):  # type: ignore[arg-type]
            with pytest.raises(RequestError, match=r"Take does not fit its class: .*\$\.amount"):
                await service.execute(wrong)
        with pytest.raises(ServiceError, match="A stream cannot be named"):
            await service.execute(Take(account="1\n2", amount=5))
        for command_id in ("", "a\nb", "x" * 300):
            with pytest.raises(Exception, match="cannot be published"):
                await service.execute(Take(account="1", amount=5), id=command_id)
        assert await balance(service) == 100


def test_declarations_that_cannot_work_say_so() -> None:
    service = bank("sqlite:///:memory:")

    class Other(Command):
        """Nobody handles it."""

    with pytest.raises(ServiceError, match="Two handlers for Take: account and account"):
        service.handle(Take, by=by_events)
    with pytest.raises(ServiceError, match="needs command classes"):
        service.handle()
    with pytest.raises(ServiceError, match="retries=-1"):
        service.handle(Other, retries=-1)
    with pytest.raises(ServiceError, match=r"Nobody handles Other.*handles Note, Open, Pay, Take"):
        asyncio.run(service.execute(Other()))
    with pytest.raises(ServiceError, match=r"names \{acount\}, which is no field; there are account"):
        type("Wrong", (Command,), {"__annotations__": {"account": str}}, stream="account-{acount}")
    with pytest.raises(ServiceError, match="unknown class keyword version"):
        type("Wrong", (Command,), {"__annotations__": {}}, version=2)


def test_handlers_tell_their_shape_or_what_is_wrong_with_it() -> None:
    class Other(Command):
        """Nobody handles it."""

    def no_shape(command: Other) -> None: ...
    def sync(command: Other, tx: Transaction) -> None: ...
    async def awaited(command: Other, account: BankAccount) -> None: ...
    async def of_another(command: Take, tx: Transaction) -> None: ...

    said = {
        no_shape: "second parameter",
        sync: "async def sync",
        awaited: "plain `def",
        of_another: "let the two agree",
    }
    for handler, why in said.items():
        again = Service("bank", store="sqlite:///:memory:")
        again.handle(Other)(handler)
        with pytest.raises(HandlerError, match=why):
            again.resolve()

    class Loose(Aggregate):
        """Has no events."""

    again = Service("bank", store="sqlite:///:memory:")
    again.handle(Other, by=Loose.decider())
    with pytest.raises(ServiceError, match="Which stream is Other about"):
        asyncio.run(again.execute(Other()))
