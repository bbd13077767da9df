"""What is wrong with a `postgresql://` URL, told before anything is connected, and without its password."""

import re
from urllib.parse import parse_qs, urlsplit

from tidings.errors import ServiceError

_HOST = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:]*)(?::(?P<port>.*))?", re.DOTALL)
_LAST_PORT = 65_535


def check_url(url: str) -> None:
    """Raise ServiceError for a URL whose hosts or ports cannot be read; it shows nothing of the URL."""
    try:
        parts = urlsplit(url)
        asked = parse_qs(parts.query)
    except ValueError:  # its text may hold the password
        raise _bad_host() from None
    hosts = parts.netloc.rpartition("@")[2].split(",")
    for host in hosts:
        found = _HOST.fullmatch(host)
        if found is None or (not host and len(hosts) > 1):
            raise _bad_host()
        _check_port(found["port"])
    for ports in asked.get("port", []):
        for port in ports.split(","):
            _check_port(port)


def _check_port(port: str | None) -> None:
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _LAST_PORT):
        raise ServiceError(
            f"A port in the Postgres URL is no number from 1 to {_LAST_PORT}. Write "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with signs such as @ and / in a password as %40 and %2F."
        )


def _bad_host() -> ServiceError:
    return ServiceError("A host in the Postgres URL cannot be read. Write HOST:PORT, an IPv6 address as [::1]:5432.")
