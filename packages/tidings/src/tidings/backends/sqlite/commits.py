"""Where a commit waits for the disk: a thread of its own in production, the spot in tests and simulation."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol


class Commits(Protocol):
    """Runs the function that commits, and returns once it has."""

    async def perform(self, commit: Callable[[], None]) -> None:
        """Run the function that commits; return once it has."""

    def stop(self) -> None:
        """End the thread, if there is one."""


class InlineCommits:
    """Commits on the spot: nothing else of the process runs meanwhile."""

    async def perform(self, commit: Callable[[], None]) -> None:
        """Run the function that commits; return once it has."""
        commit()

    def stop(self) -> None:
        """End the thread, if there is one."""


class ThreadedCommits:
    """One thread that does nothing but commit, so that the event loop never waits for fsync.

    Statements stay on the loop: one costs about 3 µs there and 70–100 µs through a thread.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], None], asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="tidings-commit", daemon=True)
        self._thread.start()

    async def perform(self, commit: Callable[[], None]) -> None:
        """Run the function that commits; return once it has."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((commit, done))
        cancelled = None
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as error:
                if done.cancelled():  # pragma: no cover - nobody else holds this future
                    raise
                cancelled = error  # the commit is under way: its outcome is waited for, then the caller is told
            except BaseException:
                break
        if cancelled is not None:
            raise cancelled
        done.result()

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            commit, done = item
            error: BaseException | None = None
            try:
                commit()
            except BaseException as raised:
                error = raised
            try:
                done.get_loop().call_soon_threadsafe(_resolve, done, error)
            except RuntimeError:  # the loop is gone: nobody waits
                return

    def stop(self) -> None:
        """End the thread, if there is one."""
        self._queue.put(None)
        self._thread.join(timeout=5)


def _resolve(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
