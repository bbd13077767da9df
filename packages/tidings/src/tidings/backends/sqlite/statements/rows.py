"""What every group of statements stands on."""

from functools import lru_cache

from tidings.backends.sqlite.driver import Connection


class Speaker:
    """Statements over a connection. `touched` collects the topics of what was written."""

    _db: Connection
    _lanes: int
    touched: set[str]


@lru_cache(maxsize=256)
def marks(count: int, first: int = 1) -> str:
    """Return `?1, ?2, …` for an IN list; an empty list matches nothing."""
    return ", ".join(f"?{number}" for number in range(first, first + count)) if count else "NULL"
