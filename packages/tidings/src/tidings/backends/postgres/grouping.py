"""Group commit: everyone who publishes now shares one insert."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from tidings.errors import StoreError
from tidings.events import Envelope

FLUSHES = 2
"""Inserts under way at once: the next group fills while the last ones are being made durable."""

MOST_IN_A_GROUP = 1000
"""Events of one insert at most."""


class _Waiting(Struct):
    envelopes: Sequence[Envelope]
    done: asyncio.Future[None]


class Groups:
    """Collects publishes while others are under way, and inserts them together. A failed group is rerun one by one."""

    def __init__(self, insert: Callable[[Sequence[Envelope]], Awaitable[None]]) -> None:
        self._insert = insert
        self._waiting: list[_Waiting] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._taking = 0  # flushes that will look at what waits once more; a task that is done is still in the set

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Insert with the next group; returns once it is durable."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append(_Waiting(envelopes, done))
        if self._taking < FLUSHES:
            self._taking += 1
            task = loop.create_task(self._flush())
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        await done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MOST_IN_A_GROUP], self._waiting[MOST_IN_A_GROUP:]
                await self._insert_group(group)
        except BaseException:
            for waiting in group:
                waiting.done.cancel()
            raise
        finally:
            self._taking -= 1

    async def _insert_group(self, group: list[_Waiting]) -> None:
        try:
            await self._insert([envelope for waiting in group for envelope in waiting.envelopes])
        except Exception as error:
            if len(group) > 1 and not (isinstance(error, StoreError) and error.retryable):
                for waiting in group:
                    await self._insert_group([waiting])
                return
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_result(None)

    async def drain(self) -> None:
        """Wait until what was published is inserted."""
        while self._flushes:
            await asyncio.wait(self._flushes)
