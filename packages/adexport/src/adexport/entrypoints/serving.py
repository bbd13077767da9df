"""Serves the API and the pages with uvicorn, on the next free port when the wanted one is taken."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click
import uvicorn

from adexport.bootstrap import Application, build, running
from adexport.entrypoints.http_api import create_app
from adexport.errors import AdExportError
from adexport.settings import Settings

_TRIED_PORTS = 50
# Longer than a request takes, shorter than a stream lives: the browser resumes the stream at the next server.
_GRACE_SECONDS = 3


class NoFreePortError(AdExportError):
    """No port near the wanted one can be listened on."""

    retryable = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `port` or the next free one. Raises NoFreePortError."""
    reason = ""
    for candidate in range(port, min(port + _TRIED_PORTS, 65536)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # TCP by name: asyncio switches Nagle's algorithm off for no other socket.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, candidate))
        except OSError as error:
            sock.close()
            reason = str(error.strerror)
            continue
        sock.listen(2048)
        sock.set_inheritable(True)
        return sock
    raise NoFreePortError(f"No port from {port} on can be used on {host}: {reason}. Give another one with --port.")


def serve(settings: Settings, *, consumers: bool = True) -> None:
    """Run until SIGTERM or SIGINT. Prints the address. Raises StorageError, NoFreePortError and StoreError."""
    application = build(settings)
    with listen(settings.host, settings.port) as sock:
        asyncio.run(_serve(application, sock, consumers))


async def _serve(application: Application, sock: socket.socket, consumers: bool) -> None:
    config = uvicorn.Config(
        create_app(application),
        lifespan="off",  # the service is entered here, so that what keeps it from starting is told in plain words
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=32_768,
    )
    async with running(application, consumers=consumers):
        click.echo(f"Ad Export: {_address(sock, application.settings)}  ({application.settings.places}, Ctrl-C stops)")
        await _Server(config).serve(sockets=[sock])


def _address(sock: socket.socket, settings: Settings) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}/"


class _Server(uvicorn.Server):
    """Ends at a signal as uvicorn's own does, but does not raise the signal again: the service has yet to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT within the block; a second SIGINT waits for no connection."""
        loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
