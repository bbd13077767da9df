"""A function that does what its event says, for the tests of the runtime."""

import os
import sys
import time
from typing import Any


def handler(event: dict[str, Any], context: Any) -> Any:
    what = event.get("do")
    if what == "raise":
        raise ValueError("as was asked")
    if what == "exit":
        os._exit(7)
    if what == "sleep":
        time.sleep(60)
    if what == "say":
        print("said", flush=True)
    if "Records" in event:
        return records(event)
    return {
        "event": event, "pid": os.getpid(), "left": context.get_remaining_time_in_millis(),
        "request": context.aws_request_id, "arn": context.invoked_function_arn, "name": context.function_name,
        "memory": context.memory_limit_in_mb, "python": sys.version_info[:2], "trace": os.environ["_X_AMZN_TRACE_ID"],
    }  # fmt: skip


def records(event: dict[str, Any]) -> Any:
    """Note what came, and give back what says so."""
    found = [(record["body"], record["messageId"]) for record in event["Records"]]
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(" ".join(body for body, _ in found) + "\n")
    return {"batchItemFailures": [{"itemIdentifier": number} for body, number in found if body.startswith("bad")]}
