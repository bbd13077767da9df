"""Upcasters: pure functions that turn the JSON of one major version of an event into the next."""

from collections.abc import Callable
from typing import Any

import msgspec

UpcastFunction = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the decoded JSON object of major version n, returns that of n + 1. No I/O, clock or randomness."""


class Upcaster(msgspec.Struct, frozen=True):
    """One link of a chain: turns `name` from `from_major` into `from_major + 1`."""

    name: str
    from_major: int
    function: UpcastFunction

    @property
    def label(self) -> str:
        """How messages call it: the function and the versions it spans."""
        return f"upcaster {self.function.__qualname__} of {self.name} from {self.from_major} to {self.from_major + 1}"
