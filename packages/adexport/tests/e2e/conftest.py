"""The real server as a subprocess: `adexport serve` on a free port with a fresh folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from plain_design import DESIGN

COMMAND = Path(sys.executable).with_name("adexport")


class Server:
    """A running `adexport serve` or `adexport worker`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        self.url = ""

    def wait_until_up(self) -> None:
        """Read the address from what the server prints, as a person does."""
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            if found := re.search(r"http://\S+?:\d+", self.log.read_text()):
                self.url = found[0]
                with httpx.Client(base_url=self.url) as client:
                    if _up(client):
                        return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"the server did not come up: {self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20) -> float:
        """Send the signal and wait for the end; return how many seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(seconds)
        return time.monotonic() - began


def _up(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def running(data: Path, *arguments: str, wait: bool = True, **environment: str) -> Iterator[Server]:
    """Start `adexport ARGUMENTS` on `data`; ends it at the end."""
    log = data.parent / f"{arguments[0]}-{time.monotonic_ns()}.log"
    variables = {**os.environ, "ADEXPORT_RENDER_PROCESSES": "1", **environment}
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(COMMAND), *arguments, "--data", str(data)], stdout=out, stderr=out, text=True, env=variables
        )
    server = Server(process, log)
    try:
        if wait:
            server.wait_until_up()
        yield server
    finally:
        if process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server on each store for all tests that only use it."""
    data = tmp_path_factory.mktemp("server") / "data"
    database = request.getfixturevalue("new_database")() if request.param == "postgres" else nullcontext("")
    with database as url, running(data, "serve", "--port", "18100", ADEXPORT_STORE=url) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=server.url, timeout=40) as opened:
        yield opened


def order(count: int = 2, **changes: Any) -> dict[str, Any]:
    """The body of a small export."""
    rows = [{"headline": f"Offer number {number}"} for number in range(1, count + 1)]
    return {"design": DESIGN, "rows": rows, **changes}


@pytest.fixture
def ask(client: httpx.Client):
    """Ask for an export; by default wait for its end."""

    def post(body: dict[str, Any] | None = None, wait: int | None = 20, **headers: str) -> httpx.Response:
        prefer = {} if wait is None else {"Prefer": f"wait={wait}"}
        content = json.dumps(order() if body is None else body)
        return client.post(
            "/v1/exports", content=content, headers={"Content-Type": "application/json", **prefer, **headers}
        )

    return post


@pytest.fixture
def make_order():
    """The body of a small export, for tests that change it."""
    return order


@pytest.fixture
def run_adexport():
    """Start an `adexport` process of one's own."""
    return running


@pytest.fixture
def adexport_command() -> str:
    """The path of the `adexport` command."""
    return str(COMMAND)
