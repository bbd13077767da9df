"""Looks into BullMQ's queue of results with a client of Redis: what waits there, what is complete, what has failed."""

from dataclasses import dataclass

from local_cloud import Place
from redis import Redis as RedisClient


@dataclass(frozen=True)
class Jobs:
    """The ids of the jobs of a queue, all seen at the same moment."""

    kept: frozenset[str]
    completed: frozenset[str]
    failed: frozenset[str]


def jobs(place: Place) -> Jobs:
    """Look at the queue of results. `kept` are those that somebody has yet to complete, also while they are taken."""
    host, _, port = place.redis.partition(":")
    with RedisClient(host=host, port=int(port), decode_responses=True) as redis:
        look = redis.pipeline(transaction=True)
        start = f"bull:{place.name}-results:"
        for name in ("wait", "active", "paused"):
            look.lrange(start + name, 0, -1)
        for name in ("delayed", "prioritized", "completed", "failed"):
            look.zrange(start + name, 0, -1)
        wait, active, paused, delayed, prioritized, completed, failed = look.execute()
    kept = frozenset((*wait, *active, *paused, *delayed, *prioritized))
    return Jobs(kept, frozenset(completed), frozenset(failed))
