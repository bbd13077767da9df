"""Several processes of one service: started again when they die, stopped together."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence

from tidings.cli.failing import SERVICE, USAGE

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until a process that died is started again: doubled up to the longest."""

HEALTHY_SECONDS = 60.0
"""After so long a process counts as healthy, and the pause begins anew."""

HARD = 137
"""Exit code after a second signal, as shells have it for SIGKILL."""


class Supervisor:
    """Keeps `count` processes of `python -m tidings.cli <arguments>` running until a signal comes."""

    def __init__(self, arguments: Sequence[str], count: int, tell: Callable[[str], None]) -> None:
        self._command = [sys.executable, "-m", "tidings.cli", *arguments]
        self._count = count
        self._tell = tell
        self._stopping = asyncio.Event()
        self._processes: dict[int, Process] = {}
        self._code = 0

    async def run(self) -> int:
        """Run until a signal, or until the service turns out not to start at all; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        await asyncio.gather(*(self._keep(number) for number in range(1, self._count + 1)))
        return self._code

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._code = HARD
            self._signal(signal.SIGKILL)
            return
        self._tell(f"Stopping {len(self._processes)} processes. A second signal ends them hard.")
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _keep(self, number: int) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._once(number)
            if self._stopping.is_set():
                return
            if code in (USAGE, SERVICE):  # it will not start the next time either
                self._code = code
                self._stop()
                return
            if loop.time() - started > HEALTHY_SECONDS:
                pause = FIRST_PAUSE
            self._tell(f"Process {number} {_ended(code)}; it is started again in {pause:g} s.")
            await self._wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _once(self, number: int) -> int:
        # A session of its own: Ctrl-C reaches the supervisor only. The pipe tells it when the supervisor dies.
        process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, start_new_session=True)
        self._processes[number] = process
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        code = await process.wait()
        del self._processes[number]
        return code

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
