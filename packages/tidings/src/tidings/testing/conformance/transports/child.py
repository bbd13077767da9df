"""A process that the suite kills: `python -m tidings.testing.conformance.transports.child ROLE OPTIONS`."""

import asyncio
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tidings.points import watch
from tidings.testing.conformance.samples import envelope
from tidings.testing.conformance.transports.opening import ids, real_world
from tidings.testing.conformance.transports.talking import Told, listener, teller
from tidings.transport import Transport


def say(fact: object) -> None:
    """Print a fact for the test that started this."""
    print(json.dumps(fact), flush=True)


def transport_of(options: dict[str, Any]) -> Transport:
    """Return the transport that the options name."""
    module, _, name = options["open"].partition(":")
    made: Any = importlib.import_module(module)
    for part in name.split("."):
        made = getattr(made, part)
    transport: Transport = made(options["url"], real_world())
    return transport


async def receive(options: dict[str, Any]) -> None:
    """Receive and settle some, say which; receive some more, say so; then keep them for ever."""
    transport = transport_of(options)
    await transport.open()
    for name, settled in (("settle", True), ("hold", False)):
        had: list[str] = []
        while len(had) < options[name]:
            some = await transport.receive(options[name] - len(had))
            had += ids(some)
            if settled:
                await transport.settle(some)
        say(had)
    await asyncio.Event().wait()


async def send(options: dict[str, Any]) -> None:
    """Send batch after batch; after each say which ids were taken."""
    transport = transport_of(options)
    await transport.open()
    for start in range(0, options["count"], 5):
        batch = [envelope(f"e{number}", key=f"k{number % 3}") for number in range(start, start + 5)]
        assert await transport.send(batch) == []
        say([each.id for each in batch])


async def talk(options: dict[str, Any]) -> None:
    """Run a service of talking.py on a store, publish if told to, and die at the given point."""
    transport = transport_of(options)
    made = {"tell": teller, "listen": listener}[options["service"]](Path(options["store"]), transport)
    async with made as service:
        watch(lambda point: os.kill(os.getpid(), signal.SIGKILL) if point == options["die_at"] else None)
        for number in range(options.get("count", 0)):
            await service.publish(Told(account=f"a{number % 4}", number=number))
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run({"receive": receive, "send": send, "talk": talk}[sys.argv[1]](json.loads(sys.argv[2])))
