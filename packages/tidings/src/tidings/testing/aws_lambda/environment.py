"""One execution environment of a function: its process, and the runtime API that the process asks for events."""

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from aiohttp import web
from msgspec import Struct

API = "/2018-06-01/runtime"

INIT_SECONDS = 10.0
"""So long a function may take to load."""

LARGEST = 6_291_556
"""Bytes of a response at most, as AWS has it."""

CAN_FREEZE = hasattr(signal, "SIGSTOP")


class Result(Struct, frozen=True):
    """What came of one invocation: `payload`, or the `error` with its kind, AWS's own or an exception's name."""

    payload: Any = None
    error_type: str | None = None
    error: str | None = None
    cold: bool = False
    seconds: float = 0.0


class Ended(Exception):  # noqa: N818 - AWS's words for it are in `kind`
    """The process is not there any more, or must be replaced."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Environment:
    """Handles one event at a time. Between two the process stands still, as AWS freezes it (where the system can)."""

    def __init__(
        self, command: Sequence[str], folder: Path, variables: Mapping[str, str], output: IO[bytes], *, freezes: bool
    ) -> None:
        self._command = command
        self._folder = folder
        self._variables = variables
        self._output = output
        self._freezes = freezes and CAN_FREEZE
        self._process: asyncio.subprocess.Process | None = None
        self._exited: asyncio.Future[int] | None = None
        self._runner: web.AppRunner | None = None
        self._next: asyncio.Queue[tuple[str, bytes, int]] = asyncio.Queue()
        self._asked = _future()
        self._answer = _future()
        self._request = ""

    @property
    def pid(self) -> int:
        """The process, 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    @property
    def usable(self) -> bool:
        """Say whether the process has ended its last event and waits for another."""
        runs = self._exited is not None and not self._exited.done()
        return runs and self._asked.done() and self._asked.exception() is None

    async def start(self) -> None:
        """Start the process and wait until it has loaded the function; raises Ended if it cannot."""
        application = web.Application(client_max_size=2 * LARGEST)
        application.router.add_get(f"{API}/invocation/next", self._give)
        application.router.add_post(f"{API}/invocation/{{request}}/response", self._take)
        application.router.add_post(f"{API}/invocation/{{request}}/error", self._take)
        application.router.add_post(f"{API}/init/error", self._fail)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._process = await asyncio.create_subprocess_exec(
            *self._command, cwd=self._folder, stdout=self._output, stderr=self._output,
            env={**self._variables, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._runner.addresses[0][1]}"},
        )  # fmt: skip
        self._exited = asyncio.ensure_future(self._process.wait())
        await self._until(self._asked, INIT_SECONDS)
        self._freeze()

    async def invoke(self, payload: bytes, seconds: float) -> Result:
        """Hand an event over and return what came of it; raises Ended after `seconds`, or when the process ends."""
        self._thaw()
        began = time.monotonic()
        self._asked, self._answer, self._request = _future(), _future(), str(uuid.uuid4())
        self._next.put_nowait((self._request, payload, int((time.time() + seconds) * 1000)))
        result: Result = await self._until(self._answer, seconds)
        # The answer stands; AWS waits for what goes on until the process asks for the next event.
        with contextlib.suppress(Ended):
            await self._until(self._asked, max(seconds - (time.monotonic() - began), 0.1))
            self._freeze()
        return result

    async def end(self) -> None:
        """Kill the process, at once."""
        if self._process is not None and self._exited is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._exited
        if self._runner is not None:
            await self._runner.cleanup()

    async def _until(self, done: "asyncio.Future[Any]", seconds: float) -> Any:
        """Wait for what the process shall do; raises Ended if it ends instead, or takes too long."""
        assert self._exited is not None
        await asyncio.wait([done, self._exited], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        if self._exited.done():
            raise Ended("Runtime.ExitError", f"Runtime exited with status {self._exited.result()}.")
        raise Ended("Sandbox.Timedout", f"Task timed out after {seconds:.2f} seconds")

    async def _give(self, _: web.Request) -> web.Response:
        if not self._asked.done():
            self._asked.set_result(None)
        request, payload, deadline = await self._next.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request,
            "Lambda-Runtime-Deadline-Ms": str(deadline),
            "Lambda-Runtime-Invoked-Function-Arn": self._variables["TIDINGS_FUNCTION_ARN"],
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
        }
        return web.Response(body=payload, headers=headers, content_type="application/json")

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.match_info["request"] != self._request or self._answer.done():
            return web.json_response({"errorType": "InvalidRequestID"}, status=400)
        if len(body) > LARGEST:
            return web.json_response({"errorType": "RequestEntityTooLarge"}, status=413)
        said = json.loads(body) if body else None
        failed = request.path.endswith("/error")
        self._answer.set_result(Result(None, *_error(said)) if failed else Result(said))
        return web.json_response({"status": "OK"}, status=202)

    async def _fail(self, request: web.Request) -> web.Response:
        kind, text = _error(json.loads(await request.read()))
        if not self._asked.done():
            self._asked.set_exception(Ended("Runtime.InitError", f"{kind}: {text}"))
        return web.json_response({"status": "OK"}, status=202)

    def _freeze(self) -> None:
        if self._freezes:
            self._signal("SIGSTOP")

    def _thaw(self) -> None:
        if self._freezes:
            self._signal("SIGCONT")

    def _signal(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, getattr(signal, name))


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


def _error(said: Any) -> tuple[str, str]:
    return str(said.get("errorType")), str(said.get("errorMessage"))
