"""Waits for what comes by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], fits: Callable[[T], object], seconds: float = 15.0) -> T:
    """Look until what is seen fits; return it."""
    async with asyncio.timeout(seconds):
        while True:
            found = await look()
            if fits(found):
                return found
            await asyncio.sleep(0.05)
