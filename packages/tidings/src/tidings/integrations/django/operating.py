"""What the admin does to dead letters: the library's own operations, in Django's transaction."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

from django.db import connections, transaction

from tidings.backends.postgres.fence import Fence
from tidings.backends.postgres.notices import CHANNEL
from tidings.backends.postgres.statements import PostgresStatements
from tidings.consuming.executor import driven
from tidings.integrations.django.models import DeadLetter
from tidings.integrations.django.sessions import DjangoSession
from tidings.operations import Filter, Outcome
from tidings.operations import discard as give_up
from tidings.operations import redrive as try_again
from tidings.rows import DEAD, PARKED
from tidings.statements import Statements
from tidings.world import microseconds

T = TypeVar("T")

SENDER = "django"
"""Who the notices say they are from: not a worker, so every worker hears them."""


class _Operated:
    """As much of tidings.store.Store as operations on dead letters ask for, in the transaction that is open."""

    def __init__(self, session: DjangoSession) -> None:
        # What is said of held rows does not depend on the number of lanes.
        self.statements = PostgresStatements(session, 1, Fence(session), locking=True)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Statements]:
        """The statements; what they show is looked at again before it is changed."""
        yield self.statements

    async def run(self, unit: Callable[[Statements], Awaitable[T]]) -> T:
        """Run a unit."""
        return await unit(self.statements)


def redrive(letters: Collection[DeadLetter], *, actor: str, now: datetime, using: str) -> Outcome:
    """Let dead letters be tried again."""
    return _operate(
        lambda store, which: try_again(store, which, actor=actor, now=microseconds(now)),  # type: ignore[arg-type]
        letters,
        using,
    )


def discard(letters: Collection[DeadLetter], *, actor: str, reason: str, now: datetime, using: str) -> Outcome:
    """Give dead letters up; raises OperationError without a reason."""
    return _operate(
        lambda store, which: give_up(store, which, actor=actor, reason=reason, now=microseconds(now)),  # type: ignore[arg-type]
        letters,
        using,
    )


def _operate(
    operation: Callable[[_Operated, Filter], Coroutine[Any, Any, Outcome]], letters: Collection[DeadLetter], using: str
) -> Outcome:
    addresses = frozenset((letter.position, letter.subscription) for letter in letters)
    with transaction.atomic(using=using):
        session = DjangoSession(connections[using])
        store = _Operated(session)
        outcome = driven(operation(store, Filter(states=(DEAD, PARKED), addresses=addresses)))
        driven(
            session.rows("SELECT pg_notify($1, $2)", CHANNEL, "\n".join((SENDER, *sorted(store.statements.touched))))
        )
    return outcome
