"""Serves the API and the pages with uvicorn, on the next free port when the wanted one is taken."""

from __future__ import annotations

import socket

import click
import uvicorn

from adexport.bootstrap import build
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
        sock = socket.socket(family, socket.SOCK_STREAM)
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
    """Run until SIGTERM or SIGINT. Prints the address. Raises StorageError and NoFreePortError."""
    application = build(settings)
    sock = listen(settings.host, settings.port)
    address, port = sock.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    config = uvicorn.Config(
        create_app(application, consumers=consumers),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=32_768,
    )
    click.echo(f"Ad Export: http://{shown}:{port}{settings.root_path}/  ({settings.places}, Ctrl-C stops)")
    uvicorn.Server(config).run(sockets=[sock])
