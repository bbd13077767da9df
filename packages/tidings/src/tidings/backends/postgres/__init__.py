"""The store on Postgres (13 and later): `postgresql://user@host/database`."""

from tidings.backends.postgres.store import PostgresStore, open_store

__all__ = ["PostgresStore", "open_store"]
