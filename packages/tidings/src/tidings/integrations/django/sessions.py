"""The store's statements on a connection of Django's."""

from typing import Any

import django.db
import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from tidings.errors import ServiceError, TidingsError
from tidings.integrations import psycopg as on_psycopg


def failure(error: BaseException) -> TidingsError | None:
    """Return our error for one of Django's that comes from the database, None if it is not one."""
    cause = error.__cause__ if isinstance(error, django.db.Error) else error
    return on_psycopg.failure(cause) if cause is not None else None


class DjangoSession(on_psycopg.BlockingSession):
    """Implements the store's Session: says everything in whatever transaction is open on Django's connection."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        connection.ensure_connection()
        raw: Any = connection.connection
        if not isinstance(raw, psycopg.Connection):
            raise ServiceError(
                f"Django's database {connection.alias!r} is not Postgres through psycopg 3: name another with using=…, "
                "or execute service.outbox_row(event, paramstyle=…)."
            )
        super().__init__(raw)


__all__ = ["DjangoSession", "failure"]
