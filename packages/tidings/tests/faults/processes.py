"""Starts real processes that run a service of tests, lets a test wait for what they do, and ends what is left."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Processes:
    """The processes of one test. Each runs a script of this folder; its output goes to a file of the test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, script: str, *args: object) -> subprocess.Popen[bytes]:
        """Start `python script args…`."""
        command = [sys.executable, str(HERE / script), *map(str, args)]
        with (self.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        self._started.append(process)
        return process

    def all_ended(self) -> bool:
        """Say whether none of them runs any more."""
        return all(process.poll() is not None for process in self._started)

    def output(self) -> str:
        """Return what the processes have printed, for messages of failed tests."""
        return (self.folder / "output.txt").read_text()[-4000:]

    def end(self) -> None:
        """Kill whatever still runs."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """Yield a test's processes; none of them outlives the block."""
    started = Processes(folder)
    try:
        yield started
    finally:
        started.end()


def rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query over what is committed; none before the first process has made the tables."""
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as database:
        made = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'tidings_progress'").fetchone()
        return database.execute(sql).fetchall() if made else []


def wait_for(what: Callable[[], bool], seconds: float, why: Callable[[], str] = str) -> float:
    """Wait until something holds; return after how many seconds. Fails with what `why` tells."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"did not happen within {seconds:g} s: {why()}")
        time.sleep(0.005)
    return time.monotonic() - began


def is_stopped(pid: int) -> bool:
    """Say whether a process stands still after SIGSTOP."""
    with contextlib.suppress(ChildProcessError):
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        return bool(found) and os.WIFSTOPPED(status)
    return False
