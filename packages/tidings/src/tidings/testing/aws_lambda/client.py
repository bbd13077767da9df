"""A runtime client of our own, where AWS's is not: `python -m tidings.testing.aws_lambda.client module.handler`.

It asks the runtime API named by AWS_LAMBDA_RUNTIME_API for one event after the other, as AWS's client does.
"""

import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

API = "/2018-06-01/runtime"

Handler = Callable[[Any, "Context"], Any]


class Context:
    """What a handler gets besides the event, as far as it does not come from AWS alone."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn", "")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
        self._deadline_ms = int(headers["lambda-runtime-deadline-ms"])

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function is killed."""
        return max(self._deadline_ms - time.time_ns() // 1_000_000, 0)


class RuntimeApi:
    """One connection to the runtime API."""

    def __init__(self, place: str) -> None:
        self._connection = HTTPConnection(place)  # asking for the next event blocks without a limit

    def next(self) -> tuple[bytes, dict[str, str]]:
        """Wait for the next event; return it and its headers, their names in small letters."""
        self._connection.request("GET", f"{API}/invocation/next")
        answer = self._connection.getresponse()
        return answer.read(), {name.lower(): value for name, value in answer.getheaders()}

    def post(self, path: str, body: Any) -> None:
        """Post a result or an error."""
        self._connection.request("POST", f"{API}/{path}", json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 202:
            raise RuntimeError(f"The runtime API answered {answer.status} to {path}.")


def run(api: RuntimeApi, name: str) -> None:
    """Load a handler named `module.function`, and let it handle events until this process is ended."""
    try:
        handler = _load(name)
    except BaseException as error:
        api.post("init/error", _told(error))
        raise
    while True:
        body, headers = api.next()
        request = headers["lambda-runtime-aws-request-id"]
        os.environ["_X_AMZN_TRACE_ID"] = headers.get("lambda-runtime-trace-id", "")
        try:
            result = handler(json.loads(body), Context(headers))
        except Exception as error:
            logging.getLogger("tidings").error("The function failed.", exc_info=error)
            api.post(f"invocation/{request}/error", _told(error))
        else:
            api.post(f"invocation/{request}/response", result)


def _load(name: str) -> Handler:
    module, _, function = name.rpartition(".")
    handler: Handler = getattr(importlib.import_module(module.replace("/", ".")), function)
    return handler


def _told(error: BaseException) -> dict[str, Any]:
    lines = traceback.format_tb(error.__traceback__)
    return {"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": lines}


if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", os.getcwd()))
    logging.basicConfig(format="[%(levelname)s] %(message)s")
    run(RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"]), sys.argv[1])
