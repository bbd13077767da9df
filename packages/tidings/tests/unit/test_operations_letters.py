"""Dead letters: found by any filter, redriven once however many press, discarded in somebody's name."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidings import Event, OperationError, RetryPolicy, Service, Transaction, Work, operations
from tidings.backends.memory import put
from tidings.operations import Filter
from tidings.world import microseconds

ONCE = RetryPolicy(attempts=1)


class Placed(Event, name="letters.order.placed", key="order_id"):
    order_id: str
    number: int


class Noted(Event, name="letters.order.noted"):
    text: str


def now() -> int:
    return microseconds(datetime.now(UTC))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true within 10 s")


class Shop:
    """A service whose handlers fail while `broken`, and note the order in which they succeed."""

    def __init__(self, folder: Path, *, after_dead: str = "block", ordered: bool = True) -> None:
        self.broken = True
        self.handled: list[tuple[str, int]] = []
        self.service = Service("shop", store=f"sqlite+apsw:///{folder}/log.db")

        async def charge(event: Placed, tx: Transaction) -> None:
            if self.broken:
                raise ValueError(f"Card {event.number} refused")
            self.handled.append((event.order_id, event.number))

        async def note(event: Noted, work: Work) -> None:
            if self.broken:
                raise RuntimeError("no paper")
            self.handled.append((event.text, 0))

        options = {"retry": ONCE, "pause_after": None}
        self.service.subscribe(Placed, ordered=ordered, after_dead=after_dead, **options)(charge)  # type: ignore[arg-type]
        self.service.subscribe(Noted, **options)(note)  # type: ignore[arg-type]

    async def letters(self, **conditions: object) -> list[operations.DeadLetter]:
        return await operations.letters(self.service.store, Filter(**conditions))  # type: ignore[arg-type]

    def dead(self, number: int) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return len(await self.letters()) == number

        return look

    def done(self, number: int) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return len(self.handled) >= number

        return look


async def test_letters_keep_bytes_attributes_and_every_attempt(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.service:
        sent = await shop.service.publish(Placed(order_id="a", number=1))
        await until(shop.dead(1))
        (letter,) = await shop.letters()
        assert letter.event == sent
        assert (letter.subscription, letter.position, letter.state, letter.attempts) == ("charge", 1, "dead", 1)
        (failure,) = letter.failures
        assert (failure.error, failure.message, failure.attempt) == ("ValueError", "Card 1 refused", 1)
        assert 'raise ValueError(f"Card {event.number} refused")' in failure.traceback


async def test_every_filter_narrows(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.service:
        first = await shop.service.publish(Placed(order_id="a", number=1))
        await shop.service.publish(Placed(order_id="b", number=2))
        await shop.service.publish(Noted(text="x"))
        await until(shop.dead(3))
        assert {one.position for one in await shop.letters(subscription="charge")} == {1, 2}
        assert {one.position for one in await shop.letters(type="letters.order.noted")} == {3}
        assert {one.position for one in await shop.letters(key="b")} == {2}
        assert {one.position for one in await shop.letters(error="CARD 2")} == {2}
        assert {one.position for one in await shop.letters(error="runtimeerror")} == {3}
        assert {one.position for one in await shop.letters(event_id=first.id)} == {1}
        assert await shop.letters(since=now() + 1_000_000) == []
        assert len(await shop.letters(since=now() - 60_000_000)) == 3
        assert await shop.letters(states=("parked",)) == []
        assert await shop.letters(subscription="charge", key="b", error="Card 1") == []


async def test_letters_of_several_pages_come_in_the_order_of_the_log(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ordered=False)
    async with shop.service:
        async with shop.service.transaction() as tx:
            for number in range(450):
                tx.publish(Placed(order_id=str(number), number=number))
                tx.publish(Noted(text=f"note {number}"))
        await until(shop.dead(900))
        positions = [letter.position for letter in await shop.letters()]
        assert positions == sorted(positions)
        shop.broken = False
        outcome = await operations.redrive(shop.service.store, Filter(), actor="ann", now=now())
        assert outcome.done == 900
        await until(shop.done(900))
        assert len(set(shop.handled)) == 900


async def test_a_redrive_keeps_the_order_of_a_key(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.service:
        for number in range(1, 6):
            await shop.service.publish(Placed(order_id="a", number=number))
        await until(shop.dead(1))
        shop.broken = False
        outcome = await operations.redrive(shop.service.store, Filter(), actor="ann", now=now())
        assert outcome.done == 1
        await until(shop.done(5))
        assert shop.handled == [("a", number) for number in range(1, 6)]
        assert await shop.letters() == []


async def test_a_redrive_of_many_of_one_key_goes_by_position(tmp_path: Path) -> None:
    shop = Shop(tmp_path, after_dead="continue")
    async with shop.service:
        for number in range(1, 8):
            await shop.service.publish(Placed(order_id="a", number=number))
        await until(shop.dead(7))
        shop.broken = False
        await operations.redrive(shop.service.store, Filter(), actor="ann", now=now())
        await until(shop.done(7))
        assert shop.handled == [("a", number) for number in range(1, 8)]


async def test_two_people_who_press_redrive_send_each_letter_back_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ordered=False)
    operator = Service("shop", store=shop.service.store_url)
    async with shop.service:
        for number in range(40):
            await shop.service.publish(Placed(order_id=str(number), number=number))
        await until(shop.dead(40))
        shop.broken = False
        await operations.pause(shop.service.store, "charge", actor="ann", reason="so that both see the same letters")
        await operator.store.open(migrate=False)
        try:
            outcomes = await asyncio.gather(
                operations.redrive(shop.service.store, Filter(), actor="ann", now=now()),
                operations.redrive(operator.store, Filter(), actor="bob", now=now()),
            )
        finally:
            await operator.store.close()
        assert sum(outcome.done for outcome in outcomes) == 40
        assert sum(outcome.changed for outcome in outcomes) == 40  # both had chosen all of them
        await operations.resume(shop.service.store, "charge")
        await until(shop.done(40))
        await asyncio.sleep(0.1)
        assert sorted(number for _, number in shop.handled) == list(range(40))


async def test_a_rate_spreads_the_redrive(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ordered=False)
    async with shop.service.running():
        for number in range(4):
            await shop.service.publish(Placed(order_id=str(number), number=number))
        await until(shop.dead(4))
        await operations.pause(shop.service.store, "charge", actor="ann", reason="to look at the due times")
        moment = now()
        await operations.redrive(shop.service.store, Filter(), actor="ann", now=moment, rate=2)
        waiting = await shop.letters(states=("retry",))
        assert [one.due for one in waiting] == [moment, moment + 500_000, moment + 1_000_000, moment + 1_500_000]
        assert {one.attempts for one in waiting} == {0}
        assert all(len(one.failures) == 1 for one in waiting)  # what failed before is still told


async def test_a_dry_run_changes_nothing_and_a_limit_takes_the_first(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ordered=False)
    async with shop.service:
        for number in range(3):
            await shop.service.publish(Placed(order_id=str(number), number=number))
        await until(shop.dead(3))
        before = await shop.letters()
        outcome = await operations.redrive(shop.service.store, Filter(), actor="ann", now=now(), dry_run=True)
        assert (outcome.done, await shop.letters()) == (3, before)
        outcome = await operations.discard(
            shop.service.store, Filter(), actor="ann", reason="no", now=now(), dry_run=True
        )
        assert (outcome.done, await shop.letters()) == (3, before)
        shop.broken = False
        outcome = await operations.redrive(shop.service.store, Filter(), actor="ann", now=now(), limit=2)
        assert outcome.done == 2
        await until(shop.done(2))
        assert [letter.position for letter in await shop.letters()] == [3]


async def test_a_discard_keeps_who_and_why_and_frees_the_key(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.service:
        await shop.service.publish(Placed(order_id="a", number=1))
        await shop.service.publish(Placed(order_id="a", number=2))
        await until(shop.dead(1))
        shop.broken = False
        outcome = await operations.discard(shop.service.store, Filter(), actor="ann", reason="a test order", now=now())
        assert outcome.done == 1
        await until(shop.done(1))
        assert shop.handled == [("a", 2)]
        (kept,) = await shop.letters(states=("discarded",))
        assert (kept.actor, kept.reason, len(kept.failures)) == ("ann", "a test order", 1)


async def test_a_discarded_letter_cannot_be_redriven(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.service:
        await shop.service.publish(Placed(order_id="a", number=1))
        await until(shop.dead(1))
        await operations.discard(shop.service.store, Filter(), actor="ann", reason="a test order", now=now())
        with pytest.raises(OperationError, match="Only dead and parked events are redriven, not discarded"):
            await operations.redrive(shop.service.store, Filter(("discarded",)), actor="ann", now=now())
        assert (await operations.redrive(shop.service.store, Filter(), actor="ann", now=now())).done == 0


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("ann", ""), ("ann", "  \t")])
async def test_a_discard_needs_a_name_and_a_reason(tmp_path: Path, actor: str, reason: str) -> None:
    shop = Shop(tmp_path)
    async with shop.service:
        with pytest.raises(OperationError, match="neither is blank"):
            await operations.discard(shop.service.store, Filter(), actor=actor, reason=reason, now=now())


async def test_what_landing_refused_is_discarded_and_never_redriven(tmp_path: Path) -> None:
    service = Service("shop", store=f"sqlite+apsw:///{tmp_path}/log.db", transport="memory://l-out?in=l-in")
    put("l-in", b'{"specversion": "1.0", "id": "x"}')
    async with service:

        async def refused() -> bool:
            return len(await operations.letters(service.store, Filter())) == 1

        await until(refused)
        outcome = await operations.redrive(service.store, Filter(), actor="ann", now=now())
        assert outcome.done == 0
        assert "send it again from its source, or discard it" in outcome.refused[0]
        outcome = await operations.discard(service.store, Filter(), actor="ann", reason="nonsense", now=now())
        assert outcome.done == 1
        assert await operations.letters(service.store, Filter()) == []


async def test_progress_is_told(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ordered=False)
    heard: list[int] = []
    async with shop.service:
        async with shop.service.transaction() as tx:
            for number in range(250):
                tx.publish(Placed(order_id=str(number), number=number))
        await until(shop.dead(250))
        await operations.discard(
            shop.service.store, Filter(), actor="ann", reason="many", now=now(), progress=heard.append
        )
    assert heard == [200, 250]


async def test_a_redriven_work_letter_runs_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.service:
        await shop.service.publish(Noted(text="x"))
        await until(shop.dead(1))
        outcome = await operations.redrive(shop.service.store, Filter(), actor="ann", now=now())
        assert outcome.done == 1

        async def dead_again() -> bool:
            found = await shop.letters()
            return bool(found) and len(found[0].failures) == 2

        await until(dead_again)
        shop.broken = False
        await operations.redrive(shop.service.store, Filter(), actor="ann", now=now())
        await until(shop.done(1))


async def test_redriving_takes_a_subscription_that_waits_for_an_hour(tmp_path: Path) -> None:
    """A dead letter that goes back does not wait for the retry of another."""
    service = Service("shop", store=f"sqlite+apsw:///{tmp_path}/log.db")
    handled: list[int] = []

    @service.subscribe(Placed, retry=RetryPolicy(attempts=2, backoff=timedelta(hours=1), never=(KeyError,)))
    async def charge(event: Placed, tx: Transaction) -> None:
        if event.number == 1:
            raise ValueError("later")
        if event.number == 2 and not handled:
            handled.append(0)
            raise KeyError("never")
        handled.append(event.number)

    async with service:
        await service.publish(Placed(order_id="a", number=1))
        await service.publish(Placed(order_id="b", number=2))

        async def dead() -> bool:
            return len(await operations.letters(service.store, Filter())) == 1

        await until(dead)
        await operations.redrive(service.store, Filter(), actor="ann", now=now())

        async def done() -> bool:
            return handled == [0, 2]

        await until(done)
