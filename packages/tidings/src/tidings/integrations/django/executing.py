"""Handlers that write through Django's models: their transaction is `atomic`, and settling joins it."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import close_old_connections, connections, transaction

from tidings.consuming.executor import Executor
from tidings.integrations.django.sessions import DjangoSession, failure
from tidings.integrations.threads import Begun, BlockingExecutor


def django_executor(using: str = "default") -> Executor:
    """Let handlers write through models: plain functions `(event)` or `(event, tx: SyncTransaction)`, in a thread.

    As after a request, connections that are older than CONN_MAX_AGE are closed.
    """

    @contextmanager
    def begin() -> Iterator[Begun]:
        close_old_connections()
        try:
            with transaction.atomic(using=using, durable=True):
                connection = connections[using]
                yield DjangoSession(connection), None, connection, connection.connection
        finally:
            close_old_connections()

    return BlockingExecutor(begin, failure, ())
