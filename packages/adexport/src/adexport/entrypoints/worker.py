"""A worker: the consumers without the API, as a further process on the same store."""

from __future__ import annotations

import asyncio
import signal

from adexport.bootstrap import build, running
from adexport.settings import Settings


async def work(settings: Settings) -> None:
    """Run the consumers until SIGTERM or SIGINT, then finish what is under way and return."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(build(settings)):
        await stop.wait()
