"""The URL of the transport: which queues and topics, where, and how long a message is out."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from tidings.errors import ServiceError

FORMS = "sqs://QUEUE?in=QUEUE or sns://TOPIC?in=QUEUE"
FIFO = ".fifo"
"""How the name of every queue and topic ends that keeps the order of a group."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.fifo)?")
_ACCOUNT = re.compile(r"\d{12}")


class Address(Struct, frozen=True, kw_only=True):
    """The queues and topics, and the options of the URL.

    `queues` or `topics` are sent to, `inward` (in the URL: `in`) received from, `dead` are dead-letter queues whose
    messages are drained. `sources` (in the URL: `from`) are the topics that the inward queues are subscribed to, by
    default those that are sent to. `lease` is for how many seconds what was received is out, `wait` for how many a
    question for messages stays open. `region`, `endpoint` and `account` are those of AWS's own settings where they are
    not given. What only `tidings topology` reads: `receives` is how often a message comes before its queue gives it up,
    `visibility` for how many seconds what others receive from the queues that are sent to is out.
    """

    queues: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    inward: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    sources: tuple[str, ...] | None = None
    region: str | None = None
    endpoint: str | None = None
    account: str | None = None
    lease: int = 30
    wait: int = 20
    receives: int = 3
    visibility: int | None = None

    @property
    def ordered(self) -> bool:
        """Say whether every queue and topic of the URL keeps order."""
        return all(name.endswith(FIFO) for name in (*self.queues, *self.topics, *self.inward))

    def dead_of(self, queue: str) -> str | None:
        """Return the dead-letter queue to which a queue gives up: the first of its own kind."""
        kind = queue.endswith(FIFO)
        return next((name for name in self.dead if name.endswith(FIFO) == kind), None)


def read_url(url: str) -> Address:
    """Return the address that a URL names; raises ServiceError."""
    scheme, _, rest = url.partition("://")
    sent_to, _, query = rest.partition("?")
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _READ:
            raise _wrong(url, f"has the option {name!r}, which is not known: use {', '.join(sorted(_READ))}")
        read, takes = _READ[name]
        try:
            options[_FIELDS.get(name, name)] = read(value)
        except ValueError:
            raise _wrong(url, f"says {name}={value!r}, and takes {takes}") from None
    try:
        options["topics" if scheme == "sns" else "queues"] = _names(sent_to) if sent_to.strip("/") else ()
    except ValueError:
        raise _wrong(url, f"names {sent_to!r}, and takes {_NAMES}") from None
    address = Address(**options)
    if not (address.queues or address.topics or address.inward):
        raise _wrong(url, "names no queue: say QUEUE to send, in=QUEUE to receive, or both")
    if len({name.endswith(FIFO) for name in address.queues or address.topics}) > 1:
        raise _wrong(url, "sends to FIFO queues and to others: use one kind, or two services")
    return address


def _wrong(url: str, what: str) -> ServiceError:
    return ServiceError(f"The transport's URL {url!r} {what}. It has the form {FORMS}.")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.strip("/").split(","))
    if not all(_NAME.fullmatch(name) for name in names):
        raise ValueError
    return names


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise ValueError
    return text


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return read


_NAMES = "names of letters, digits, _ and -, up to 80, with commas between, those of FIFO queues with .fifo at the end"
_FIELDS = {"in": "inward", "from": "sources"}
_READ: dict[str, tuple[Callable[[str], Any], str]] = {
    "in": (_names, _NAMES),
    "dead": (_names, _NAMES),
    "from": (_names, _NAMES),
    "region": (_text, "a region such as eu-central-1"),
    "endpoint": (_text, "the URL of a server"),
    "account": (_account, "the 12 digits of an AWS account"),
    "lease": (_whole(1, 43_200), "whole seconds, 1 to 43200"),
    "wait": (_whole(0, 20), "whole seconds, 0 to 20"),
    "receives": (_whole(1, 1000), "a whole number from 1 to 1000"),
    "visibility": (_whole(0, 43_200), "whole seconds, 0 to 43200"),
}
"""Option of the URL -> how it is read, and what it takes."""
