"""The user's hand on a transaction: SQL, and events that are published if and only if it commits."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from msgspec.structs import replace

from tidings.errors import StatementError, StoreError, TransactionClosedError
from tidings.events import Envelope, Event
from tidings.publishing.appending import Expected, refusal, wrap_for_stream
from tidings.publishing.outbox import Mark, Outbox, due_at
from tidings.publishing.producer import Cause, Producer, StableIds
from tidings.statements import Statements, Value
from tidings.world import World, moment

T = TypeVar("T")


class Told:
    """Notes on the errors that leave a block that the store told them; `foreign` is one that the user's code raised."""

    __slots__ = ("_store", "foreign")

    def __init__(self, store: object) -> None:
        self._store = store
        self.foreign: BaseException | None = None

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # An executor tells an error of its library in our words, and names it as the cause.
        if isinstance(error, StoreError) and (self.foreign is None or self.foreign not in (error, error.__cause__)):
            error.store = self._store


class Row:
    """One row of a result: by position, or by column name."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, column: int | str) -> Any:
        if isinstance(column, int):
            return self._values[column]
        try:
            return self._values[self._names.index(column)]
        except ValueError:
            raise KeyError(f"no column {column!r}; there are {', '.join(self._names)}") from None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == (tuple(other) if isinstance(other, Row | tuple | list) else other)

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in zip(self._names, self._values, strict=True))})"

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a dict of column name to value."""
        return dict(zip(self._names, self._values, strict=True))


class Queries:
    """Reading with SQL. Placeholders are `$1`, `$2`, …; raises StatementError for SQL that cannot run."""

    __slots__ = ()

    async def _query(self, sql: str, args: tuple[Value, ...]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        raise NotImplementedError

    async def fetch_all(self, sql: str, *args: Value) -> list[Row]:
        """Return every row."""
        names, rows = await self._query(sql, args)
        return [Row(names, row) for row in rows]

    async def fetch_one(self, sql: str, *args: Value) -> Row | None:
        """Return the first row, or None."""
        names, rows = await self._query(sql, args)
        return Row(names, rows[0]) if rows else None

    async def fetch_value(self, sql: str, *args: Value) -> Any:
        """Return the first column of the first row, or None."""
        _, rows = await self._query(sql, args)
        return rows[0][0] if rows else None


class Reading(Queries):
    """Queries over committed state."""

    __slots__ = ("_statements",)

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def _query(self, sql: str, args: tuple[Value, ...]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        return await self._statements.query(sql, args)


class Transaction(Queries):
    """A transaction that commits when its block or handler ends, and rolls back when that raises.

    In a handler, `envelope` is what is being handled and `attempt` counts from 1; outside, None and 0.
    """

    __slots__ = ("_cause", "_guarded", "_ids", "_open", "_outbox", "_producer", "_statements", "_store",
                 "_world", "attempt", "envelope", "failure", "opened", "spoken")  # fmt: skip

    def __init__(
        self,
        statements: Statements,
        outbox: Outbox,
        producer: Producer,
        world: World,
        cause: Cause,
        *,
        envelope: Envelope | None = None,
        ids: StableIds | None = None,
        attempt: int = 0,
        guarded: bool = False,
        opened: Any = None,
        store: object = None,
    ) -> None:
        self._statements = statements
        self._outbox = outbox
        self._producer = producer
        self._world = world
        self._cause = cause
        self._ids = ids
        self._guarded = guarded
        self.spoken = False
        self._open = True
        self._store = store
        self.failure: StoreError | None = None
        self.opened = opened
        self.envelope = envelope
        self.attempt = attempt

    async def execute(self, sql: str, *args: Value) -> int:
        """Execute a statement; return how many rows it changed.

        Raises ConstraintError when a constraint refuses a row, StatementError for SQL that cannot run.
        """
        try:
            await self._ready()
            return await self._statements.execute(sql, args)
        except StoreError as error:
            raise self._noted(error)  # noqa: B904 - it is the same error

    async def _query(self, sql: str, args: tuple[Value, ...]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        try:
            await self._ready()
            return await self._statements.query(sql, args)
        except StoreError as error:
            raise self._noted(error)  # noqa: B904 - it is the same error

    def _noted(self, error: StoreError) -> StoreError:
        """Note that the store failed: nothing of this transaction may commit, also if its block goes on."""
        error.store = self._store
        if error.retryable:
            self.failure = error
        return error

    def publish(
        self, event: Event, *, id: str | None = None, delay: timedelta | None = None, at: datetime | None = None
    ) -> Envelope:
        """Publish an event when this transaction commits, or after `delay`, or `at` an aware datetime.

        Returns its envelope. In a handler the n-th publish has the same id on every attempt. Publishing again with
        the same `id` changes nothing.
        """
        return self.buffer(self._outbox, event, id, delay, at)

    def buffer(
        self,
        outbox: Outbox,
        event: Event,
        id: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> Envelope:
        """Wrap an event into an outbox that the caller writes. For integrations; see `publish`."""
        self._check_open()
        due = due_at(self._world, delay, at)
        envelope = self._producer.wrap(event, self._cause, id or (self._ids.next() if self._ids else None))
        outbox.add(envelope, due, chosen_id=id is not None)
        return envelope

    async def append(self, stream: str, events: Sequence[Event], *, expected: Expected) -> list[Envelope]:
        """Append events to a stream, if it is at the `expected` version (NO_STREAM: not there yet; ANY: whatever).

        The stream is taken at once, and nobody else appends to it until this transaction ends; the events are written
        as its last statement. Raises StreamConflictError, after which the transaction goes on, and StreamArchivedError.
        """
        append = wrap_for_stream(self._producer, stream, events, expected, self._cause, self._ids)
        async with self.speaking() as statements:
            head = await statements.move_head(stream, append.expected, len(append.envelopes))
            if head is None:
                raise await refusal(statements, append)
        placed = append.placed(head)
        self._outbox.envelopes.extend(placed)
        return placed

    @asynccontextmanager
    async def part(self, command: str, ids: StableIds | None) -> "AsyncIterator[Transaction]":
        """Open a part of this transaction that is undone alone if it raises. For the library's own use.

        Its events are caused by a command of this id, unless by what is being handled; `ids` are theirs.
        """
        async with self.speaking() as statements:
            await statements.savepoint()
        mark, own = self._outbox.mark(), self._cause
        cause = replace(own, correlation=own.correlation or command, causation=own.causation or command)
        part = Transaction(
            statements, self._outbox, self._producer, self._world, cause, envelope=self.envelope,
            ids=ids or self._ids, attempt=self.attempt, opened=self.opened, store=self._store,
        )  # fmt: skip
        try:
            yield part
            if part.failure is not None:
                raise part.failure
            async with self.speaking():
                await statements.release()
        except Exception:
            self.failure = self.failure or part.failure
            self._outbox.cut(mark)
            if self.failure is None:
                await statements.roll_back_to_savepoint()
            raise
        except BaseException:  # cut off in the middle: what it has said may be half of what it meant
            self.failure = self.failure or StatementError(
                "What was executed within this transaction was cut off, so nothing of it may commit: let it roll back."
            )
            raise
        finally:
            part.close()

    def published(self, since: Mark) -> list[Envelope]:
        """Return what this transaction has published after a mark, and what is not to come later."""
        return [*self._outbox.envelopes[since[0] :], *self._outbox.chosen[since[2] :]]

    def mark(self) -> Mark:
        """Return how much this transaction has published so far. For the library's own use."""
        return self._outbox.mark()

    def appended(self, stream: str) -> list[Envelope]:
        """Return what this transaction has appended to a stream: it is not in the log before the commit."""
        return [envelope for envelope in self._outbox.envelopes if envelope.stream == stream]

    async def statements(self) -> Statements:
        """Return what speaks to the store within this transaction. For the library's own use."""
        await self._ready()
        return self._statements

    async def cancel(self, event_id: str) -> bool:
        """Cancel a delayed publish; False if it has become an event already, or is not known."""
        async with self.speaking() as statements:
            # What was planned in the same transaction is not in the store yet.
            return self._outbox.cancel(event_id) or await statements.cancel(self._producer.source, event_id)

    def now(self) -> datetime:
        """Return the service's present time."""
        return moment(self._world.now())

    def stable_id(self, name: str) -> str:
        """Return an id of this delivery and a name, the same on every attempt. Only in a handler."""
        assert self._ids is not None
        return self._ids.named(name)

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[Statements]:
        """Give the store's own statements within this transaction. For the library's own use."""
        try:
            yield await self.statements()
        except StoreError as error:
            raise self._noted(error)  # noqa: B904 - it is the same error

    @property
    def hand(self) -> Any:
        """What the subscription's executor opened (a session, a connection); None without one."""
        return self.opened.hand if self.opened is not None else None

    async def _ready(self) -> None:
        self._check_open()
        if not self.spoken:
            self.spoken = True
            if self._guarded:
                await self._statements.savepoint()

    def _check_open(self) -> None:
        if not self._open:
            raise TransactionClosedError(
                "This transaction has ended: use it only inside its handler or `async with` block."
            )

    # What runs the handler ends its part of the transaction: keeps it, or undoes it alone.

    def close(self) -> None:
        """End it whatever happened: nothing may be said through it any more. For the library's own use."""
        self._open = False

    async def keep(self) -> None:
        """End this part of a shared transaction and keep it; raises the store's failure that its block swallowed."""
        self._open = False
        if self.failure is not None:
            raise self.failure
        if self.opened is not None:
            try:
                await self.opened.check()
            except StoreError as error:
                raise self._noted(error)  # noqa: B904 - it is the same error
        if self.spoken and self._guarded:
            await self._statements.release()

    async def undo(self) -> None:
        """End this part of a shared transaction and undo it. For the library's own use."""
        self._open = False
        if self.spoken and self._guarded:
            await self._statements.roll_back_to_savepoint()


class SyncTransaction:
    """The same transaction for a handler that is a plain function and runs in a thread."""

    def __init__(self, transaction: Transaction, loop: asyncio.AbstractEventLoop) -> None:
        self._transaction = transaction
        self._loop = loop

    @property
    def envelope(self) -> Envelope | None:
        """What is being handled."""
        return self._transaction.envelope

    @property
    def hand(self) -> Any:
        """What the subscription's executor opened (a session, a connection); None without one."""
        return self._transaction.hand

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._transaction.attempt

    def execute(self, sql: str, *args: Value) -> int:
        """Execute a statement; return how many rows it changed."""
        return self._wait(self._transaction.execute(sql, *args))

    def fetch_all(self, sql: str, *args: Value) -> list[Row]:
        """Return every row."""
        return self._wait(self._transaction.fetch_all(sql, *args))

    def fetch_one(self, sql: str, *args: Value) -> Row | None:
        """Return the first row, or None."""
        return self._wait(self._transaction.fetch_one(sql, *args))

    def fetch_value(self, sql: str, *args: Value) -> Any:
        """Return the first column of the first row, or None."""
        return self._wait(self._transaction.fetch_value(sql, *args))

    def publish(self, event: Event, *, delay: timedelta | None = None, at: datetime | None = None) -> Envelope:
        """Publish an event when the transaction commits."""
        return self._transaction.publish(event, delay=delay, at=at)

    def append(self, stream: str, events: Sequence[Event], *, expected: Expected) -> list[Envelope]:
        """Append events to a stream; see Transaction.append."""
        return self._wait(self._transaction.append(stream, events, expected=expected))

    def cancel(self, event_id: str) -> bool:
        """Cancel a delayed publish."""
        return self._wait(self._transaction.cancel(event_id))

    def now(self) -> datetime:
        """Return the service's present time."""
        return self._transaction.now()

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
