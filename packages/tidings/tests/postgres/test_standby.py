"""A standby: nothing is decided by what it says, nobody writes there, and who only reads may read."""

import asyncio
import getpass
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidings.backends.postgres import PostgresStore, open_store
from tidings.backends.postgres.fence import Fence
from tidings.errors import StoreUnavailableError
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.world import World

BINARIES = Path("/usr/lib/postgresql/15/bin")


class Server:
    """A server of its own; `role`: whom it runs as, for it refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        self.role = "postgres" if getpass.getuser() == "root" else None
        self.data = folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.run("initdb", "-U", "postgres", "-A", "trust", "--no-sync", str(self.data))

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs; raises CalledProcessError."""
        command = [str(BINARIES / program), *arguments]
        subprocess.run(command, check=True, user=self.role, cwd=self.data.parent, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start it; a `standby.signal` among its data makes it a standby, whose primary is away."""
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "-D", str(self.data), "-l", str(self.data / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it; whoever is connected is thrown out."""
        self.run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not (BINARIES / "initdb").exists():
        pytest.skip(f"No server can be made: {BINARIES} has no initdb")
    folder = (
        Path("/tmp") / f"tidings-standby-{os.getpid()}"
    )  # short, for a socket; and whoever runs the server must get in
    folder.mkdir()
    made = None
    try:
        if getpass.getuser() == "root":
            shutil.chown(folder, "postgres")
        made = Server(folder)
        made.start()
        yield made
    finally:
        if made is not None and (made.data / "postmaster.pid").exists():
            made.stop()
        shutil.rmtree(folder)


def new_store(url: str) -> PostgresStore:
    return open_store(url, World(system_clock, random.Random(1), uuid7_ids))


async def test_a_standby_decides_nothing_until_it_is_promoted(server: Server) -> None:
    writing, reading = new_store(server.url), new_store(server.url)
    await writing.open(migrate=True)
    await writing.publish([envelope("e1")])
    assert await writing.reading.head() == 1
    await asyncio.to_thread(server.stop)
    (server.data / "standby.signal").touch()
    await asyncio.to_thread(server.start)

    with pytest.raises(StoreUnavailableError):
        await writing._fence.look()
    with pytest.raises(StoreUnavailableError):
        await new_store(server.url).open(migrate=False)
    await reading.open(migrate=False, read_only=True)
    assert len(await reading.reading.recent(0, 10)) == 1
    with pytest.raises(StoreUnavailableError, match="standby"):
        await Fence(reading._session).look()

    await reading.reading.query("SELECT pg_promote()", ())
    await reading.close()
    assert await writing.reading.head() == 1
    assert writing.history == 1
    await writing.close()
