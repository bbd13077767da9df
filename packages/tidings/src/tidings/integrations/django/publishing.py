"""Publishing in Django's transactions: events wait in the transaction, and one insert before COMMIT writes them all.

Django calls nobody before a commit. So what is pending is registered with `transaction.on_commit`, which forgets it
when the transaction is rolled back, and the connection's `commit`, `savepoint` and `savepoint_rollback` are wrapped.
"""

from datetime import datetime, timedelta
from itertools import count

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

_numbers = count(1)


class _Pending:
    """Published, and not written yet. As a callback of on_commit it has nothing left to do."""

    def __init__(self, publisher: Publisher, outbox: Outbox) -> None:
        self.number = next(_numbers)
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
        _watch(connection)
        transaction.on_commit(pending, using=using)
    elif connection.get_autocommit():
        with transaction.atomic(using=using):
            _write(connection, [pending])
    else:
        _write(connection, [pending])
    return envelope


class _Watched:
    """What one connection does at a commit and at savepoints, with an eye on what is pending."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._commit, self._savepoint = connection.commit, connection.savepoint
        self._savepoint_rollback = connection.savepoint_rollback
        self._marks: dict[str, int] = {}
        connection.commit, connection.savepoint = self.commit, self.savepoint
        connection.savepoint_rollback = self.savepoint_rollback

    def _pending(self) -> list[_Pending]:
        callbacks = [entry[1] for entry in self._connection.run_on_commit]
        return [one for one in callbacks if isinstance(one, _Pending)]

    def commit(self) -> None:
        """Write what is pending, then commit."""
        _write(self._connection, self._pending())
        self._commit()

    def savepoint(self) -> str | None:
        """Make a savepoint, and mark what was pending before it."""
        sid: str | None = self._savepoint()
        pending = self._pending()
        if not pending:
            self._marks.clear()  # all that will be pending comes after every savepoint there is
        elif sid is not None:
            self._marks[sid] = pending[-1].number
        return sid

    def savepoint_rollback(self, sid: str) -> None:
        """Roll back to a savepoint, and forget what was published after it."""
        self._savepoint_rollback(sid)
        last = self._marks.get(sid, 0)
        self._connection.run_on_commit = [
            entry
            for entry in self._connection.run_on_commit
            if not (isinstance(entry[1], _Pending) and entry[1].number > last)
        ]


def _watch(connection: BaseDatabaseWrapper) -> None:
    if not isinstance(getattr(connection.commit, "__self__", None), _Watched):
        _Watched(connection)


def _write(connection: BaseDatabaseWrapper, pending: list[_Pending]) -> None:
    together: dict[Publisher, Outbox] = {}
    for one in pending:
        outbox = together.setdefault(one.publisher, Outbox())
        outbox.scheduled += one.outbox.scheduled
        outbox.chosen += one.outbox.chosen
        outbox.envelopes += one.outbox.envelopes
        one.outbox.cut((0, 0, 0, 0))
    try:
        for publisher, outbox in together.items():
            driven(flush(outbox, DjangoSession(connection), publisher))
    except TidingsError as error:
        # `atomic` rolls back for its own kind of error only.
        raise django.db.DatabaseError(f"The published events could not be written: {error}") from error
