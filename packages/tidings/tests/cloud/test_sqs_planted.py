"""Bugs that others have shipped, planted into the SQS transport: each breaks a test that the right one passes.

Of the suite's tests that are named here test_sqs_conformance.py runs the right ones.
"""

import hashlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from answering import answering, call_refused, entry_failed
from msgspec.structs import replace
from test_sqs_conformance import OnQueues

from tidings.backends.sqs import open_transport, sending, transport
from tidings.backends.sqs.message import Message, message_of
from tidings.backends.sqs.receiving import Receiving
from tidings.backends.sqs.sending import Sending
from tidings.errors import TransportError
from tidings.events import Envelope, envelope_from_json
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.testing.simulation.planting import Patch, planted
from tidings.transport import Delivery, Refusal
from tidings.world import World

WORLD = World(system_clock, Random(), uuid7_ids)
BUGS: dict[str, Callable[[], list[Patch]]] = {}
BROKEN: dict[str, Callable[[], Awaitable[None]] | str] = {}
"""Name of a bug -> what makes it, and what it breaks: a scenario, or a test of the suite."""


def bug(broken: Callable[[], Awaitable[None]] | str) -> Callable[[Callable[[], list[Patch]]], None]:
    """Register a bug and what it breaks."""

    def add(make: Callable[[], list[Patch]]) -> None:
        name = make.__name__.removeprefix("_")
        BUGS[name], BROKEN[name] = make, broken

    return add


class FIFO(OnQueues):
    """The suite over FIFO queues, with little patience: what a bug loses does not come."""

    kind = ".fifo"
    patience = 3.0


async def sent_to(endpoint: str, *envelopes: Envelope, kind: str = ".fifo") -> list[Refusal]:
    made = open_transport(f"sqs://q{kind}?endpoint={endpoint}", WORLD)
    await made.open()
    try:
        return await made.send(envelopes)
    finally:
        await made.close()


def ids(bodies: Sequence[str]) -> list[str]:
    return [envelope_from_json(body.encode()).id for body in bodies]


async def a_fault_of_the_service_keeps_a_key_in_order() -> None:
    """AWS cannot take the first of three events of a key just now, and could take the others."""
    left = 1

    def once(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        nonlocal left
        failed = [entry_failed(one, "InternalError", sender=False) for one in entries if '"a1"' in one["MessageBody"]]
        failed, left = failed[:left], left - len(failed[:left])
        return failed

    events = [envelope(name, key=name[0]) for name in ("a1", "b1", "a2", "a3", "b2")]
    async with answering(once) as (endpoint, taken):
        refused = await sent_to(endpoint, *events)
        assert {one.event_id: one.retryable for one in refused} == {"a1": True, "a2": True, "a3": True}
        assert sorted(ids(taken)) == ["b1", "b2"]
        again = [one for one in events if one.id in {refusal.event_id for refusal in refused}]
        assert await sent_to(endpoint, *again) == []
        assert [one for one in ids(taken) if one.startswith("a")] == ["a1", "a2", "a3"]


async def one_that_spoils_a_call_is_refused_alone() -> None:
    def unfit(entries: list[dict[str, Any]]) -> Any:
        spoilt = any('"bad"' in entry["MessageBody"] for entry in entries)
        return call_refused("InvalidMessageContents") if spoilt else []

    async with answering(unfit) as (endpoint, taken):
        refused = await sent_to(endpoint, *[envelope(name) for name in ("x", "bad", "y")], kind="")
        assert [(one.event_id, one.retryable) for one in refused] == [("bad", False)]
        assert sorted(ids(taken)) == ["x", "y"]


async def who_is_denied_is_refused_for_now() -> None:
    async with answering(lambda _: call_refused("KmsAccessDenied")) as (endpoint, _):
        refused = await sent_to(endpoint, envelope("a"), kind="")
        assert [(one.event_id, one.retryable) for one in refused] == [("a", True)]


def _said(change: Callable[[Message, Envelope, str], Message]) -> list[Patch]:
    """Return the patch by which messages are made otherwise."""
    return [(transport, "message_of", lambda one, again: change(message_of(one, again), one, again))]


@bug("test_what_was_not_settled_comes_again_after_a_close")
def _acknowledges_before_landing() -> list[Patch]:
    receive = Receiving.receive

    async def receive_and_settle(self: Receiving, limit: int) -> list[Delivery]:
        found = await receive(self, limit)
        await self.settle(found)
        return found

    return [(Receiving, "receive", receive_and_settle)]


@bug("test_what_is_received_keeps_its_key_back_and_no_other")
def _makes_each_event_a_group() -> list[Patch]:
    return _said(lambda message, one, again: replace(message, group=one.id))


@bug("test_one_id_of_two_sources_is_two_events")
def _knows_an_event_by_its_id_alone() -> list[Patch]:
    return _said(lambda message, one, again: replace(message, once=hashlib.sha256(one.id.encode()).hexdigest()))


@bug("test_what_is_sent_again_on_purpose_comes_again")
def _uses_the_deduplication_id_again_after_a_redrive() -> list[Patch]:
    return _said(lambda message, one, again: message_of(one, ""))


@bug("test_one_event_sent_twice_comes_once_within_the_window")
def _makes_a_deduplication_id_for_each_call() -> list[Patch]:
    return _said(lambda message, one, again: replace(message, once=uuid.uuid4().hex))


@bug("test_a_lease_that_is_extended_keeps_the_message")
def _extends_no_visibility() -> list[Patch]:
    async def extend(self: Receiving, deliveries: Sequence[Delivery]) -> None:
        """Says that it did."""

    return [(Receiving, "extend", extend)]


@bug("test_what_is_given_back_comes_again_at_once")
def _gives_nothing_back() -> list[Patch]:
    async def give_back(self: Receiving, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        """Leaves it to the lease."""

    return [(Receiving, "give_back", give_back)]


@bug(a_fault_of_the_service_keeps_a_key_in_order)
def _sends_a_key_in_one_call() -> list[Patch]:
    return [(Sending, "_rounds", lambda self, messages: [messages])]


@bug(a_fault_of_the_service_keeps_a_key_in_order)
def _goes_on_after_a_refused_one() -> list[Patch]:
    before = sending._before
    return [(sending, "_before", lambda message, closed, most: before(message, (), most))]


@bug(a_fault_of_the_service_keeps_a_key_in_order)
def _looks_at_no_entry_of_an_answer() -> list[Patch]:
    async def call(self: Any, messages: Sequence[Message]) -> list[Refusal]:
        await self._made(messages)
        return []

    return [(Sending, "_call", call)]


@bug(a_fault_of_the_service_keeps_a_key_in_order)
def _takes_a_fault_for_a_refusal_for_good() -> list[Patch]:
    refusal = sending._refusal
    return [(sending, "_refusal", lambda message, said: replace(refusal(message, said), retryable=False))]


@bug(one_that_spoils_a_call_is_refused_alone)
def _refuses_a_whole_call_for_one() -> list[Patch]:
    call = Sending._call

    async def whole(self: Any, messages: Sequence[Message]) -> list[Refusal]:
        found = await call(self, messages)
        return [Refusal(message.event_id, found[0].reason, False) for message in messages] if found else []

    return [(Sending, "_call", whole)]


@bug(who_is_denied_is_refused_for_now)
def _takes_denied_for_unfit() -> list[Patch]:
    return [(sending, "PlaceError", LookupError)]


SCENARIOS = (
    a_fault_of_the_service_keeps_a_key_in_order,
    one_that_spoils_a_call_is_refused_alone,
    who_is_denied_is_refused_for_now,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_sending_keeps(scenario: Callable[[], Awaitable[None]], aws_credentials: None) -> None:
    await scenario()


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_found(name: str, aws_endpoint: str, aws_credentials: None, tmp_path: Path) -> None:
    broken = BROKEN[name]
    suite = FIFO()
    suite._there, suite.server, suite.endpoint = set(), None, aws_endpoint
    suite.queue = f"planted-{uuid.uuid4().hex[:8]}"
    with planted(name, BUGS), pytest.raises((AssertionError, TransportError)):
        await (getattr(suite, broken)(tmp_path) if isinstance(broken, str) else broken())
