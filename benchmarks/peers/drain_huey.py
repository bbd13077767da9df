"""huey on SQLite: one worker thread drains tasks that do nothing. Prints JSON; runs in .venv-bench/huey.

python drain_huey.py FILE COUNT FSYNC(0|1). The rate counts from the first task to the last: start-up is left out.
Of 1, 2 and 4 worker threads one was the fastest.
"""

import json
import sys
import threading
import time
from importlib.metadata import version

from huey import SqliteHuey

path, count, fsync = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
huey = SqliteHuey("bench", filename=path, fsync=fsync)
moments: list[float] = []
finished = threading.Event()


@huey.task()
def nothing(number: int) -> None:
    """Do nothing, and say when."""
    moments.append(time.perf_counter())
    if len(moments) == count:
        finished.set()


for number in range(count):
    nothing(number)
consumer = huey.create_consumer(workers=1, worker_type="thread", periodic=False, check_worker_health=False)
consumer.start()
if not finished.wait(120):
    sys.exit(f"huey ran {len(moments)} of {count} tasks in 120 s")
consumer.stop(graceful=True)
print(json.dumps({"rate": (count - 1) / (moments[-1] - moments[0]), "version": version("huey")}))
