"""A function of AWS Lambda, run by real processes on this machine: as many as its concurrency, started when needed."""

import asyncio
import importlib.util
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from msgspec.structs import replace

from tidings.testing.aws_lambda.environment import Ended, Environment, Result

OWN_CLIENT = "tidings.testing.aws_lambda.client"


def runtime_client() -> str:
    """Return the module of AWS's runtime client where it is installed (on Linux), else of our own."""
    return "awslambdaric" if importlib.util.find_spec("awslambdaric") is not None else OWN_CLIENT


class LambdaFunction:
    """Use it as `async with LambdaFunction("module.handler", folder) as function: await function.invoke(event)`.

    `folder` is where the module lies, `variables` are added to the environment. `timeout` are seconds, after which the
    process is killed; `concurrency` is how many events are handled at a time, each by a process of its own. `client`
    is the module that asks for events, `python` the interpreter: give that of an empty environment, and our own client,
    to run a package as it is deployed. `output`: the file that takes what the processes print. `freezes`: processes
    stand still between events.
    """

    def __init__(
        self,
        handler: str,
        folder: Path,
        *,
        variables: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        concurrency: int = 10,
        client: str | None = None,
        python: Path = Path(sys.executable),
        output: Path | None = None,
        freezes: bool = True,
    ) -> None:
        self.name = handler.partition(".")[0]
        self.timeout = timeout
        self.concurrency = concurrency
        self.environments: list[Environment] = []
        self._command = [str(python), "-m", client or runtime_client(), handler]
        self._folder = folder
        self._variables = {**os.environ, **self._aws_variables(handler), **(variables or {})}
        self._output = output
        self._opened: IO[bytes] | None = None
        self._freezes = freezes
        self._free: list[Environment] = []
        self._places = asyncio.Semaphore(concurrency)

    def _aws_variables(self, handler: str) -> dict[str, str]:
        return {
            "_HANDLER": handler,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "LAMBDA_TASK_ROOT": str(self._folder),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self._folder), os.environ.get("PYTHONPATH", "")))),
            "TIDINGS_FUNCTION_ARN": f"arn:aws:lambda:us-east-1:000000000000:function:{self.name}",
        }

    async def __aenter__(self) -> Self:
        self._opened = open(self._output or os.devnull, "ab")  # noqa: ASYNC230, SIM115 - closed at the end
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(one.end() for one in self.environments))
        self.environments.clear()
        if self._opened is not None:
            self._opened.close()

    async def invoke(self, event: Any) -> Result:
        """Invoke the function with an event, and return what came of it; waits while all processes are at work."""
        async with self._places:
            began = time.monotonic()
            environment, cold = await self._taken()
            try:
                if cold:
                    await environment.start()
                result = await environment.invoke(json.dumps(event).encode(), self.timeout)
            except Ended as error:
                result = Result(None, error.kind, str(error))
            finally:
                await self._let_go(environment)
            return replace(result, cold=cold, seconds=time.monotonic() - began)

    async def _taken(self) -> tuple[Environment, bool]:
        """Return a process that is free, or one that is yet to be started."""
        while self._free:
            environment = self._free.pop()
            if environment.usable:
                return environment, False
            await self._let_go(environment)
        return self._made(), True

    def _made(self) -> Environment:
        assert self._opened is not None, "Use it as `async with LambdaFunction(…) as function`."
        made = Environment(self._command, self._folder, self._variables, self._opened, freezes=self._freezes)
        self.environments.append(made)
        return made

    async def _let_go(self, environment: Environment) -> None:
        if environment.usable:
            self._free.append(environment)
            return
        self.environments.remove(environment)
        await environment.end()
