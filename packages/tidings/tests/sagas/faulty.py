"""One service of the example whose handler fails for some orders, before its effects or after them. A test runs it.

FAULTS is JSON: {"SERVICE ORDER": "before" | "after" | "before once" | "after once"}.
"""

import dataclasses
import functools
import importlib
import json
import os
import sys
from datetime import timedelta
from typing import Any

from tidings import RetryPolicy

sys.path.insert(0, os.environ["EXAMPLE"])
name = os.environ["SERVICE"]
service = importlib.import_module(name).service
faults: dict[str, str] = json.loads(os.environ["FAULTS"])


def failing(handler: Any) -> Any:
    @functools.wraps(handler)
    async def wrapped(event: Any, tx: Any) -> None:
        fault = faults.get(f"{name} {event.order_id}", "") if type(event).__name__ in ASKS else ""
        fails = bool(fault) and ("once" not in fault or tx.attempt == 1)
        if fails and fault.startswith("before"):
            raise RuntimeError(fault)
        await handler(event, tx)
        if fails:
            raise RuntimeError(fault)

    return wrapped


ASKS = ("TakePayment", "AllocateStock")
RETRY = RetryPolicy(attempts=3, backoff=timedelta(milliseconds=20))
for one in service.subscriptions:
    if name != "orders":
        service._subscriptions[one.name] = dataclasses.replace(one, handler=failing(one.handler), retry=RETRY)
