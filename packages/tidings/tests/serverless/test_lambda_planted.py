"""Bugs that others have shipped, planted into the function: each must fail a test that the right one passes."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import test_lambda_handler as handling
from printing import Make

from tidings.consuming.outcomes import Outcomes
from tidings.consuming.storeless import StorelessRunner
from tidings.events import Envelope
from tidings.integrations import aws_lambda, aws_records
from tidings.integrations.aws_lambda import LambdaHandler
from tidings.publishing.producer import StableIds
from tidings.testing.simulation.planting import Patch, planted

BUGS: dict[str, Callable[[], list[Patch]]] = {}
BROKEN: dict[str, Callable[..., None]] = {}
"""Name of a bug -> what makes it, and the test that must fail with it."""


def bug(broken: Callable[..., None]) -> Callable[[Callable[[], list[Patch]]], Callable[[], list[Patch]]]:
    """Register a bug and the test that finds it."""

    def add(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
        name = make.__name__.removeprefix("_")
        BUGS[name], BROKEN[name] = make, broken
        return make

    return add


@bug(handling.test_of_a_fifo_queue_the_rest_of_a_group_waits_behind_what_failed)
def _goes_on_in_a_group_after_a_failure() -> list[Patch]:
    async def line(self: Any, records: Sequence[Any], turn: Any, done: set[str]) -> None:
        for record in records:
            if await self._record(record, turn):
                done.add(record.id)

    return [(LambdaHandler, "_line", line)]


@bug(handling.test_of_a_fifo_queue_the_rest_of_a_group_waits_behind_what_failed)
def _acknowledges_what_follows_a_failure() -> list[Patch]:
    line = LambdaHandler._line

    async def rest(self: Any, records: Sequence[Any], turn: Any, done: set[str]) -> None:
        await line(self, records, turn, done)
        done.update(record.id for record in records[1:])

    return [(LambdaHandler, "_line", rest)]


@bug(handling.test_of_a_fifo_queue_the_rest_of_a_group_waits_behind_what_failed)
def _keeps_no_groups() -> list[Patch]:
    return [(aws_lambda, "lines_of", lambda records: [[record] for record in records])]


@bug(handling.test_of_a_standard_queue_only_what_failed_comes_again)
def _loses_the_count_of_attempts() -> list[Patch]:
    return [(aws_records.Record, "attempt", property(lambda _: 1))]


@bug(handling.test_of_a_standard_queue_only_what_failed_comes_again)
def _gives_a_whole_batch_back() -> list[Patch]:
    call = LambdaHandler.__call__

    def all_or_nothing(self: Any, event: Any, context: Any) -> Any:
        found = call(self, event, context)
        every = [{"itemIdentifier": record["messageId"]} for record in event["Records"]]
        return {"batchItemFailures": every if found["batchItemFailures"] else []}

    return [(LambdaHandler, "__call__", all_or_nothing)]


@bug(handling.test_what_followed_is_published_with_the_same_ids_and_facts_when_a_message_comes_again)
def _decides_anew_each_time() -> list[Patch]:
    async def none(self: Any, envelope: Envelope, subscription: str) -> None:
        return None

    return [(Outcomes, "find", none)]


@bug(handling.test_two_functions_that_handle_one_event_at_a_time_publish_one_outcome)
def _publishes_its_own_where_another_was_written() -> list[Patch]:
    decide = Outcomes.decide

    async def own(
        self: Any, envelope: Envelope, subscription: str, attempt: int, events: Sequence[Envelope]
    ) -> Sequence[Envelope]:
        await decide(self, envelope, subscription, attempt, events)
        return events

    return [(Outcomes, "decide", own)]


@bug(handling.test_what_followed_is_published_with_the_same_ids_and_facts_when_a_message_comes_again)
def _takes_what_is_decided_for_published() -> list[Patch]:
    deliver = StorelessRunner.deliver

    async def once(self: Any, envelope: Envelope, attempt: int, turn: Any) -> None:
        if await self._outcomes.find(envelope, self.subscription.name) is None:
            await deliver(self, envelope, attempt, turn)

    return [(StorelessRunner, "deliver", once)]


@bug(handling.test_every_subscription_decides_for_itself)
def _has_one_outcome_for_all_subscriptions() -> list[Patch]:
    find, decide = Outcomes.find, Outcomes.decide

    async def found(self: Any, envelope: Envelope, subscription: str) -> Any:
        return await find(self, envelope, "all")

    async def decided(self: Any, envelope: Envelope, subscription: str, *said: Any) -> Any:
        return await decide(self, envelope, "all", *said)

    return [(Outcomes, "find", found), (Outcomes, "decide", decided)]


@bug(handling.test_what_followed_is_published_with_the_same_ids_and_facts_when_a_message_comes_again)
def _gives_one_id_to_everything() -> list[Patch]:
    return [(StableIds, "next", lambda self: self.named("all"))]


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, invoking: Make, caplog: pytest.LogCaptureFixture) -> None:
    test = BROKEN[name]
    wanted = {"invoking": invoking, "caplog": caplog}
    said = {one: wanted[one] for one in test.__code__.co_varnames[: test.__code__.co_argcount]}
    with planted(name, BUGS), pytest.raises((AssertionError, ValueError)):
        test(**said)
