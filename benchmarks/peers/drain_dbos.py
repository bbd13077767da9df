"""DBOS on SQLite: a queue of workflows that do nothing. Prints JSON; runs in .venv-bench/dbos.

python drain_dbos.py FILE COUNT. The rate counts from the first workflow's start until every outcome is recorded:
start-up is left out. The queue is polled every 10 ms instead of every second; journal and synchronous are DBOS's own.
"""

import json
import sqlite3
import sys
import threading
import time
from importlib.metadata import version

from dbos import DBOS, DBOSClient

path, count = sys.argv[1], int(sys.argv[2])
moments: list[float] = []
finished = threading.Event()

DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})


@DBOS.workflow()
def nothing(number: int) -> None:
    """Do nothing, and say when."""
    moments.append(time.perf_counter())
    if len(moments) == count:
        finished.set()


DBOS.launch()
client = DBOSClient(system_database_url=f"sqlite:///{path}")
for number in range(count):
    client.enqueue({"queue_name": "bench", "workflow_name": nothing.__qualname__}, number)
DBOS.register_queue("bench", polling_interval_sec=0.01)  # the queue is drained from here on
if not finished.wait(120):
    sys.exit(f"DBOS ran {len(moments)} of {count} workflows in 120 s")
reader = sqlite3.connect(path)
while reader.execute("SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'").fetchone()[0] < count:
    time.sleep(0.1)  # rarely: a reader makes its writers wait
print(json.dumps({"rate": count / (time.perf_counter() - moments[0]), "version": version("dbos")}))
sys.stdout.flush()
DBOS.destroy()
