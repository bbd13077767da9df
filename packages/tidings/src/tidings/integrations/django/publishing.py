"""Publishing in Django's transactions: events wait in the transaction, and one insert before COMMIT writes them all.

Django calls nobody before a commit. So `publish` wraps the `commit` of the connection it is called on, once; and
because `transaction.on_commit` forgets what a rolled-back savepoint had registered, pending events are put there.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import django.db
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from tidings.consuming.executor import driven
from tidings.errors import TidingsError
from tidings.events import Envelope, Event
from tidings.integrations.django.sessions import DjangoSession
from tidings.integrations.joining import Publisher, flush, publisher_on
from tidings.publishing.outbox import Outbox
from tidings.service import Service


class _Pending:
    """Published, and not written yet. As a callback of on_commit it has nothing left to do."""

    def __init__(self, publisher: Publisher, outbox: Outbox) -> None:
        self.publisher = publisher
        self.outbox = outbox

    def __call__(self) -> None:
        """Do nothing: the events were written before the commit."""


def publish(
    event: Event,
    *,
    using: str = "default",
    service: Service | None = None,
    id: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
) -> Envelope:
    """Publish an event if and only if the transaction that is open on a database commits.

    Inside `transaction.atomic` all events are written by one insert before COMMIT; a savepoint rolled back takes its
    events along. Outside, it is a transaction of its own. Under `set_autocommit(False)` the insert is made at once.
    `service` may be left out where the process has one. Raises ServiceError and EventEncodeError; the commit raises
    django.db.DatabaseError if the insert fails.
    """
    connection = connections[using]
    publisher = publisher_on(connection, service)
    pending = _Pending(publisher, Outbox())
    envelope = publisher.buffer(pending.outbox, event, id, delay, at)
    if connection.in_atomic_block:
        _write_before_commit(connection)
        transaction.on_commit(pending, using=using)
    elif connection.get_autocommit():
        with transaction.atomic(using=using):
            _write(connection, [pending])
    else:
        _write(connection, [pending])
    return envelope


def _write_before_commit(connection: BaseDatabaseWrapper) -> None:
    if isinstance(connection.commit, _Commit):
        return
    connection.commit = _Commit(connection, connection.commit)


class _Commit:
    """The `commit` of one connection: writes what is pending first."""

    def __init__(self, connection: BaseDatabaseWrapper, commit: Callable[[], None]) -> None:
        self._connection = connection
        self._commit = commit

    def __call__(self) -> None:
        callbacks = [entry[1] for entry in self._connection.run_on_commit]
        _write(self._connection, [one for one in callbacks if isinstance(one, _Pending)])
        self._commit()


def _write(connection: BaseDatabaseWrapper, pending: list[_Pending]) -> None:
    together: dict[Publisher, Outbox] = {}
    for one in pending:
        outbox = together.setdefault(one.publisher, Outbox())
        outbox.scheduled += one.outbox.scheduled
        outbox.chosen += one.outbox.chosen
        outbox.envelopes += one.outbox.envelopes
        one.outbox.cut((0, 0, 0))
    try:
        for publisher, outbox in together.items():
            driven(flush(outbox, DjangoSession(connection), publisher))
    except TidingsError as error:
        # `atomic` rolls back for its own kind of error only.
        raise django.db.DatabaseError(f"The published events could not be written: {error}") from error
