"""The URL of the transport: which Redis, which queues, and how careful to be with them."""

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

from tidings.errors import ServiceError

SCHEME = "bullmq://[user:password@]host[:port][/db]?queue=OUT&in=IN"


class Address(Struct, frozen=True, kw_only=True):
    """Where the queues are, and the options of the URL.

    `queue` is sent to, `inward` (in the URL: `in`) received from; one of them may be missing. `prefix` stands before
    the keys of every queue; on a Redis cluster it must be in braces. `tls` encrypts. `durable` says what happens where
    Redis may lose or evict jobs: "warn", "require" (the service does not start) or "ignore". `keep` is how many
    completed jobs stay to be looked at, unless the sender of a job has said so itself. `attempts` is what a job says to
    a Node worker. `lock` is the least lease of a job in seconds, `stalled` the seconds between two looks for jobs whose
    worker died.
    """

    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    queue: str | None = None
    inward: str | None = None
    prefix: str = "bull"
    tls: bool = False
    durable: str = "warn"
    keep: int = 1000
    attempts: int = 1
    lock: float = 30.0
    stalled: float = 30.0


def read_url(url: str) -> Address:
    """Return the address that a URL names; raises ServiceError."""
    parts = urlsplit(url)
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _READ:
            raise _wrong(f"has the option {name!r}, which is not known: use {', '.join(sorted(_READ))}")
        read, takes = _READ[name]
        try:
            options["inward" if name == "in" else name] = read(value)
        except ValueError:
            raise _wrong(f"says {name}={value!r}, and takes {takes}") from None
    if not options.get("queue") and not options.get("inward"):
        raise _wrong("names no queue: say queue=NAME to send, in=NAME to receive, or both")
    host, port, db = _place(parts)
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    return Address(host=host, port=port, db=db, username=username, password=password, **options)


def _place(parts: SplitResult) -> tuple[str, int, int]:
    try:
        return parts.hostname or "127.0.0.1", parts.port or 6379, int(parts.path.strip("/") or 0)
    except ValueError:
        raise _wrong("names a port or a database that is no number") from None


def _wrong(what: str) -> ServiceError:
    # Without the URL itself: it may hold a password.
    return ServiceError(f"The transport's URL {what}. It has the form {SCHEME}.")


def _name(text: str) -> str:
    if not text or ":" in text:
        raise ValueError
    return text


def _prefix(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def _number(kind: type, least: float, most: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        number = kind(text)
        if not least <= number <= most:
            raise ValueError
        return number

    return read


_READ: dict[str, tuple[Callable[[str], Any], str]] = {
    "queue": (_name, "a name without colons"),
    "in": (_name, "a name without colons"),
    "prefix": (_prefix, "some text"),
    "tls": (lambda text: _one_of("true", "false")(text) == "true", "true or false"),
    "durable": (_one_of("warn", "require", "ignore"), "warn, require or ignore"),
    "keep": (_number(int, 0, 10**9), "a whole number from 0"),
    "attempts": (_number(int, 1, 1000), "a whole number from 1 to 1000"),
    "lock": (_number(float, 0.1, 86_400), "seconds, 0.1 to 86400"),
    "stalled": (_number(float, 0.1, 86_400), "seconds, 0.1 to 86400"),
}
"""Option of the URL -> how it is read, and what it takes."""
