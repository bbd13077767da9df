"""The store on one SQLite file: `sqlite:///path`, `sqlite+apsw:///path`, `sqlite:///:memory:`."""

from tidings.backends.sqlite.store import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
