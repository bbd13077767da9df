"""An event loop whose time is made up and whose order is drawn: the next handle to run is chosen by the seed."""

import asyncio
import heapq
from contextlib import suppress
from contextvars import ContextVar
from random import Random
from typing import Any, Protocol

LONGEST_STEP = 40e-6
"""Virtual seconds that one step takes at most: about what a statement or two take in truth."""

MOST_STEPS = 400_000
"""Steps after which a simulation is stuck in a circle."""


class StuckError(Exception):
    """The simulation cannot go on: nothing will ever happen again, or the same happens for ever."""


class Group(Protocol):
    """What owns tasks and handles: a simulated process. Dead: dropped. Frozen: set aside until thawed."""

    alive: bool
    frozen: bool
    tasks: "set[asyncio.Task[Any]]"
    aside: list[Any]


GROUP: ContextVar[Group | None] = ContextVar("tidings_simulated_process", default=None)
"""The process that the code at hand runs in; None: the world around the processes."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs handles one by one in an order drawn from `random`; time passes when nothing else can happen.

    `in_order` is the share of steps that take the oldest handle, as a real loop does.
    """

    def __init__(self, random: Random, in_order: float) -> None:
        super().__init__()
        self._ready: list[Any] = []  # a list gives up any place, a deque only its ends
        self._random = random.random
        self._in_order = in_order
        self._virtual = 0.0
        self.steps = 0
        self.set_task_factory(_make_task)
        self.set_exception_handler(lambda loop, context: None)  # killed tasks end with what killed them

    def time(self) -> float:
        """Return virtual seconds."""
        return self._virtual

    def _run_once(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise StuckError(f"{MOST_STEPS} steps, and still something is to do at {self._virtual:.3f} s.")
        self._virtual += LONGEST_STEP * self._random()
        self._pull_due()
        ready = self._ready
        if not ready:
            return
        place = 0 if self._random() < self._in_order else int(self._random() * len(ready))
        handle = ready.pop(place)
        group = handle._context.get(GROUP)
        if group is not None:
            if not group.alive:
                return
            if group.frozen:
                group.aside.append(handle)
                return
        if not handle._cancelled:
            handle._run()

    def _pull_due(self) -> None:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        if not self._ready and not scheduled and not self._stopping:  # type: ignore[attr-defined]
            raise StuckError(f"Nothing will ever happen again at {self._virtual:.3f} s.")
        while scheduled and (not self._ready or scheduled[0]._when <= self._virtual):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._virtual = max(self._virtual, timer._when)
                self._ready.append(timer)

    def thaw(self, group: Group) -> None:
        """Let a frozen process go on with what was set aside."""
        group.frozen = False
        self._ready.extend(group.aside)
        group.aside.clear()

    # A loop without sockets.

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector here."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Generators of killed processes are not cleaned up: the process is gone."""


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> "asyncio.Task[Any]":
    task = asyncio.Task(coro, loop=loop, **options)
    context = options.get("context")
    group = context.get(GROUP) if context is not None else GROUP.get()
    if group is not None:
        # Held until done: a killed process's tasks must not be cleaned up by chance, whenever the collector runs.
        group.tasks.add(task)
        task.add_done_callback(group.tasks.discard)
    return task


def bury(tasks: "set[asyncio.Task[Any]]") -> None:
    """Close what killed processes left, once nothing of it matters any more."""
    for task in tuple(tasks):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine: Any = task.get_coro()
        with suppress(BaseException):  # its clean-up runs into the closed connections of its process
            coroutine.close()
    tasks.clear()
