"""Envelopes for the broker tests, and what a test does with a transport over and over."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tidings.backends.bullmq import BullMQTransport
from tidings.events import Envelope, envelope_from_json
from tidings.service import system_clock
from tidings.transport import Delivery

Opening = Callable[..., Awaitable[BullMQTransport]]
"""The fixture `opened`: opens the transport of a URL, and closes it after the test."""


def envelope(event_id: str, data: object = None, **attributes: Any) -> Envelope:
    packed = json.dumps(data or {}, ensure_ascii=False).encode()
    return Envelope(
        id=event_id, source="shop", type="shop.order.placed", time=system_clock(), correlation="c", data=packed,
        **attributes,
    )  # fmt: skip


async def received(transport: BullMQTransport, number: int, seconds: float = 20.0, *, settle: bool = True) -> list[Any]:
    """Receive this many deliveries, settled unless told otherwise."""
    found: list[Delivery] = []
    async with asyncio.timeout(seconds):
        while len(found) < number:
            some = await transport.receive(number - len(found))
            found += some
            if settle:
                await transport.settle(some)
    return found


def ids(deliveries: list[Delivery]) -> list[str]:
    return [envelope_from_json(delivery.body).id for delivery in deliveries]


async def none_within(transport: BullMQTransport, seconds: float) -> None:
    """Fail if the transport gives anything within this time."""
    try:
        async with asyncio.timeout(seconds):
            some = await transport.receive(10)
    except TimeoutError:
        return
    raise AssertionError(f"{ids(some)} came, and nothing should")


def now_ms() -> float:
    return time.time() * 1000
