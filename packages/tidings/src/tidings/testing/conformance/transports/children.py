"""Other processes of the suite: started on the same transport, they say what they do, and are killed."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from tidings.testing.conformance.transports.opening import TransportOpening

START_SECONDS = 30.0
"""So long a child may take until it says something."""


class Child:
    """One process; what it prints are facts, one line of JSON each."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process = process
        self._output = output

    async def facts(self, number: int) -> list[Any]:
        """Wait for the next so many facts."""
        assert self._process.stdout is not None
        found: list[Any] = []
        async with asyncio.timeout(START_SECONDS):
            while len(found) < number:
                line = await self._process.stdout.readline()
                assert line, f"the process ended after {len(found)} of {number} facts: {self._said()}"
                found.append(json.loads(line))
        return found

    async def kill(self) -> list[bytes]:
        """SIGKILL it; return the whole lines it had printed and nobody has read."""
        assert self._process.stdout is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        rest = await self._process.stdout.read()
        await self._process.wait()
        return rest.splitlines() if rest.endswith(b"\n") or not rest else rest.splitlines()[:-1]

    async def killed_itself(self) -> None:
        """Wait until it has died by its own SIGKILL, at the point where it was told to."""
        async with asyncio.timeout(START_SECONDS):
            code = await self._process.wait()
        assert code == -signal.SIGKILL, f"it ended with {code}: {self._said()}"

    def _said(self) -> str:
        return self._output.read_text("utf-8", "replace")[-2000:]


class Children:
    """The processes of one test; none outlives the block."""

    def __init__(self, open_transport: str, folder: Path) -> None:
        self._open_transport = open_transport
        self._folder = folder
        self._children: list[Child] = []

    @classmethod
    def of(cls, suite: "TransportOpening", folder: Path) -> "Children":
        """Return the processes of a test of a suite; skips where a transport does not cross processes."""
        if not suite.crosses_processes:
            pytest.skip("not claimed: crosses_processes")
        made = type(suite).open_transport
        return cls(f"{made.__module__}:{made.__qualname__}", folder)

    async def start(self, role: str, url: str, **options: Any) -> Child:
        """Start a process in a role of child.py."""
        output = self._folder / f"child-{len(self._children)}.txt"
        told = json.dumps({"open": self._open_transport, "url": url, **options})
        with output.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tidings.testing.conformance.transports.child", role, told,
                stdout=asyncio.subprocess.PIPE, stderr=errors, limit=2**24,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
            )  # fmt: skip
        child = Child(process, output)
        self._children.append(child)
        return child

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            await child.kill()
