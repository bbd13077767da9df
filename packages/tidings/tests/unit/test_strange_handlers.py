"""Handlers that raise, publish or do strange things harm nobody but their own event."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tidings import (
    Event,
    EventEncodeError,
    LeaseLostError,
    RetryPolicy,
    Service,
    ServiceError,
    SyncWork,
    Transaction,
    TransactionClosedError,
    Work,
)
from tidings.events import derive_id
from tidings.testing import harness

ONCE = RetryPolicy(attempts=1)


class Asked(Event, name="strange.asked", version=1, key="name"):
    """Something was asked for."""

    name: str


class Told(Event, name="strange.told", version=1, key="name"):
    """It was told."""

    name: str


def service() -> Service:
    made = Service("strange", store="sqlite:///:memory:")
    made.schema("CREATE TABLE IF NOT EXISTS told (name TEXT)")
    made.register(Told)
    return made


async def cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(9))
    task.cancel()
    await task


async def generator_exit() -> None:
    raise GeneratorExit


async def undecodable() -> None:
    raise ValueError("caf\udce9.txt")


@pytest.mark.parametrize("strange", [cancelled, generator_exit, undecodable])
@pytest.mark.parametrize("shape", ["transaction", "work"])
async def test_what_a_handler_raises_is_a_dead_letter_and_others_flow(strange: Any, shape: str) -> None:
    made = service()

    @made.subscribe(Asked, name="in_transaction", retry=ONCE)
    async def in_transaction(event: Asked, tx: Transaction) -> None:
        if event.name == "strange" and shape == "transaction":
            await strange()
        await tx.execute("INSERT INTO told VALUES ($1)", event.name)

    @made.subscribe(Asked, name="as_work", retry=ONCE)
    async def as_work(event: Asked, work: Work) -> None:
        if event.name == "strange" and shape == "work":
            await strange()

    async with harness(made) as h:
        await h.publish(Asked(name="strange"))
        await h.publish(Asked(name="plain"))
        await h.settled()
        assert len(h.dead_letters()) == 1
        assert "plain" in [row[0] for row in await made.fetch_all("SELECT name FROM told")]


async def test_stop_iteration_of_a_plain_function_is_a_failure() -> None:
    made = service()

    @made.subscribe(Asked, retry=ONCE)
    def ask(event: Asked, work: SyncWork) -> None:
        next(iter(()))

    async with harness(made) as h:
        await h.publish(Asked(name="a"))
        await h.settled()
        (letter,) = h.dead_letters()
        assert "StopIteration" in letter.failures[-1].message


async def test_an_id_that_no_envelope_may_carry_is_refused_where_it_is_published() -> None:
    made = service()
    async with made:
        for bad in ("\udc80", "x" * 256, "a\nb"):
            with pytest.raises(EventEncodeError):
                await made.publish(Asked(name="a"), id=bad)
        with pytest.raises(ServiceError, match="9999"):
            await made.publish(Asked(name="a"), delay=timedelta.max)


async def test_a_traceparent_that_is_none_is_refused_where_it_is_published() -> None:
    made = service()
    async with made:
        for bad in ("", "00-ab", "x" * 9999, "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01"):
            with pytest.raises(EventEncodeError, match="W3C"):
                await made.publish(Asked(name="a"), traceparent=bad)
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert (await made.publish(Asked(name="a"), traceparent=trace)).traceparent == trace


async def test_a_lost_lease_that_a_handler_raises_itself_is_a_failure() -> None:
    made = service()

    @made.subscribe(Asked, retry=ONCE)
    async def ask(event: Asked, work: Work) -> None:
        raise LeaseLostError("somebody else's")

    async with harness(made) as h:
        await h.publish(Asked(name="a"))
        await h.settled()
        (letter,) = h.dead_letters()
        assert "LeaseLostError" in letter.failures[-1].error


async def test_ids_are_the_same_whichever_block_of_a_handler_commits() -> None:
    made, told = service(), []

    @made.subscribe(Asked)
    async def ask(event: Asked, work: Work) -> None:
        for fails in (event.name == "twice", False):
            try:
                async with work.finish() as tx:
                    told.append(tx.publish(Told(name=f"{event.name} first")).id)
                    tx.publish(Told(name=f"{event.name} second"))
                    if fails:
                        raise KeyError
            except KeyError:
                continue
            return

    async with harness(made) as h:
        asked = await h.publish(Asked(name="twice"))
        await h.publish(Asked(name="once"))
        await h.settled()
        assert told[0] == told[1]
        rows = await made.fetch_all("SELECT id FROM tidings_log WHERE causation = $1 ORDER BY position", asked.id)
        assert [row[0] for row in rows] == [derive_id("strange", asked.id, "ask", ordinal) for ordinal in (0, 1)]
        assert len(h.published(Told)) == 4


async def test_blocks_in_a_handler_publish_under_ids_of_their_own() -> None:
    made, tries = service(), []

    @made.subscribe(Asked, retry=RetryPolicy(attempts=2, backoff=timedelta(milliseconds=1)))
    async def ask(event: Asked, work: Work) -> None:
        tries.append(work.attempt)
        try:
            async with made.transaction() as tx:
                tx.publish(Told(name="rolled back"))
                raise KeyError
        except KeyError:
            pass
        async with made.transaction() as tx:
            tx.publish(Told(name="in a block"))
        if work.attempt == 1:
            raise RuntimeError
        async with work.finish() as tx:
            tx.publish(Told(name="at the end"))

    async with harness(made) as h:
        asked = await h.publish(Asked(name="a"))
        await h.settled()
        assert [event.name for event in h.published(Told)] == ["in a block", "in a block", "at the end"]
        rows = await made.fetch_all("SELECT DISTINCT id, causation FROM tidings_log WHERE type = 'strange.told'")
        assert [row[1] for row in rows] == [asked.id] * 3  # at least once, each a fact of its own


async def test_a_transaction_ends_with_its_block_also_when_that_raises() -> None:
    made = service()
    async with made:
        with pytest.raises(KeyError):
            async with made.transaction() as tx:
                raise KeyError
        with pytest.raises(TransactionClosedError):
            await tx.execute("INSERT INTO told VALUES ('late')")
        assert await made.fetch_value("SELECT count(*) FROM told") == 0


async def test_publishing_a_known_id_again_changes_nothing_now_or_later() -> None:
    made = service()
    async with harness(made) as h:
        first = await made.publish(Told(name="a"))
        await made.publish(Told(name="a"), id=first.id)
        await made.publish(Told(name="a"), id=first.id, delay=timedelta(seconds=1))
        await made.publish(Told(name="b"), delay=timedelta(seconds=2))
        await h.advance(timedelta(seconds=5))
        assert [event.name for event in h.published(Told)] == ["a", "b"]


async def test_a_service_runs_once() -> None:
    made = service()
    async with made:
        with pytest.raises(ServiceError, match="runs already"):
            async with made.running():
                pass


async def test_rules_with_more_attempts_than_the_policy_are_obeyed_by_work() -> None:
    made = service()
    tries = 0

    @made.subscribe(
        Asked,
        retry=RetryPolicy(
            attempts=2,
            backoff=timedelta(milliseconds=1),
            rules={TimeoutError: RetryPolicy(attempts=5, backoff=timedelta(milliseconds=1))},
        ),
    )
    async def ask(event: Asked, work: Work) -> None:
        nonlocal tries
        tries += 1
        raise TimeoutError

    async with harness(made) as h:
        await h.publish(Asked(name="a"))
        await h.settled()
        assert tries == 5
        (letter,) = h.dead_letters()
        assert "TimeoutError" in letter.failures[-1].error
