"""Transports with the bugs of others: each must fail the suite, by the test that is there for it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tidings.backends.memory import MemoryTransport, open_transport
from tidings.events import Envelope
from tidings.testing.conformance import TransportSuite
from tidings.transport import Delivery, Refusal
from tidings.world import World


class AcknowledgesFirst(MemoryTransport):
    """Settles what it hands out."""

    async def receive(self, limit: int) -> list[Delivery]:
        found = await super().receive(limit)
        await super().settle(found)
        return found


class Reorders(MemoryTransport):
    """Keeps no order by key, and claims it: of two receivers the second gets what follows."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        refused = await super().send(envelopes)
        for queue in self._out:
            for message in queue.messages.values():
                message.group = None
        return refused


class SendsToTheBackOnGivingBack(MemoryTransport):
    """Puts what is given back behind what has come meanwhile."""

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        for delivery in deliveries:
            found = self._in.of(delivery.receipt)
            if found is not None:
                asyncio.get_running_loop().call_later(delay + 0.1, self._in.put, found.body, {}, found.group)
        await super().settle(deliveries)


class RemembersIdsOnly(MemoryTransport):
    """Takes two events with one id for one, whatever their source."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self._seen: set[str] = set()

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        new = [envelope for envelope in envelopes if envelope.id not in self._seen]
        self._seen.update(envelope.id for envelope in new)
        return await super().send(new)


class LosesWhatIsGivenBack(MemoryTransport):
    """Settles what is given back."""

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        await super().settle(deliveries)


class ComesEarly(MemoryTransport):
    """Rounds delays down."""

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        await super().give_back(deliveries, int(delay))


class SettlesAllBefore(MemoryTransport):
    """Takes an acknowledgement for one of everything before it."""

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        last = max((int(each.receipt.partition(".")[0]) for each in deliveries), default=0)
        before = [message for message in self._in.messages.values() if message.number <= last and message.receipt]
        await super().settle([Delivery(message.receipt, message.body) for message in before])


class SettlesForOthers(MemoryTransport):
    """Knows messages by their number, not by who received them."""

    def _last(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        messages = [self._in.messages.get(int(each.receipt.partition(".")[0])) for each in deliveries]
        return [Delivery(message.receipt, message.body) for message in messages if message is not None]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        await super().settle(self._last(deliveries))


class GivesBackForOthers(SettlesForOthers):
    """Gives back what another is at."""

    settle = MemoryTransport.settle

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        await super().give_back(self._last(deliveries), delay)


class ExtendsNothing(MemoryTransport):
    """Lets a lease end although it is extended."""

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        pass


class LeasesNothing(MemoryTransport):
    """Keeps what a dead receiver had for ever, and claims a lease."""

    async def receive(self, limit: int) -> list[Delivery]:
        self._lease = 1e9
        return await super().receive(limit)


class DropsWhatIsTooLarge(MemoryTransport):
    """Says nothing of what it does not take."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        await super().send(envelopes)
        return []


class TakesWhatFollows(MemoryTransport):
    """Refuses each event by itself: what follows of its key is taken."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        return [one for each in envelopes for one in await super(TakesWhatFollows, self).send([each])]


class DropsUnsampledTraces(MemoryTransport):
    """Carries a trace only where it is sampled."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        bare = [
            replace(each, traceparent=None) if (each.traceparent or "").endswith("-00") else each for each in envelopes
        ]
        return await super().send(bare)


class SpoilsCharacters(MemoryTransport):
    """Carries ASCII."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        return await super().send(
            [replace(each, data=each.data.decode().encode("ascii", "replace")) for each in envelopes]
        )


class LosesOnCancel(MemoryTransport):
    """Takes messages, then waits for something else: cancelled there, it settles nothing and gives nothing back."""

    async def receive(self, limit: int) -> list[Delivery]:
        found = await super().receive(limit)
        await super().settle(found)
        await asyncio.sleep(0.002)
        for delivery in found:
            self._in.put(delivery.body, delivery.headers, None)
        return await super().receive(limit)


class ForgetsWhatItSent(MemoryTransport):
    """Claims a window within which one event comes once, and has none."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        for queue in self._out:
            queue.known.clear()
        refused = []
        for envelope in envelopes:
            refused += await super().send([envelope])
            for queue in self._out:
                queue.known.clear()
        return refused


class SwallowsWhatIsSentAgain(MemoryTransport):
    """Takes what is sent once more on purpose for a repetition."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        return await super().send(envelopes)


class ForgetsItsDead(MemoryTransport):
    """Settles what the broker has given up as soon as somebody looks at it."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        if self.dead is not None:
            self.dead.give_back = self.dead.settle


class SendsTwice(MemoryTransport):
    """Sends every tenth event twice."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        refused = await super().send(envelopes)
        for envelope in envelopes:
            if envelope.id.endswith("7"):
                for queue in self._out:
                    queue.known.clear()
                refused += await super().send([envelope])
        return refused


class ReachesOneQueue(MemoryTransport):
    """Claims fan-out, and sends to the first queue."""

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        self._out = self._out[:1]
        return await super().send(envelopes)


WRONG: list[tuple[type[MemoryTransport], str]] = [
    (AcknowledgesFirst, "test_what_was_not_settled_comes_again_after_a_close"),
    (AcknowledgesFirst, "test_what_is_given_back_comes_again_at_once"),
    (AcknowledgesFirst, "test_a_lease_that_ends_lets_others_have_the_message"),
    (Reorders, "test_several_receivers_settle_each_key_in_its_order"),
    (Reorders, "test_what_is_received_keeps_its_key_back_and_no_other"),
    (SendsToTheBackOnGivingBack, "test_what_is_given_back_with_a_delay_comes_again_before_what_follows_it"),
    (RemembersIdsOnly, "test_one_id_of_two_sources_is_two_events"),
    (LosesWhatIsGivenBack, "test_what_is_given_back_comes_again_at_once"),
    (LosesWhatIsGivenBack, "test_what_is_given_back_comes_again_before_what_follows_it"),
    (ComesEarly, "test_what_is_given_back_with_a_delay_never_comes_early"),
    (SettlesAllBefore, "test_settling_one_settles_no_other"),
    (SettlesForOthers, "test_what_has_come_to_another_stays_theirs[settle]"),
    (GivesBackForOthers, "test_what_has_come_to_another_stays_theirs[give_back]"),
    (ExtendsNothing, "test_a_lease_that_is_extended_keeps_the_message"),
    (LeasesNothing, "test_a_lease_that_ends_lets_others_have_the_message"),
    (LeasesNothing, "test_after_a_lease_ended_the_order_is_what_it_was"),
    (DropsWhatIsTooLarge, "test_the_largest_is_taken_and_what_is_larger_is_refused_alone"),
    (TakesWhatFollows, "test_what_follows_a_refused_one_of_its_key_is_refused_too"),
    (DropsUnsampledTraces, "test_the_trace_of_an_unsampled_event_arrives"),
    (SpoilsCharacters, "test_every_attribute_and_character_stays_as_it_was"),
    (LosesOnCancel, "test_a_receive_that_is_cancelled_has_received_nothing"),
    (ForgetsWhatItSent, "test_one_event_sent_twice_comes_once_within_the_window"),
    (SwallowsWhatIsSentAgain, "test_what_is_sent_again_on_purpose_comes_again"),
    (ForgetsItsDead, "test_what_the_broker_gives_up_is_among_its_dead"),
    (SendsTwice, "test_what_is_sent_comes_and_hardly_anything_comes_twice"),
    (ReachesOneQueue, "test_one_send_reaches_every_queue"),
]


class Suite(TransportSuite):
    """The suite, with little patience: what a wrong transport loses does not come."""

    __test__ = False
    crosses_processes = False
    patience = 2.5

    def url(self, folder: Path, sends: str, receives: str) -> str:
        return f"memory://{sends}?in={receives}&lease={self.lease}&dedup=5"

    def fan_out_url(self, folder: Path, sends: Sequence[str], receives: str) -> str:
        return self.url(folder, ",".join(sends), receives)

    def dead_url(self, folder: Path, sends: str, dead: str) -> str:
        return f"memory://{sends}?in={sends}&dead={dead}&receives=2"


def suite_of(transport: type[MemoryTransport]) -> Suite:
    """Return the suite over a transport, opened as the right one is."""

    def opened(url: str, world: World) -> MemoryTransport:
        right = open_transport(url, world)
        dead = f"{self_name(url)}-dead" if right.dead is not None else ""
        made = transport([], self_name(url), right._lease, right.capabilities.dedup_seconds, dead)
        made._out = right._out
        return made

    made: Suite = type(f"Suite{transport.__name__}", (Suite,), {"open_transport": staticmethod(opened)})()
    return made


def self_name(url: str) -> str:
    """Return the queue that a URL receives from."""
    return url.partition("?in=")[2].partition("&")[0]


async def run(suite: Suite, test: str, folder: Path) -> None:
    """Run one test of a suite; in brackets its parameter."""
    name, _, parameter = test.rstrip("]").partition("[")
    method: Callable[..., Any] = getattr(suite, name)
    await (method(folder, parameter) if parameter else method(folder))


@pytest.mark.parametrize(("wrong", "test"), WRONG, ids=lambda each: getattr(each, "__name__", each))
async def test_a_wrong_transport_fails_where_the_right_one_passes(
    tmp_path: Path, wrong: type[MemoryTransport], test: str
) -> None:
    outcomes = [run(suite_of(each), test, tmp_path) for each in (MemoryTransport, wrong)]
    passed, failed = await asyncio.gather(*outcomes, return_exceptions=True)
    assert passed is None
    assert isinstance(failed, AssertionError)
