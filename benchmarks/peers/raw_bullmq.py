"""A plain loop that adds BullMQ jobs with redis-py: pipelines of BullMQ's own script, nothing around them."""

import time
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from tidings.events import Envelope, envelope_to_json

SCRIPT = Path(str(distribution("bullmq").locate_file("bullmq/commands/addStandardJob-9.lua"))).read_text("utf-8")
pack = msgspec.msgpack.encode


async def add(port: int, queue: str, envelopes: Sequence[Envelope], width: int) -> float:
    """Add each envelope as a job, `width` in one pipeline; return jobs per second."""
    start = f"bull:{queue}:"
    names = ("wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker")
    keys = [start + name for name in names]
    options = pack({"attempts": 1})
    redis = Redis(port=port, socket_timeout=None)
    sha = await redis.script_load(SCRIPT)
    began = time.perf_counter()
    for first in range(0, len(envelopes), width):
        pipe = redis.pipeline(transaction=False)
        for envelope in envelopes[first : first + width]:
            now = int(time.time() * 1000)
            wrapped = pack([start, envelope.id, envelope.type, now, None, None, None, None, None])
            pipe.evalsha(sha, 9, *keys, wrapped, envelope_to_json(envelope), options, now)
        await pipe.execute()
    seconds = time.perf_counter() - began
    await redis.aclose()
    return len(envelopes) / seconds
