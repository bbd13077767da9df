"""AWS Lambda: a service's subscriptions as the function of an SQS event source, without a store."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from tidings.backends.no_store import open_store
from tidings.claims import redeem
from tidings.consuming.outcomes import Outcomes
from tidings.consuming.pipeline import Pipeline
from tidings.consuming.storeless import StorelessRunner, Turn, check_storeless
from tidings.errors import ServiceError, TidingsError
from tidings.events import Envelope
from tidings.integrations.aws_records import Record, lines_of, read_event, read_records
from tidings.publishing.producer import Producer
from tidings.service import Service, open_blobs

log = logging.getLogger("tidings")

CUT_SECONDS = 0.5
"""So long handlers that are cut off may take to clean up, within the margin."""

Response = dict[str, list[dict[str, str]]]
"""`{"batchItemFailures": [{"itemIdentifier": messageId}, …]}`: what is not named there is acknowledged."""


class Context(Protocol):
    """What AWS Lambda gives a function besides the event."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function is killed."""


def lambda_handler(service: Service, *, outcomes: str, margin: timedelta = timedelta(seconds=1)) -> "LambdaHandler":
    """Return the function that AWS Lambda calls with messages of SQS: `handler = lambda_handler(service, outcomes=…)`.

    `outcomes` is the URL of the blobs where each subscription's decision about an event is written once, such as
    `s3://bucket/prefix`. What it publishes goes over the service's transport. `margin` before the function's time-out,
    handlers that still run are cut off and their messages given back. The service's store is not used. Raises
    HandlerError for handlers that need one, ServiceError for a URL that is not known.
    """
    return LambdaHandler(service, outcomes, margin.total_seconds())


class LambdaHandler:
    """The function. One event loop and its connections are kept from one invocation to the next."""

    def __init__(self, service: Service, outcomes: str, margin: float) -> None:
        service.resolve()
        check_storeless(service.subscriptions)
        self._service = service
        self._margin = margin
        self._blobs = open_blobs(outcomes, service.world)
        self._places = [one for one in (self._blobs, service.blobs, service.transport) if one is not None]
        self._unopened = list(self._places)
        decided, store = Outcomes(self._blobs, service.world), open_store("none://", service.world)
        producer = Producer(service.name, service.registry, service.world)
        self._runners = [
            StorelessRunner(
                one,
                Pipeline(one, service.registry),
                producer,
                decided,
                service.transport,
                service.blobs,
                store,
                service.world,
            )
            for one in service.subscriptions
        ]
        self._loop = asyncio.Runner()

    def __call__(self, event: Any, context: Context) -> Response:
        """Handle the messages of one invocation; raises ServiceError for what is no batch of SQS messages."""
        records = read_records(event)
        if not records:
            return {"batchItemFailures": []}
        seconds = context.get_remaining_time_in_millis() / 1000 - self._margin
        return self._loop.run(self._handle(records, seconds))

    def close(self) -> None:
        """Disconnect and end the loop. AWS Lambda never asks for it; tests do."""
        self._loop.run(self._close())
        self._loop.close()

    async def _handle(self, records: Sequence[Record], seconds: float) -> Response:
        now = asyncio.get_running_loop().time()
        turn = Turn(now, now + seconds)
        done: set[str] = set()  # ids of messages
        opening = asyncio.create_task(self._open())
        if await _until(turn, [opening]):
            opening.result()  # raises: then no message was touched, and all of them come again
            lines = [asyncio.create_task(self._line(line, turn, done)) for line in lines_of(records)]
            await _until(turn, lines)
            for line in lines:
                if line.done() and not line.cancelled():
                    line.result()  # a defect of ours, if it raises
        failed = [record.id for record in records if record.id not in done]
        if failed:
            log.warning("%d of %d messages are given back.", len(failed), len(records))
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    async def _open(self) -> None:
        while self._unopened:
            await self._unopened[0].open()
            del self._unopened[0]

    async def _close(self) -> None:
        for one in self._places:
            if one not in self._unopened:
                await one.close()

    async def _line(self, line: Sequence[Record], turn: Turn, done: set[str]) -> None:
        """Handle messages one after the other, up to the first that fails."""
        for record in line:
            if not await self._record(record, turn):
                return
            done.add(record.id)

    async def _record(self, record: Record, turn: Turn) -> bool:
        """Say whether a message is done: every subscription that takes its event has published what followed."""
        try:
            envelope = await redeem(read_event(record), self._service.blobs)
            takers = self._takers(envelope, record)
        except TidingsError as error:
            log.error("Message %s cannot be handled here: %s", record.id, error)
            return False
        runs = [runner.deliver(envelope, record.attempt, turn) for runner in takers]
        results = await asyncio.gather(*runs, return_exceptions=True)
        for runner, result in zip(takers, results, strict=True):
            if isinstance(result, BaseException):
                name, about = runner.subscription.name, f"event {envelope.id} ({envelope.type})"
                log.error("%s: %s failed at attempt %d.", name, about, record.attempt, exc_info=result)
        return all(result is None for result in results)

    def _takers(self, envelope: Envelope, record: Record) -> list[StorelessRunner]:
        takers = [runner for runner in self._runners if envelope.type in runner.subscription.types]
        if not takers and self._service.registry.newest(envelope.type) is None:
            raise ServiceError(
                f"no class of this release reads the event {envelope.id} of type {envelope.type}; deploy one that "
                "does, then redrive the dead-letter queue."
            )
        unordered = [one.subscription.name for one in takers if one.subscription.ordered and record.group is None]
        if unordered:
            raise ServiceError(
                f"{unordered[0]} is ordered=True, and {record.queue} is no FIFO queue: let its events come through one "
                "whose groups are their keys; or leave it out, with effects that commute."
            )
        return takers


async def _until(turn: Turn, tasks: Sequence["asyncio.Task[None]"]) -> bool:
    """Wait for tasks; at the turn's end cut off those that still run. Says whether all ended by themselves."""
    left = turn.ends - asyncio.get_running_loop().time()
    _, late = await asyncio.wait(tasks, timeout=max(left, 0))
    for task in late:
        task.cancel()
    if late:
        log.error("The time of this invocation is over: what still runs is cut off, and comes again.")
        await asyncio.wait(late, timeout=CUT_SECONDS)
    return not late
