"""Group commit: everyone who publishes now shares one insert, and everyone who appends to a stream."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from tidings.errors import StoreError

FLUSHES = 2
"""Inserts under way at once: the next group fills while the last ones are being made durable."""

MOST_IN_A_GROUP = 1000
"""Publishes of one insert at most."""

I = TypeVar("I")  # noqa: E741 - the item
R = TypeVar("R")


class _Waiting(Struct, Generic[I, R]):
    item: I
    done: "asyncio.Future[R]"


class Groups(Generic[I, R]):
    """Collects items while others are under way, and performs them together. A failed group is rerun one by one.

    `place` says what no two items of a group may share; of those the later ones wait for the next group. What may be
    tried again fails all of them, unless it is of the kind `alone`, which may be one's own.
    """

    def __init__(
        self,
        perform: Callable[[list[I]], Awaitable[Sequence[R]]],
        place: Callable[[I], str] | None = None,
        alone: type[StoreError] | None = None,
    ) -> None:
        self._perform = perform
        self._alone = alone
        self._place = place
        self._waiting: list[_Waiting[I, R]] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._taking = 0  # flushes that will look at what waits once more; a task that is done is still in the set

    async def submit(self, item: I) -> R:
        """Perform an item with the next group; returns once it is durable."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting.append(_Waiting(item, done))
        if self._taking < FLUSHES:
            self._taking += 1
            task = loop.create_task(self._flush())
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        return await done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                await self._perform_group(group)
        except BaseException:
            for waiting in group:
                waiting.done.cancel()
            raise
        finally:
            self._taking -= 1

    def _next_group(self) -> list[_Waiting[I, R]]:
        if self._place is None:
            group, self._waiting = self._waiting[:MOST_IN_A_GROUP], self._waiting[MOST_IN_A_GROUP:]
            return group
        group, left, taken = [], [], set[str]()
        for waiting in self._waiting:
            place = self._place(waiting.item)
            if place in taken or len(group) == MOST_IN_A_GROUP:
                left.append(waiting)
            else:
                group.append(waiting)
            taken.add(place)
        self._waiting = left
        return group

    async def _perform_group(self, group: list[_Waiting[I, R]]) -> None:
        try:
            results = await self._perform([waiting.item for waiting in group])
        except Exception as error:
            if len(group) > 1 and not self._fails_all(error):
                for waiting in group:
                    await self._perform_group([waiting])
                return
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        for waiting, result in zip(group, results, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(result)

    def _fails_all(self, error: Exception) -> bool:
        own = self._alone is not None and isinstance(error, self._alone)
        return isinstance(error, StoreError) and error.retryable and not own

    async def drain(self) -> None:
        """Wait until what was submitted is performed."""
        while self._flushes:
            await asyncio.wait(self._flushes)
