"""asyncpg: publish in the transaction of a connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from tidings.backends.postgres.driver import HeldSession
from tidings.events import Envelope, Event
from tidings.integrations.joining import Block, flush
from tidings.publishing.outbox import Outbox
from tidings.service import Service, only_service

if TYPE_CHECKING:
    from asyncpg import Connection
    from asyncpg.pool import PoolConnectionProxy

    AnyConnection = Connection[Any] | PoolConnectionProxy[Any]

__all__ = ["Publish", "outbox", "publish"]


class Publish(Protocol):
    """What `outbox` gives: publishes when the block ends."""

    def __call__(
        self, event: Event, *, id: str | None = None, delay: timedelta | None = None, at: datetime | None = None
    ) -> Envelope:
        """Publish an event; see tidings.Transaction.publish."""


async def publish(
    connection: "AnyConnection",
    event: Event,
    *,
    service: Service | None = None,
    id: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
) -> Envelope:
    """Publish an event in the transaction of a connection, by an insert now; outside one, in one of its own.

    Let it be the transaction's last statement, because readers of the log wait for a transaction that has published;
    or use `outbox`. `service` may be left out where the process has one. Raises ServiceError, EventEncodeError,
    StoreError.
    """
    pending = Outbox()
    publisher = service or only_service()
    envelope = publisher.buffer(pending, event, id, delay, at)
    if connection.is_in_transaction() or not (pending.chosen or pending.scheduled):  # one insert is a transaction
        await flush(pending, HeldSession(connection), publisher)  # type: ignore[arg-type]  # a proxy does the same
    else:
        async with connection.transaction():
            await flush(pending, HeldSession(connection), publisher)  # type: ignore[arg-type]  # a proxy does the same
    return envelope


@asynccontextmanager
async def outbox(connection: "AnyConnection", *, service: Service | None = None) -> AsyncIterator[Publish]:
    """Open `connection.transaction()` and give a function that publishes: all is inserted at once before the commit.

    Blocks nest, as transactions do: an inner one rolled back takes its events along. A publish after the block raises
    TransactionClosedError.
    """
    block = Block(service or only_service())
    async with connection.transaction():
        with block:
            yield block.publish
        await flush(block.outbox, HeldSession(connection), block.publisher)  # type: ignore[arg-type]  # as above
