"""The use of Transaction handlers: effects, outgoing events and progress in one transaction, many events at a time."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from tidings.consuming.executor import Opened, is_of_store, opened
from tidings.consuming.held import STARTED, Exceptions
from tidings.consuming.lanes import Lanes
from tidings.consuming.outage import Outage
from tidings.consuming.pipeline import Pipeline
from tidings.consuming.runner import Taken
from tidings.consuming.subscription import Subscription
from tidings.errors import ConstraintError, StatementError, StoreError, TransactionHeldTooLongError
from tidings.points import reach
from tidings.publishing.outbox import Outbox
from tidings.publishing.producer import Cause, Producer, StableIds
from tidings.publishing.transaction import Transaction
from tidings.rows import PARKED, RETRY, Failure, Held, LaneStep, Record
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World

BATCH_SECONDS = 0.02
"""After so long a batch is closed, that others may have their turn."""


GUARDED_BATCHES = 20
"""So many batches after one in which a handler failed have savepoints, where a store is spared them: failures come in
swarms, and each would have a batch run twice."""

_OF_THE_BATCH = (TransactionHeldTooLongError, ConstraintError, StatementError, UnicodeError, OverflowError)
"""What a transaction as a whole may fail with through the fault of one of its events."""


class _UnguardedError(Exception):
    """A handler failed that had written without a savepoint: the batch is undone, and run again with savepoints."""


class _UndoneError(Exception):
    """A handler failed in its executor's transaction, which is rolled back as a whole; `row` is its verdict."""

    def __init__(self, row: Held) -> None:
        self.row = row


class _Batch:
    """One settling transaction: what its events left behind so far."""

    def __init__(
        self,
        statements: Statements,
        opened: Opened | None,
        closed: set[str],
        uncounted: int,
        outbox: Outbox,
        *,
        guarded: bool = True,
    ) -> None:
        self.statements = statements
        self.opened = opened
        self.guarded = guarded and opened is None
        self.uncounted = uncounted
        self.closed = closed
        self.outbox = outbox
        self.held: list[Held] = []
        self.touched: set[int] = set()
        self.failed: list[int] = []
        self.succeeded = False

    def taken(self, seen: int) -> Taken:
        return Taken(seen, self.failed, self.succeeded)


class Effects:
    """Implements runner.Use for one subscription."""

    def __init__(
        self,
        subscription: Subscription,
        pipeline: Pipeline,
        producer: Producer,
        store: Store,
        world: World,
        one_careful: asyncio.Lock,
    ) -> None:
        self._one_careful = one_careful
        self.batch = store.batch
        self._subscription = subscription
        self._author = subscription.author
        self._pipeline = pipeline
        self._producer = producer
        self._store = store
        self._world = world
        self._exceptions = Exceptions(subscription, world)
        self._cut_off: set[tuple[int, int]] = set()
        # In an executor's transaction there is one event: what a handler did there can only be undone as a whole.
        self._one_by_one: float = 0 if subscription.executor is None else math.inf
        self._guarded: float = math.inf if store.cheap_savepoints else 0  # so many batches more have savepoints

    async def take(
        self, records: Sequence[Record], lanes: Lanes, *, holding: Callable[[], bool], outage: Outage
    ) -> Taken:
        """Settle new records, as many as fit in the time of a batch."""
        if self._one_by_one:
            records = records[:1]
        reach("lane.before_handlers")
        try:
            taken = await self._settle(records, lanes, holding, outage)
        except _UnguardedError:
            self._guarded = GUARDED_BATCHES
            return Taken(0, [], False)
        except _UndoneError as undone:
            steps = lanes.moves({undone.row.lane}, undone.row.position)
            return await self._hold_alone(undone.row, lanes, steps, undone.row.position)
        except _OF_THE_BATCH as error:
            return await self._blame(records, lanes, error)
        self._one_by_one = max(0, self._one_by_one - 1)
        self._guarded = max(0, self._guarded - 1)
        return taken

    async def _settle(
        self, records: Sequence[Record], lanes: Lanes, holding: Callable[[], bool], outage: Outage
    ) -> Taken:
        loop = asyncio.get_running_loop()
        async with opened(self._store, self._subscription.executor) as (statements, joined):
            passed = await self._passed(statements, records)
            closed = await self._closed(statements, records) if holding() else set()
            uncounted, outbox = 0 if outage.counts else 1, Outbox(self._producer.inline)
            batch = _Batch(statements, joined, closed, uncounted, outbox, guarded=self._guarded > 0)
            seen, until = 0, loop.time() + BATCH_SECONDS
            for record in records:
                if record.position in passed:
                    batch.succeeded = True
                elif record.envelope.key in batch.closed:
                    batch.held.append(self._exceptions.behind(record))
                else:
                    await self._deliver(batch, record, 1, ())
                batch.touched.add(record.lane)
                seen = record.position
                if loop.time() > until and not passed:  # the notes of all of them are taken
                    break
            if seen < records[-1].position or len(records) == self.batch:  # there may be more
                lanes.read_ahead(seen, self.batch)
            steps = lanes.moves(batch.touched, seen)
            await self._write(batch, lanes, steps)
        reach("lane.after_commit")
        lanes.confirm(steps, seen)
        return batch.taken(seen)

    async def _passed(self, statements: Statements, records: Sequence[Record]) -> set[int]:
        """Return the positions of what was handled already when it was published: inline projections have such."""
        return set()

    async def _write(self, batch: _Batch, lanes: Lanes, steps: Sequence[LaneStep]) -> None:
        reach("lane.after_handlers")
        if batch.held:
            await self._keep_held(batch.statements, batch.held)
        await lanes.insert(batch.statements, steps)
        await batch.outbox.flush(batch.statements)
        reach("lane.before_commit")

    async def _closed(self, statements: Statements, records: Sequence[Record]) -> set[str]:
        if not self._subscription.ordered:
            return set()
        keys = {record.envelope.key for record in records if record.envelope.key is not None}
        return await statements.closed_keys(self._subscription.name, sorted(keys)) if keys else set()

    async def _deliver(self, batch: _Batch, record: Record, attempt: int, failures: tuple[Failure, ...]) -> bool:
        """Run the handler; keep what it did, or undo it and hold the event. Says whether it was handled."""
        envelope = record.envelope
        mark = batch.outbox.mark()
        transaction = Transaction(
            batch.statements,
            batch.outbox,
            self._producer,
            self._world,
            Cause.of(envelope),
            envelope=envelope,
            ids=StableIds(envelope, self._author),
            attempt=attempt,
            guarded=batch.guarded,
            opened=batch.opened,
            store=self._store,
        )
        try:
            try:
                await self._pipeline.run(envelope, transaction)
            finally:
                transaction.close()
            await transaction.keep()
        except Exception as error:
            executor = self._subscription.executor
            if await is_of_store(error, transaction, batch.statements, executor):  # that is no attempt
                raise (executor.failure(error) if executor is not None else None) or error from error
            row = self._exceptions.failed(record, attempt - batch.uncounted, error, failures)
            if batch.opened is not None:
                raise _UndoneError(row) from error
            await self._undo(batch, transaction)
            batch.outbox.cut(mark)
            batch.held.append(row)
            if row.state != PARKED:
                batch.failed.append(record.position)
            if row.blocks and row.key is not None:
                batch.closed.add(row.key)
            return False
        batch.succeeded = True
        return True

    async def _undo(self, batch: _Batch, transaction: Transaction) -> None:
        if transaction.spoken and not batch.guarded:
            raise _UnguardedError
        await transaction.undo()

    async def _blame(self, records: Sequence[Record], lanes: Lanes, error: Exception) -> Taken:
        """A transaction as a whole failed: find out which event's fault it was by running them one by one."""
        if len(records) > 1:
            self._one_by_one = len(records)
            return Taken(0, [], False)
        record = records[0]
        steps = lanes.moves({record.lane}, record.position)
        return await self._hold_alone(self._exceptions.failed(record, 1, error), lanes, steps, record.position)

    async def _hold_alone(self, row: Held, lanes: Lanes, steps: Sequence[LaneStep], seen: int = 0) -> Taken:
        await self._hold([row], lanes, steps)
        lanes.confirm(steps, seen)
        return Taken(seen, [row.position] if row.state != PARKED else [], False)

    async def _hold(self, rows: Sequence[Held], lanes: Lanes, steps: Sequence[LaneStep]) -> None:
        async def unit(statements: Statements) -> None:
            await self._keep_held(statements, rows)
            await lanes.insert(statements, steps)

        await self._store.run(unit)

    async def _keep_held(self, statements: Statements, rows: Sequence[Held]) -> None:
        await statements.hold(rows)

    async def take_carefully(self, record: Record, lanes: Lanes) -> Taken:
        """Count the attempt in a transaction of its own, by holding the event; then retry it from there."""
        async with self._one_careful:
            return await self._take_counted(record, lanes)

    async def _take_counted(self, record: Record, lanes: Lanes) -> Taken:
        steps = lanes.moves({record.lane}, record.position)

        async def unit(statements: Statements) -> list[Held]:
            closed = await self._closed(statements, [record])
            behind = record.envelope.key in closed
            row = self._exceptions.behind(record) if behind else self._exceptions.started(record, 1, ())
            await statements.hold([row])
            await lanes.insert(statements, steps)
            return [] if behind else [row]

        with self._noting_cuts((record.position, 1)):
            rows = await self._store.run(unit)
        reach("held.attempt_counted")
        lanes.confirm(steps, record.position)
        return await self._run_counted(rows, {record.position: record}, lanes)

    @contextmanager
    def _noting_cuts(self, *counted: tuple[int, int]) -> Iterator[None]:
        """Note which attempts were counted and then cut off because the store failed: their process did not die."""
        try:
            yield
        except StoreError as error:
            if error.retryable:
                self._cut_off.update(counted)
            raise

    async def _run_counted(self, rows: Sequence[Held], records: dict[int, Record], lanes: Lanes) -> Taken:
        """Run the handler of a row whose attempt is counted already."""
        try:
            with self._noting_cuts(*((row.position, row.attempts) for row in rows)):
                return await self._retake(rows, records, lanes, counted=True, outage=None)
        except _UndoneError as undone:
            return await self._hold_alone(undone.row, lanes, lanes.fences({undone.row.lane}))
        except _OF_THE_BATCH as error:
            return await self._hold_again(rows[0], rows[0].attempts, records, lanes, error)

    async def retake(self, rows: Sequence[Held], lanes: Lanes, *, outage: Outage) -> Taken:
        """Try held rows again. One that may kill the process has its attempt counted first."""
        records = await self._store.reading.records([row.position for row in rows])
        suspect = next((row for row in rows if row.reason == STARTED or lanes.careful(row.lane)), None)
        if suspect is not None:
            async with self._one_careful:
                return await self._retake_suspect(suspect, records, lanes)
        if self._one_by_one:
            rows = rows[:1]
        try:
            taken = await self._retake(rows, records, lanes, counted=False, outage=outage)
        except _UndoneError as undone:
            return await self._hold_alone(undone.row, lanes, lanes.fences({undone.row.lane}))
        except _OF_THE_BATCH as error:
            if len(rows) > 1:
                self._one_by_one = len(rows)
                return Taken(0, [], False)
            return await self._hold_again(rows[0], rows[0].attempts + 1, records, lanes, error)
        self._one_by_one = max(0, self._one_by_one - 1)
        return taken

    async def _retake_suspect(self, row: Held, records: dict[int, Record], lanes: Lanes) -> Taken:
        record = records[row.position]
        lanes.calm(row.lane, 1)
        failures, verdict, attempts = row.failures, None, row.attempts
        if row.reason == STARTED and (row.position, row.attempts) in self._cut_off:
            self._cut_off.remove((row.position, row.attempts))
            attempts -= 1
        elif row.reason == STARTED:
            verdict = self._exceptions.failed(record, row.attempts, None, row.failures)
            failures = verdict.failures
        if verdict is None or verdict.state == RETRY:
            verdict = self._exceptions.started(record, attempts + 1, failures)
        counted = verdict
        steps = lanes.fences({row.lane})

        async def unit(statements: Statements) -> bool:
            unchanged = await self._unchanged(statements, row)
            if unchanged:
                await statements.hold([counted])
            await lanes.insert(statements, steps)
            return unchanged

        with self._noting_cuts((counted.position, counted.attempts)):
            unchanged = await self._store.run(unit)
        lanes.confirm(steps)
        reach("held.attempt_counted")
        if not unchanged or counted.state != RETRY:
            return Taken(0, [], False)
        return await self._run_counted([counted], records, lanes)

    async def _hold_again(
        self, row: Held, attempt: int, records: dict[int, Record], lanes: Lanes, error: Exception
    ) -> Taken:
        verdict = self._exceptions.failed(records[row.position], attempt, error, row.failures)
        return await self._hold_alone(verdict, lanes, lanes.fences({row.lane}))

    async def _retake(
        self, rows: Sequence[Held], records: dict[int, Record], lanes: Lanes, *, counted: bool, outage: Outage | None
    ) -> Taken:
        if not rows:
            return Taken(0, [], False)
        loop = asyncio.get_running_loop()
        async with opened(self._store, self._subscription.executor) as (statements, joined):
            uncounted = 0 if counted or outage is None or outage.counts else 1
            batch = _Batch(statements, joined, set(), uncounted, Outbox(self._producer.inline))
            waiting, until = deque(rows), loop.time() + BATCH_SECONDS
            while waiting and loop.time() <= until:
                row = waiting.popleft()
                if not await self._unchanged(statements, row):
                    continue
                attempt = row.attempts + (0 if counted else 1)
                handled = await self._deliver(batch, records[row.position], attempt, row.failures)
                batch.touched.add(row.lane)
                if handled:
                    await statements.unhold(row.subscription, row.position)
                if handled or not batch.held[-1].blocks:
                    await self._follow(statements, row, waiting, records)
                counted = False
                if self._one_by_one:
                    break  # the follower, a head now, is the next turn's
            steps = lanes.fences(batch.touched)
            await self._write(batch, lanes, steps)
            reach("held.before_commit")
        lanes.confirm(steps)
        return batch.taken(0)

    async def _follow(
        self, statements: Statements, row: Held, waiting: deque[Held], records: dict[int, Record]
    ) -> None:
        """The head of a key is settled: its first follower is the next head, here and now if time allows."""
        if row.key is None or not row.blocks:
            return
        follower = await statements.next_behind(row.subscription, row.key)
        if follower is None:
            return
        head = replace(follower, state=RETRY, due=self._world.now(), updated=self._world.now())
        await statements.hold([head])
        records.update(await statements.records([head.position]))
        waiting.append(head)

    async def _unchanged(self, statements: Statements, row: Held) -> bool:
        """Say whether a row is still as it was read: an operator may have discarded it meanwhile."""
        current = await statements.held(row.subscription, [row.position])
        return bool(current) and current[0].state == row.state and current[0].attempts == row.attempts
