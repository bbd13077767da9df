"""The look at a Redis before it is trusted with events: does it keep what it took?"""

import logging

from tidings.backends.bullmq.address import Address
from tidings.backends.bullmq.link import Link, command
from tidings.errors import ServiceError

log = logging.getLogger("tidings")

OLDEST = (6, 2)
"""The oldest Redis that BullMQ supports."""


async def check_durability(link: Link, address: Address) -> None:
    """Warn of a Redis that may lose or evict jobs, or refuse it, as the URL says; raises ServiceError."""
    replies = await link.run([command("INFO", section) for section in ("server", "memory", "persistence")])
    said = dict(line.partition(":")[::2] for reply in replies for line in reply.decode().splitlines() if ":" in line)
    wrong = list(_wrong(said))
    if not wrong or address.durable == "ignore":
        return
    text = f"Redis at {address.host}:{address.port} is no safe place for events: {' '.join(wrong)}"
    if address.durable == "require":
        raise ServiceError(f"{text} To start all the same, take durable=require out of the transport's URL.")
    log.warning("%s To be silent about it: durable=ignore in the transport's URL.", text)


def _wrong(said: dict[str, str]) -> list[str]:
    found = []
    version = tuple(int(part) for part in said.get("redis_version", "0").split(".")[:2])
    if version < OLDEST:
        found.append(f"it is version {said.get('redis_version')}, and BullMQ needs {OLDEST[0]}.{OLDEST[1]} or later.")
    policy = said.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"it evicts keys when memory is short ({policy}): CONFIG SET maxmemory-policy noeviction.")
    if said.get("aof_enabled", "1") == "0":
        found.append("without AOF a restart loses what came since the last snapshot: CONFIG SET appendonly yes.")
    return found
