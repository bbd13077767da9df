"""A transport of real bytes that outlives every process: one file each way, for tests that kill the processes between.

`file:///folder` sends to `folder/out.jsonl` and receives from `folder/in.jsonl`. Whoever holds the lock on `in.lock`
receives; the kernel frees the lock of a killed process, and what it had not settled comes again.
"""

import asyncio
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from tidings.backends import TRANSPORTS
from tidings.events import Envelope, envelope_to_json
from tidings.transport import Capabilities, Delivery, Refusal
from tidings.world import World

LOOK_SECONDS = 0.01

TRANSPORTS["file"] = __name__


def open_transport(url: str, world: World) -> "FileTransport":
    """Return the transport over the folder that a URL names."""
    return FileTransport(Path(url.removeprefix("file://")))


def url(folder: Path) -> str:
    """Return the URL of the transport over a folder."""
    return f"file://{folder}"


def append(file: Path, lines: Sequence[bytes]) -> None:
    """Append lines by one write, and wait for the disk."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b"".join(line + b"\n" for line in lines))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileTransport:
    """Implements tidings.transport.Transport."""

    capabilities = Capabilities(ordered_by_key=True, max_bytes=1_048_576, max_batch=100)
    dead = None

    def __init__(self, folder: Path) -> None:
        self._out = folder / "out.jsonl"
        self._in = folder / "in.jsonl"
        self._settled = folder / "in.settled"
        self._lock_file = folder / "in.lock"
        self._lock = -1

    async def open(self) -> None:
        self._in.touch()

    async def close(self) -> None:
        self._unlock()

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        append(self._out, [envelope_to_json(envelope) for envelope in envelopes])
        return []

    async def receive(self, limit: int) -> list[Delivery]:
        while not (self._try_lock() and (deliveries := self._read(limit))):
            self._unlock()
            await asyncio.sleep(LOOK_SECONDS)
        return deliveries

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        last = max(int(delivery.receipt) for delivery in deliveries)
        temporary = self._settled.with_suffix(f".{os.getpid()}")
        temporary.write_text(str(last))
        temporary.replace(self._settled)
        self._unlock()

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        self._unlock()

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        pass  # the lock has no end

    def _read(self, limit: int) -> list[Delivery]:
        start = int(self._settled.read_text()) if self._settled.exists() else 0
        with self._in.open("rb") as file:
            file.seek(start)
            found = []
            for line in file:
                start += len(line)
                found.append(Delivery(str(start), line.rstrip(b"\n")))
                if len(found) == limit:
                    break
        return found

    def _try_lock(self) -> bool:
        if self._lock < 0:
            self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
