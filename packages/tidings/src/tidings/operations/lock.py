"""The lock of subscriptions: a committed file of their names, so that a review sees when one vanishes or changes."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from tidings.consuming.subscription import Subscription
from tidings.errors import OperationError
from tidings.events import parse_json


class Locked(Struct, frozen=True, forbid_unknown_fields=True):
    """What the lock keeps of one subscription."""

    kind: str
    ordered: bool
    types: tuple[str, ...]
    start: str


class Lock(Struct, frozen=True, forbid_unknown_fields=True):
    """The subscriptions of one service, by name."""

    service: str
    subscriptions: Mapping[str, Locked]


class Difference(Struct, frozen=True):
    """One way in which the code differs from the file. `change`: vanished, added, renamed or changed."""

    name: str
    change: str
    detail: str


def declared(service: str, subscriptions: Sequence[Subscription]) -> Lock:
    """Return the lock of what the code declares; the handlers' hints were resolved."""
    return Lock(service, {one.name: _locked(one) for one in sorted(subscriptions, key=lambda one: one.name)})


def _locked(one: Subscription) -> Locked:
    start = one.start.isoformat() if isinstance(one.start, datetime) else one.start
    return Locked(one.kind, one.ordered, one.types, start)


def lock_to_json(lock: Lock) -> str:
    """Return the text of the file: sorted, one value a line, so that a change is a short diff."""
    return msgspec.json.format(msgspec.json.encode(lock), indent=2).decode() + "\n"


def lock_from_json(text: bytes, place: str) -> Lock:
    """Read the file's text; raises StrictJSONError, or OperationError if it is not a lock."""
    try:
        return msgspec.convert(parse_json(text), Lock)
    except msgspec.ValidationError as error:
        raise OperationError(
            f"{place} is not a lock of subscriptions ({error}): write it again without --check."
        ) from error


def differences(old: Lock, new: Lock, renamed: Mapping[str, str | None]) -> list[Difference]:
    """Return how the code (`new`) differs from the file (`old`). `renamed`: name -> the name it says it had."""
    found = []
    if old.service != new.service:
        found.append(Difference(new.service, "renamed", f"the service was {old.service}"))
    earlier = {before: name for name, before in renamed.items() if before is not None and name not in old.subscriptions}
    for name in old.subscriptions.keys() - new.subscriptions.keys():
        if name in earlier:
            found.append(Difference(earlier[name], "renamed", f"it was {name}"))
        else:
            found.append(Difference(name, "vanished", "no handler declares it: its pending events would wait for ever"))
    for name in new.subscriptions.keys() - old.subscriptions.keys() - set(earlier.values()):
        found.append(Difference(name, "added", ", ".join(new.subscriptions[name].types)))
    for name in old.subscriptions.keys() & new.subscriptions.keys():
        found.extend(_changes(name, old.subscriptions[name], new.subscriptions[name]))
    return sorted(found, key=lambda one: (one.name, one.change))


def _changes(name: str, old: Locked, new: Locked) -> list[Difference]:
    return [
        Difference(name, "changed", f"{field} was {_words(getattr(old, field))}, is {_words(getattr(new, field))}")
        for field in Locked.__struct_fields__
        if getattr(old, field) != getattr(new, field)
    ]


def _words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
