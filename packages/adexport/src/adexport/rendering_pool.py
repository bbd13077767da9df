"""Rendering in processes of our own: limited in memory and time, recycled, and free to crash."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from types import TracebackType

import msgspec

from adexport.errors import AdExportError
from adexport.ports import Rendered, RenderJob

_START_SECONDS = 30.0
_RESULTS = msgspec.msgpack.Decoder(tuple[int, list[Rendered]])
_JOBS = msgspec.msgpack.Encoder()


class RenderingCrashedError(AdExportError):
    """The rendering process died: killed, out of memory, or a fault in a library."""

    retryable = True


class RenderingTimedOutError(AdExportError):
    """The job took longer than it may; its process was ended."""

    retryable = True


class _Child:
    """One rendering process and how much it has done."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.renders = 0
        self.resident_bytes = 0

    async def exchange(self, payload: bytes) -> bytes:
        """Send a frame, return the answer. Raises OSError or EOFError when the process is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(len(payload).to_bytes(4, "big") + payload)
        await self.process.stdin.drain()
        return await self.receive()

    async def receive(self) -> bytes:
        """The next frame of the process. Raises EOFError."""
        assert self.process.stdout is not None
        length = int.from_bytes(await self.process.stdout.readexactly(4), "big")
        return await self.process.stdout.readexactly(length)

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class RenderingPool:
    """`size` processes that render one job at a time each; jobs beyond that wait in turn.

    A process is replaced after `recycle_after` cells, when its resident size passes `memory_bytes`, when a job takes
    longer than `seconds`, and when it dies. Used as an async context manager; leaving it ends the processes.
    """

    def __init__(self, *, size: int, memory_bytes: int, seconds: float, recycle_after: int) -> None:
        """Starts nothing yet."""
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._recycle_after = recycle_after
        self._turns = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._warming: asyncio.Task[None]
        self.size = size

    async def __aenter__(self) -> RenderingPool:
        """The pool itself; its processes start meanwhile."""
        self._warming = asyncio.create_task(self._warm())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process, also one that is busy."""
        self._warming.cancel()
        await asyncio.gather(self._warming, return_exceptions=True)
        await asyncio.gather(*(self._discard(child) for child in list(self._all)))

    async def render(self, job: RenderJob) -> list[Rendered]:
        """One result for each cell of the job, in order. Raises RenderingCrashedError or RenderingTimedOutError."""
        async with self._turns:
            child = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await self._exchange(child, job)
            except BaseException:  # also cancellation: the process is in the middle of a job nobody waits for
                await self._discard(child)
                raise
            child.resident_bytes, results = _RESULTS.decode(answer)
            child.renders += len(job.cells)
            if child.renders >= self._recycle_after or child.resident_bytes > self._memory_bytes:
                await self._discard(child)
            else:
                self._idle.append(child)
            return results

    async def _exchange(self, child: _Child, job: RenderJob) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await child.exchange(_JOBS.encode(job))
        except TimeoutError as error:
            raise RenderingTimedOutError(
                f"Rendering {len(job.cells)} files took longer than {self._seconds:g} seconds and was ended."
                " Use smaller sizes or a simpler design, or raise ADEXPORT_RENDER_SECONDS."
            ) from error
        except (OSError, EOFError) as error:
            code = await child.process.wait()
            raise RenderingCrashedError(
                f"The rendering process ended with {code} during {len(job.cells)} files. A very large picture may have"
                " passed the memory limit (ADEXPORT_RENDER_MEMORY_MB)."
            ) from error

    async def _warm(self) -> None:
        """Start the processes before the first job: one takes half a second."""
        with contextlib.suppress(RenderingCrashedError):  # the first job will meet it, and say so
            for _ in range(self.size):
                async with self._turns:
                    if len(self._all) < self.size:
                        self._idle.append(await self._start())

    async def _start(self) -> _Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "adexport.rendering_child",
            str(self._memory_bytes),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C ends the service; the service ends its processes
        )
        child = _Child(process)
        self._all.add(child)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child.receive()
        except BaseException as error:
            await self._discard(child)
            if not isinstance(error, TimeoutError | OSError | EOFError):
                raise
            raise RenderingCrashedError(
                "A rendering process did not start. Run `python -m adexport.rendering_child 2000000000` to see why."
            ) from error
        return child

    async def _discard(self, child: _Child) -> None:
        self._all.discard(child)
        await child.end()
