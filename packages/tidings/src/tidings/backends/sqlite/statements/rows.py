"""What every group of statements stands on."""

from functools import lru_cache

from msgspec import Struct

from tidings.backends.sqlite.driver import Connection
from tidings.events import Envelope


class Appended(Struct, frozen=True):
    """Events that lie in the log one after the other, and the position of the first."""

    first: int
    envelopes: tuple[Envelope, ...]

    def follows(self, position: int) -> bool:
        """Say whether the event after a position is one of these."""
        return self.first <= position + 1 < self.first + len(self.envelopes)


class Speaker:
    """Statements over a connection. `touched` collects the topics of what was written, `appended` the newest events.

    `tail` is what this process committed last: whoever reads on from before it need not ask the file for it.
    """

    _db: Connection
    _lanes: int
    touched: set[str]
    appended: Appended | None
    tail: Appended | None


@lru_cache(maxsize=256)
def marks(count: int, first: int = 1) -> str:
    """Return `?1, ?2, …` for an IN list; an empty list matches nothing."""
    return ", ".join(f"?{number}" for number in range(first, first + count)) if count else "NULL"
