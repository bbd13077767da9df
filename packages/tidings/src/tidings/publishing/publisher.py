"""What a service says and reads, wherever it is: in a web handler, a script, a test."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

from tidings.columns import envelope_row, lane_hash
from tidings.errors import StoreError
from tidings.events import Envelope, Event
from tidings.publishing.appending import Expected, refusal, wrap_for_stream
from tidings.publishing.outbox import Outbox, due_at, in_paramstyle
from tidings.publishing.producer import HANDLING, NO_CAUSE, Cause, Producer, check_traceparent
from tidings.publishing.transaction import Reading, Row, Told, Transaction
from tidings.statements import Value
from tidings.store import Store
from tidings.world import World


class Publisher:
    """Publishes in one's own transactions or a caller's, and reads committed state. `Service` is one."""

    name: str
    world: World
    store: Store
    _producer: Producer

    async def publish(
        self,
        event: Event,
        *,
        id: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> Envelope:
        """Publish an event in a transaction of its own; returns once it is durable.

        After a cancellation or an error it may have been published: publish again with the same `id`, which then
        changes nothing. `traceparent` is that of W3C trace context. Raises EventEncodeError, StoreError.
        """
        outbox = Outbox(self._producer.inline)
        envelope = self.buffer(outbox, event, id, delay, at, correlation, traceparent)
        try:
            if outbox.inline is not None and outbox.inline.takes([envelope]):
                async with self.store.transaction() as statements:
                    await outbox.flush(statements)
            elif outbox.envelopes:
                await self.store.publish(outbox.envelopes)
            else:
                await self.store.run(outbox.flush)
        except StoreError as error:
            error.store = self.store
            raise
        return envelope

    async def append(
        self,
        stream: str,
        events: Sequence[Event],
        *,
        expected: Expected,
        correlation: str | None = None,
        causation: str | None = None,
        traceparent: str | None = None,
    ) -> list[Envelope]:
        """Append events to a stream in a transaction of its own, if it is at the `expected` version.

        That is the number of its last event; NO_STREAM: it is not there yet; ANY: whatever it is. `causation`: the id
        of what led to it, where no event is being handled. Returns the envelopes, which know their versions, once they
        are durable. Raises StreamConflictError (somebody else was first: decide again),
        StreamArchivedError, EventEncodeError, StoreError.
        """
        cause = self._cause(correlation, traceparent, causation)
        append = wrap_for_stream(self._producer, stream, events, expected, cause, None)
        if self._producer.inline is not None and self._producer.inline.takes(append.envelopes):
            async with self.begun(cause) as tx:
                return await tx.append(stream, events, expected=expected)
        with Told(self.store):
            head = await self.store.append(append)
            if head is None:
                raise await refusal(self.store.reading, append)
        return append.placed(head)

    def buffer(
        self,
        outbox: Outbox,
        event: Event,
        id: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> Envelope:
        """Wrap an event into an outbox, which the caller writes. For integrations; see `publish`."""
        due = due_at(self.world, delay, at)
        envelope = self._producer.wrap(event, self._cause(correlation, traceparent), id)
        outbox.add(envelope, due, chosen_id=id is not None)
        return envelope

    def outbox_row(
        self,
        event: Event,
        *,
        paramstyle: Literal["numeric_dollar", "pyformat", "qmark"] = "numeric_dollar",
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> tuple[str, tuple[Any, ...]]:
        """Return `(sql, params)` that publish an event: execute them in any transaction on the store's database.

        For drivers without an integration. `paramstyle` is that of the driver: `$1`, `%s` or `?`. Execute it as the
        transaction's last statement: until the commit every reader of the log waits for it.
        """
        envelope = self._producer.wrap(event, self._cause(correlation, traceparent))
        return in_paramstyle(self.store.append_sql, paramstyle), (lane_hash(envelope), *envelope_row(envelope))

    @asynccontextmanager
    async def transaction(
        self, *, correlation: str | None = None, traceparent: str | None = None
    ) -> AsyncIterator[Transaction]:
        """Open a transaction: SQL, and events published if and only if it commits. Not longer than the store allows."""
        async with self.begun(self._cause(correlation, traceparent)) as transaction:
            yield transaction

    @asynccontextmanager
    async def begun(self, cause: Cause) -> AsyncIterator[Transaction]:
        """Open a transaction whose events have this cause. For the library's own use; see `transaction`."""
        with Told(self.store) as told:
            async with self.store.transaction() as statements:
                outbox = Outbox(self._producer.inline)
                transaction = Transaction(statements, outbox, self._producer, self.world, cause, store=self.store)
                try:
                    yield transaction
                except BaseException as error:
                    told.foreign = error if error is not transaction.failure else None
                    raise
                finally:
                    transaction.close()
                await transaction.keep()
                await outbox.flush(statements)

    def _cause(self, correlation: str | None, traceparent: str | None, causation: str | None = None) -> Cause:
        if traceparent is not None:
            check_traceparent(traceparent)
        handling = HANDLING.get()
        if handling is None:
            return Cause(correlation, causation, traceparent) if correlation or causation or traceparent else NO_CAUSE
        return Cause(correlation or handling.correlation, handling.id, traceparent or handling.traceparent)

    async def cancel(self, event_id: str) -> bool:
        """Cancel a delayed publish; False if it has become an event already, or is not known."""
        with Told(self.store):
            return await self.store.run(lambda statements: statements.cancel(self.name, event_id))

    # Reading.

    async def fetch_all(self, sql: str, *args: Value) -> list[Row]:
        """Return every row of a query over committed state."""
        with Told(self.store):
            return await Reading(self.store.reading).fetch_all(sql, *args)

    async def fetch_one(self, sql: str, *args: Value) -> Row | None:
        """Return the first row of a query over committed state, or None."""
        with Told(self.store):
            return await Reading(self.store.reading).fetch_one(sql, *args)

    async def fetch_value(self, sql: str, *args: Value) -> Any:
        """Return the first column of the first row, or None."""
        with Told(self.store):
            return await Reading(self.store.reading).fetch_value(sql, *args)
