"""Step 2 of consuming: the steps around a handler, one list, in order."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from tidings.consuming.executor import Executor, Opened
from tidings.consuming.subscription import TRANSACTION, Subscription, second_hint
from tidings.consuming.threads import Threads
from tidings.consuming.work import SyncWork, Work
from tidings.errors import DeliveryFailedError, DeliveryTimeoutError, UnknownEventTypeError
from tidings.events import Envelope, Event, Registry, decode_event
from tidings.events.declaration import parse_version
from tidings.events.envelope import UNDATED
from tidings.events.event import reader
from tidings.points import ProcessEnd
from tidings.publishing.producer import HANDLING
from tidings.publishing.transaction import SyncTransaction, Transaction

Hand = Transaction | Work
"""What a handler gets besides the event."""

SPARE_THREADS = 8
"""Threads of a subscription with a plain function, besides two for each handler that may run."""

Call = Callable[[Event, Hand], Awaitable[None]]
Step = Callable[[Subscription, Call], Call]


def limit_time(subscription: Subscription, call: Call) -> Call:
    """Step: cancel a handler that goes over its time limit; raises DeliveryTimeoutError."""
    if subscription.time_limit is None:
        return call
    seconds = subscription.time_limit.total_seconds()

    async def limited(event: Event, hand: Hand) -> None:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await call(event, hand)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeliveryTimeoutError(
                f"{subscription.name} took longer than its time limit of {seconds:g} s: make the work smaller, or "
                "raise time_limit."
            ) from error

    return limited


def tell_cause(_: Subscription, call: Call) -> Call:
    """Step: let whatever is published meanwhile know its cause."""

    async def telling(event: Event, hand: Hand) -> None:
        token = HANDLING.set(hand.envelope)
        try:
            await call(event, hand)
        finally:
            HANDLING.reset(token)

    return telling


def fail_plainly(subscription: Subscription, call: Call) -> Call:
    """Step: make whatever a handler raises an Exception, unless this process or its turn is ending."""

    async def plain(event: Event, hand: Hand) -> None:
        try:
            await call(event, hand)
        except (Exception, KeyboardInterrupt, SystemExit, ProcessEnd):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            raise DeliveryFailedError(
                f"{subscription.name} raised {type(error).__name__}, which is no Exception: catch it in the handler."
            ) from error

    return plain


STEPS: tuple[Step, ...] = (tell_cause, limit_time, fail_plainly)
"""Outermost first. A new step is one function here."""


class Pipeline:
    """Runs one subscription's handler for an envelope: decode, the steps, the handler."""

    def __init__(self, subscription: Subscription, registry: Registry) -> None:
        self._name = subscription.name
        self._registry = registry
        # A subscription to one class of a type reads that class; otherwise the newest does, upcast where needed.
        self._into = {cls.__event_type__.name: cls for cls in subscription.events}
        call = _handler_call(subscription)
        for step in reversed(STEPS):
            call = step(subscription, call)
        self._call = call

    def decode(self, envelope: Envelope) -> Event:
        """Return the event; raises ParkedEventError or EventDecodeError."""
        cls = self._into.get(envelope.type)
        if cls is None:
            raise UnknownEventTypeError(f"{self._name} does not take {envelope.type} in this release.")
        return decode_event(envelope, self._registry, cls)

    def decoder(self, name: str, version: str) -> Callable[[bytes], Event]:
        """Return what decodes the data of many events of one type and version; both raise what `decode` does."""
        cls, said = self._into.get(name), parse_version(version)
        if cls is not None and said is not None and said[0] == cls.__event_type__.major:
            return reader(cls).decode
        envelope = Envelope(id="?", source="?", type=name, version=version, time=UNDATED, correlation="?", data=b"")
        return lambda data: self.decode(replace(envelope, data=data))

    def run(self, envelope: Envelope, hand: Hand) -> Awaitable[None]:
        """Decode and handle; raises whatever decoding or the handler raises."""
        return self._call(self.decode(envelope), hand)


def _handler_call(subscription: Subscription) -> Call:
    handler: Callable[..., Any] = subscription.handler
    second = subscription.takes_second
    if subscription.executor is not None and subscription.kind == TRANSACTION:
        return _executor_call(subscription, subscription.executor)
    if subscription.is_async:
        return handler if second else lambda event, _: handler(event)

    # More threads than handlers: one that went over its time limit keeps its thread until it ends by itself.
    threads = Threads(2 * subscription.concurrency + SPARE_THREADS, f"tidings-{subscription.name}")

    async def call_in_thread(event: Event, hand: Hand) -> None:
        loop = asyncio.get_running_loop()
        sync = SyncTransaction(hand, loop) if isinstance(hand, Transaction) else SyncWork(hand, loop)
        args = (event, sync) if second else (event,)
        await threads.call(handler, *args)

    return call_in_thread


def _executor_call(subscription: Subscription, executor: Executor) -> Call:
    handler, second = subscription.handler, subscription.takes_second
    wants_hand = second and second_hint(subscription.name, handler) in executor.hands

    async def call_joined(event: Event, transaction: Hand) -> None:
        assert isinstance(transaction, Transaction)
        opened: Opened = transaction.opened
        face = opened.join(transaction)
        args = (opened.hand if wants_hand else face,) if second else ()
        await opened.call(handler, event, *args)

    return call_joined
