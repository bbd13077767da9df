"""BullMQ's own library for Python: adds jobs, or works on those that wait. Prints JSON.

python bullmq_python.py add|work PORT QUEUE COUNT WIDTH: WIDTH is the jobs of one addBulk (1: add), or the worker's
concurrency. The rate of work counts from the first job done to the last. `socket_timeout` is off: with redis-py's own
of 5 seconds its workers hang.
"""

import asyncio
import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any

from bullmq import Queue, Worker

what, port, name, count, width = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
data = json.loads(os.environ.get("PAYLOAD", "{}"))
connection = {"host": "127.0.0.1", "port": port, "socket_timeout": None}
KEPT = {"removeOnComplete": {"count": 1000}}


async def add() -> float:
    """Add jobs one by one or in pieces."""
    queue = Queue(name, {"connection": connection})
    jobs = [
        {"name": "bench.order.placed", "data": {**data, "number": number}, "opts": {"jobId": f"job-{number}", **KEPT}}
        for number in range(count)
    ]
    began = time.perf_counter()
    for first in range(0, count, width):
        if width == 1:
            await queue.add(jobs[first]["name"], jobs[first]["data"], jobs[first]["opts"])
        else:
            await queue.addBulk(jobs[first : first + width])
    seconds = time.perf_counter() - began
    await queue.close()
    return count / seconds


async def work() -> float:
    """Do nothing for each job."""
    moments: list[float] = []
    finished = asyncio.Event()

    async def nothing(job: Any, token: str) -> None:
        pass

    def completed(*_: Any) -> None:
        moments.append(time.perf_counter())
        if len(moments) == count:
            finished.set()

    worker = Worker(name, nothing, {"connection": connection, "concurrency": width, **KEPT})
    worker.on("completed", completed)
    await asyncio.wait_for(finished.wait(), 120)
    await worker.close(force=True)
    return (count - 1) / (moments[-1] - moments[0])


rate = asyncio.run({"add": add, "work": work}[what]())
print(json.dumps({"rate": rate, "version": version("bullmq")}))
