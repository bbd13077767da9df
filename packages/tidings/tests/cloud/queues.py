"""Queues and topics of a test's own, made as `tidings topology apply` makes them, or by AWS's own client."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import botocore.session

from tidings.backends.sqs import open_topology
from tidings.service import system_clock, uuid7_ids
from tidings.world import World


def client(service: str, endpoint: str) -> Any:
    """Return AWS's own client, which blocks."""
    return botocore.session.get_session().create_client(service, endpoint_url=endpoint)


def made(*urls: str) -> None:
    """Make what the URLs of transports name; also where an event loop runs."""
    world = World(system_clock, Random(), uuid7_ids)

    async def make() -> None:
        for url in urls:
            await open_topology(url, world).apply()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result()
