"""A Redis of the tests' own: durable, on a free port, to be killed and started again."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

START_SECONDS = 20.0
DURABLE = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")


def free_port() -> int:
    """One whose second port, 10,000 higher, exists too: nodes of a cluster talk there."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        if port < 55_000:
            return port


class RedisServer:
    """One server process over a folder; `start` after `kill` finds what was there."""

    def __init__(self, folder: Path, *options: str) -> None:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            pytest.skip("no Redis here: install redis-server 7 or later")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._command = [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            "--loglevel", "warning", *(options or DURABLE),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RedisServer":
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.call("PING") == "+PONG":
                    return self
            except OSError:
                pass
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)

    def call(self, *words: str) -> str:
        """Send one command, and return the first line of its reply as it came."""
        packed = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(packed.encode())
            reply = link.makefile("rb")
            first = reply.readline().decode().strip()
            return reply.readline().decode().strip() if first[:1] == "$" and first != "$-1" else first

    def kill(self) -> None:
        """SIGKILL: nothing is written any more."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def url(self, **options: str) -> str:
        """Return the transport URL with these options; `inward` stands for `in`."""
        return f"bullmq://127.0.0.1:{self.port}?" + "&".join(
            f"{name.replace('inward', 'in')}={value}" for name, value in options.items()
        )
