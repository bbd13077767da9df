"""Threads for handlers that are plain functions. No end of the process waits for one: a handler may never return."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class _Call:
    """A function to run, and who waits for it."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self._function = function
        self._args = args
        self._context = context
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self._loop.create_future()

    def run(self) -> None:
        """Run it, unless nobody waits any more."""
        if self.done.cancelled():
            return
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._context.run(self._function, *self._args)
        except StopIteration as raised:  # no future can carry it
            error = RuntimeError("The handler raised StopIteration.")
            error.__cause__ = raised
        except BaseException as raised:
            error = raised
        try:
            self._loop.call_soon_threadsafe(self._end, result, error)
        except RuntimeError:  # the loop is closed: nobody waits
            return

    def _end(self, result: Any, error: BaseException | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(result)
        else:
            self.done.set_exception(error)


class Threads:
    """At most so many threads, started as they are needed. Like ThreadPoolExecutor, which the process waits for."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started: list[threading.Thread] = []

    @property
    def is_here(self) -> bool:
        """True if the thread that calls is one of these."""
        return threading.current_thread() in self._started

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in one of the threads; return its result. A cancelled caller leaves it running."""
        result: T = await self.start(function, *args)
        return result

    def start(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Let a function run in one of the threads as soon as one is free; return what will be its result."""
        call = _Call(function, args, copy_context())
        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and len(self._started) < self._most:
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._started)}", daemon=True)
            self._started.append(thread)
            thread.start()
        return call.done

    def _serve(self) -> None:
        while True:
            self._calls.get().run()
            self._idle.release()
