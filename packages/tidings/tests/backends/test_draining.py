"""What a broker gives up becomes one dead letter on the right row, and a fact; planted bugs must break a promise."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from draining_place import Asked, Place, at_work, failing_once, until
from msgspec.structs import replace

from tidings import operations
from tidings.backends.memory import put
from tidings.consuming import draining
from tidings.consuming.draining import Draining
from tidings.consuming.relaying import Relaying
from tidings.events import Envelope, envelope_to_json
from tidings.operations import Filter
from tidings.points import DRAINING_POINTS
from tidings.rows import Held, Record
from tidings.statements import Statements
from tidings.testing.conformance.samples import envelope
from tidings.testing.simulation.planting import Patch, planted
from tidings.transport import Delivery

BUGS: dict[str, Callable[[], list[Patch]]] = {}
"""Name -> a bug of draining."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "PAUSE_SECONDS", 0.05)


async def given_up_is_one_letter_and_one_fact(folder: Path) -> None:
    async with at_work(folder) as place:
        await place.service.publish(Asked(customer="c", number=1))
        failed = await place.fail()
        (letter,) = await place.has(letters=1)
        assert (letter.subscription, letter.event) == ("asking:relay", failed)
        assert "gave it up" in letter.reason
        assert place.told == [("c", Asked(customer="c", number=1), letter.reason)]
        await place.service.publish(Asked(customer="c", number=2))  # its key goes on, as in the queue
        assert b'"number":2' in (await place.succeed()).data
        assert not [one for one in place.function._in.messages.values() if b"undelivered" in one.body]


async def each_failed_sending_is_told(folder: Path) -> None:
    async with at_work(folder) as place:
        await place.service.publish(Asked(customer="c", number=1))
        for times in (1, 2, 3):
            await place.fail()
            await place.has(letters=1)
            assert len(place.told) == times
            await place.redrive()
        await place.succeed()
        assert await place.has(letters=0) == []


async def cut_off(folder: Path, point: str) -> None:
    async with failing_once(point) as visits, at_work(folder) as place:
        await place.service.publish(Asked(customer="c", number=1))
        await place.fail()
        await place.has(letters=1)
        await until(lambda: len(visits) > 1)
        await place.has(letters=1)
        assert len(place.told) == 1


async def cut_off_before_the_commit(folder: Path) -> None:
    await cut_off(folder, DRAINING_POINTS[0])


async def cut_off_before_the_acknowledgement(folder: Path) -> None:
    await cut_off(folder, DRAINING_POINTS[1])


async def drained_again_after_a_redrive(folder: Path) -> None:
    """The acknowledgement of the first failure is late: meanwhile its event was redriven, and handled."""
    async with at_work(folder) as place:
        dead = place.service.transport.dead
        settle, late = dead.settle, []

        async def cut(deliveries: Sequence[Delivery]) -> None:
            if not late:
                late.extend(deliveries)
                raise ConnectionResetError("cut off while it was acknowledged")
            await settle(deliveries)

        draining.PAUSE_SECONDS = 1.0  # the fixture puts it back
        dead.settle = cut
        await place.service.publish(Asked(customer="c", number=1))
        await place.fail()
        await until(lambda: late)
        await until(place.letters)
        await place.redrive()
        await place.succeed()
        assert await place.has(letters=0) == []
        assert len(place.told) == 1


async def waits_for_the_relay(folder: Path) -> None:
    """The function is faster than the relay, which has not written down that the event was sent."""
    async with at_work(folder, relay=False) as place:
        await place.service.publish(Asked(customer="c", number=1))
        (sent,) = await place.log()
        put(f"{place.queue}-dead", envelope_to_json(sent), {"message": "first", "reason": "It failed."})
        await asyncio.sleep(0.3)  # several pauses: it was looked at, and waits
        assert await place.letters() == []
        assert len(place.dead._in.messages) == 1
    async with at_work(folder) as place:
        await place.succeed()
        (letter,) = await place.has(letters=1)
        assert letter.event == sent


async def waits_for_what_is_redriven(folder: Path) -> None:
    """Its row is about to be sent again: what an earlier sending came to must not end that."""
    async with at_work(folder) as place:
        await place.service.publish(Asked(customer="c", number=1))
        failed = await place.fail()
        (letter,) = await place.has(letters=1)
    async with at_work(folder, relay=False) as place:
        await place.redrive()
        put(f"{place.queue}-dead", envelope_to_json(failed), {"message": "second", "reason": "It failed."})
        await asyncio.sleep(0.3)
        assert await place.letters() == []
        assert len(place.dead._in.messages) == 1
    async with at_work(folder) as place:
        await place.succeed()
        (again,) = await place.has(letters=1)
        assert again.position == letter.position


async def an_id_of_another_source_is_another_event(folder: Path) -> None:
    async with at_work(folder, relay=False) as place:
        foreign = replace(envelope("same", key="c", source="elsewhere"), time=datetime.now(UTC))
        put(f"{place.queue}-in", envelope_to_json(foreign))
        await until(place.log)
        async with place.service.transaction() as tx:
            tx.publish(Asked(customer="c", number=1), id="same")
    async with at_work(folder) as place:
        await place.fail()
        (letter,) = await place.has(letters=1)
        assert letter.event is not None
        assert (letter.event.source, letter.position) == ("asking", 2)


async def a_discarded_one_stays_so(folder: Path) -> None:
    async with at_work(folder) as place:
        await place.service.publish(Asked(customer="c", number=1))
        failed = await place.fail()
        await place.has(letters=1)
        now = place.service.world.now()
        await operations.discard(place.service.store, Filter(), actor="anna", reason="known", now=now)
        put(f"{place.queue}-dead", envelope_to_json(failed), {"message": "a copy", "reason": "It failed."})
        assert await place.has(letters=0) == []


async def what_the_broker_refuses_for_good_is_told_each_time(folder: Path) -> None:
    async with at_work(folder) as place:
        await place.service.publish(Asked(customer="c", number=1, text="x" * 1_048_500))
        for times in (1, 2):
            (letter,) = await place.has(letters=1)
            await until(lambda times=times: len(place.told) == times)
            assert (letter.attempts, letter.reason) == (1, place.told[-1][2])
            await place.redrive()


PROMISES = (
    given_up_is_one_letter_and_one_fact,
    each_failed_sending_is_told,
    cut_off_before_the_commit,
    cut_off_before_the_acknowledgement,
    drained_again_after_a_redrive,
    waits_for_the_relay,
    waits_for_what_is_redriven,
    an_id_of_another_source_is_another_event,
    a_discarded_one_stays_so,
    what_the_broker_refuses_for_good_is_told_each_time,
)
Promise = Callable[[Path], Awaitable[None]]


def bug(*broken: Promise) -> Callable[[Callable[[], list[Patch]]], Callable[[], list[Patch]]]:
    """Register a bug and the promise that it breaks."""

    def add(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
        name = make.__name__.removeprefix("_")
        BUGS[name], BROKEN[name] = make, broken[0]
        return make

    return add


BROKEN: dict[str, Promise] = {}
"""Name of a bug -> the promise that it breaks."""

_drain, _unit, _give_up = Draining.drain, Draining._unit, Draining._give_up


@bug(cut_off_before_the_commit)
def _acknowledges_before_it_is_written_down() -> list[Patch]:
    async def drain(self: Any, deliveries: Sequence[Delivery]) -> None:
        await self._dead.settle(deliveries)
        await _drain(self, deliveries)

    return [(Draining, "drain", drain)]


@bug(cut_off_before_the_acknowledgement)
def _tells_after_the_acknowledgement() -> list[Patch]:
    """The fact is no part of the transaction that holds the letter."""
    late: list[Envelope] = []

    async def drain(self: Any, deliveries: Sequence[Delivery]) -> None:
        try:
            await _drain(self, deliveries)
            await self._store.run(lambda statements: statements.append(late))
        finally:
            late.clear()

    async def give_up(self: Any, statements: Any, *said: Any) -> bool:
        return await _give_up(self, _Instead(statements, append=_noted(late)), *said)

    return [(Draining, "drain", drain), (Draining, "_give_up", give_up)]


def _noted(kept: list[Envelope]) -> Any:
    async def append(envelopes: Sequence[Envelope]) -> None:
        kept.extend(envelopes)

    return append


class _Instead:
    """Something, but for what is said otherwise."""

    def __init__(self, of: Any, **instead: Any) -> None:
        self._of = of
        vars(self).update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


async def _all(envelopes: Sequence[Envelope], **_: Any) -> Sequence[Envelope]:
    return envelopes


@bug(drained_again_after_a_redrive)
def _holds_whatever_comes() -> list[Patch]:
    """A message that was drained before is a failure anew."""

    async def give_up(self: Any, statements: Any, *said: Any) -> bool:
        return await _give_up(self, _Instead(statements, admit=_all), *said)

    return [(Draining, "_give_up", give_up)]


@bug(each_failed_sending_is_told)
def _knows_events_not_sendings() -> list[Patch]:
    def sending(self: Any, envelope: Envelope, delivery: Delivery) -> Envelope:
        return envelope

    return [(Draining, "_sending", sending)]


@bug(waits_for_the_relay)
def _overtakes_the_relay() -> list[Patch]:
    async def give_up(self: Any, statements: Any, own: Record, delivery: Delivery, steps: Any) -> bool:
        return await _give_up(self, statements, own, delivery, {own.lane: own.position})

    return [(Draining, "_give_up", give_up)]


@bug(waits_for_the_relay)
def _acknowledges_what_waits() -> list[Patch]:
    async def unit(self: Any, statements: Statements, read: Any) -> set[str]:
        await _unit(self, statements, read)
        return set()

    return [(Draining, "_unit", unit)]


@bug(waits_for_what_is_redriven)
def _overtakes_a_redrive() -> list[Patch]:
    return [(draining, "RETRY", "nothing"), (draining, "BEHIND", "nothing")]


@bug(an_id_of_another_source_is_another_event)
def _holds_the_first_row_of_an_id() -> list[Patch]:
    async def own(self: Any, statements: Statements, envelope: Envelope) -> Record | None:
        return next(iter(await statements.find(envelope.id)), None)

    return [(Draining, "_own", own)]


@bug(given_up_is_one_letter_and_one_fact)
def _holds_the_key() -> list[Patch]:
    async def give_up(self: Any, statements: Statements, *said: Any) -> bool:
        async def hold(rows: Sequence[Held]) -> None:
            await statements.hold([replace(row, blocks=True) for row in rows])

        return await _give_up(self, _Instead(statements, hold=hold), *said)

    return [(Draining, "_give_up", give_up)]


@bug(a_discarded_one_stays_so)
def _brings_back_what_was_discarded() -> list[Patch]:
    async def give_up(self: Any, statements: Statements, *said: Any) -> bool:
        return await _give_up(self, _Instead(statements, held=_nothing), *said)

    return [(Draining, "_give_up", give_up)]


@bug(what_the_broker_refuses_for_good_is_told_each_time)
def _tells_no_refusal() -> list[Patch]:
    async def tell(*_: Any) -> None:
        """Nobody hears of it."""

    return [(Relaying, "_tell", tell)]


async def _nothing(*_: Any) -> list[Held]:
    return []


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
async def test_draining_keeps(promise: Promise, tmp_path: Path) -> None:
    await promise(tmp_path)


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_breaks_its_promise(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "patience", 1.0)
    with planted(name, BUGS), pytest.raises((AssertionError, TimeoutError)):
        await BROKEN[name](tmp_path)
