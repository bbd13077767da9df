"""A stand-in for AWS (ministack) on a free port: for tests, benchmarks, and a cloud that runs on one machine."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0

REGION, KEY = "us-east-1", "test"
"""What the stand-in takes for a region, and as both halves of a key, where nobody's rights are checked."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""The environment in which AWS's clients talk to the stand-in, and ask nobody else who they are."""


class AwsServer:
    """One ministack, whose files are in a folder; `start` after `stop` finds what was there, after `kill` nothing.

    `checks_rights`: requests need real users and policies, made through IAM with the key `test`.
    """

    def __init__(self, folder: Path, *, keeps_state: bool = False, checks_rights: bool = False) -> None:
        self.port = free_port()
        self._output = folder / f"ministack-{self.port}.txt"
        self._environment = {
            **os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port), "LOG_LEVEL": "WARNING",
            "MINISTACK_HOST": "127.0.0.1", "S3_DATA_DIR": str(folder / "s3"), "STATE_DIR": str(folder / "state"),
            "PERSIST_STATE": str(int(keeps_state)), "AUTH": str(checks_rights).lower(), "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The endpoint of every service."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "AwsServer":
        """Start, and wait until it answers."""
        with self._output.open("ab") as output:
            command = [sys.executable, "-m", "ministack"]
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=output, stderr=output, cwd=self._output.parent
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            said = self._output.read_text("utf-8", "replace")[-2000:]
            assert self._process.poll() is None, f"ministack ended at once: {said}"
            assert time.monotonic() < deadline, f"ministack does not answer: {said}"
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it as a service manager does: it writes down what it has, if it keeps state."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        end(process, how)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=2) as answer:
                return int(answer.status) == 200
        except OSError:
            return False


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def end(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    """End a process by a signal; kill it if it does not end by that."""
    if process is None:
        return
    process.send_signal(how)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
