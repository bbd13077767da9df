"""The use of Work handlers: lanes fill the ready queue; handlers run outside any transaction; finish() settles."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from tidings.consuming.executor import Opened
from tidings.consuming.held import DIED_IN_IT, Exceptions
from tidings.consuming.lanes import Lanes
from tidings.consuming.outage import PROBE, Outage
from tidings.consuming.pipeline import Pipeline
from tidings.consuming.runner import Taken
from tidings.consuming.subscription import Subscription
from tidings.consuming.suspects import AliveIn, Suspects
from tidings.consuming.work import Work
from tidings.errors import LeaseLostError, ParkedEventError, StoreError
from tidings.events import Envelope
from tidings.points import reach
from tidings.publishing.outbox import Outbox
from tidings.publishing.producer import Cause, Producer, StableIds
from tidings.publishing.transaction import Transaction
from tidings.rows import BEHIND, Held, Ready, Record
from tidings.statements import Statements
from tidings.store import READY_CHANGED, Store
from tidings.world import World

log = logging.getLogger("tidings")

FILL = 500
"""Events that one turn moves into the ready queue at most."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between tries to settle while the store fails: doubled up to the longest."""


class Filling:
    """Implements runner.Use: the lane fills the ready queue, one row per key at a time where order is kept."""

    def __init__(self, subscription: Subscription, store: Store, world: World) -> None:
        self.batch = FILL
        self._subscription = subscription
        self._store = store
        self._exceptions = Exceptions(subscription, world)

    async def take(
        self, records: Sequence[Record], lanes: Lanes, *, holding: Callable[[], bool], outage: Outage
    ) -> Taken:
        """Move new records into the ready queue, or behind the one of their key."""
        seen = records[-1].position
        steps = lanes.moves({record.lane for record in records}, seen)

        async def unit(statements: Statements) -> None:
            await lanes.insert(statements, steps)  # first: another owner may have filled these rows
            closed = await self._closed(statements, [record.envelope.key for record in records])
            ready, behind = [], []
            for record in records:
                key = record.envelope.key
                if self._subscription.ordered and key is not None and key in closed:
                    behind.append(self._exceptions.behind(record))
                    continue
                ready.append(self._row(record))
                if key is not None:
                    closed.add(key)
            await self._write(statements, ready, behind)

        await self._store.run(unit)
        reach("ready.filled")
        lanes.confirm(steps, seen)
        return Taken(seen, [], False)

    async def take_carefully(self, record: Record, lanes: Lanes) -> Taken:
        """Filling runs no code of the user: nothing to be careful about."""
        lanes.calm(record.lane, FILL)
        return Taken(0, [], False)

    async def retake(self, rows: Sequence[Held], lanes: Lanes, *, outage: Outage) -> Taken:
        """Move retries that are due, and followers whose key is free, back into the ready queue."""
        steps = lanes.fences({row.lane for row in rows})
        records = await self._store.reading.records([row.position for row in rows])

        async def unit(statements: Statements) -> None:
            await lanes.insert(statements, steps)
            current = {row.position: row for row in await statements.held(self._subscription.name, [*records])}
            keys = sorted({row.key for row in rows if row.key is not None and row.blocks})
            closed = await statements.closed_keys(self._subscription.name, keys, by_work=True) if keys else set()
            for row in rows:
                if row.position not in current or current[row.position].state != row.state:
                    continue  # an operator was faster
                if row.blocks and row.key in closed:  # of its two heads, see next_behind, one has its turn already
                    await statements.hold([replace(row, state=BEHIND, due=None)])
                    continue
                await statements.unhold(row.subscription, row.position)
                await statements.fill([_again(row, records[row.position])])
                if row.blocks and row.key is not None:
                    closed.add(row.key)

        await self._store.run(unit)
        lanes.confirm(steps)
        return Taken(0, [], False)

    async def _closed(self, statements: Statements, keys: Sequence[str | None]) -> set[str]:
        if not self._subscription.ordered:
            return set()
        named = sorted({key for key in keys if key is not None})
        return await statements.closed_keys(self._subscription.name, named) if named else set()

    async def _write(self, statements: Statements, ready: Sequence[Ready], behind: Sequence[Held]) -> None:
        if ready:
            await statements.fill(ready)
        if behind:
            await statements.hold(behind)

    def _row(self, record: Record) -> Ready:
        envelope = record.envelope
        key = envelope.key if self._subscription.ordered else None
        return Ready(self._subscription.name, envelope.share or "", record.position, record.lane, key)


def _again(row: Held, record: Record) -> Ready:
    return Ready(
        subscription=row.subscription,
        share=record.envelope.share or "",
        position=row.position,
        lane=row.lane,
        key=row.key if row.blocks else None,
        attempt=row.attempts,
        failures=row.failures,
    )


class WorkRunner:
    """Claims work and runs its handlers, up to the subscription's concurrency at a time."""

    def __init__(
        self,
        subscription: Subscription,
        pipeline: Pipeline,
        producer: Producer,
        store: Store,
        world: World,
        worker: str,
        outage: Outage,
        one_suspect: asyncio.Lock,
        is_calm: Callable[[], bool],
    ) -> None:
        self.name = subscription.name
        self.outage = outage
        self._suspects = Suspects(
            self.name, store, world, worker, one_suspect, lambda: is_calm() and not self._is_held_up(), self._start
        )
        self._subscription = subscription
        self._pipeline = pipeline
        self._producer = producer
        self._store = store
        self._world = world
        self._worker = worker
        self._exceptions = Exceptions(subscription, world)
        self._running: dict[asyncio.Task[None], Work] = {}
        self._rows: list[Ready] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._share = ""
        self._in_doubt = False  # whether a claim or a settlement failed: this worker may have work that nobody runs
        self._paused = True  # until the subscription's row was read

    def wake(self) -> None:
        """Let work be claimed: there may be some."""
        self._wake.set()

    def pause(self, paused: bool) -> None:
        """Claim nothing while paused."""
        self._paused = paused
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._wake.set()
        for work in self._running.values():
            work.stopping = True

    async def run(self) -> None:
        """Claim and run until stopped and every handler has ended."""
        stop_listening = self._store.listen([READY_CHANGED], self.wake)
        try:
            while not self._stopping:
                self._wake.clear()
                if not await self._claim_safely():
                    await self._sleep()
            while self._running:
                await asyncio.wait(self._running)
        finally:
            stop_listening()
            self._suspects.stop()

    async def abandon(self) -> None:
        """Cancel the handlers that did not end in time. Their attempts are not counted."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=5)

    async def _sleep(self) -> None:
        wait = self.outage.wait(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(wait or None):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _claim_safely(self) -> bool:
        try:
            return await self._claim()
        except Exception as error:
            log.warning("%s: claiming work failed and is tried again: %s", self.name, error)
            self._in_doubt = True
            return True

    def _is_held_up(self) -> bool:
        return self._paused or self.outage.wait(asyncio.get_running_loop().time()) > 0

    def _free(self) -> int:
        if self._is_held_up():
            return 0
        limit = min(PROBE, self._subscription.concurrency) if self.outage.on else self._subscription.concurrency
        return limit - len(self._running)

    async def _claim(self) -> bool:
        if self._in_doubt:
            await asyncio.sleep(0.5 * self._world.random.uniform(0.5, 1.5))
            await self._store.run(self._give_back_unheard)
            self._in_doubt = False
        free = self._free()
        if free <= 0:
            return False
        rows: list[Ready] = await self._store.run(
            lambda statements: statements.claim(self.name, self._worker, self._share, free, self._world.now())
        )
        if not rows:
            return False
        reach("ready.claimed")
        self._share = rows[-1].share
        try:
            records = await self._store.reading.records([row.position for row in rows])
        except StoreError:
            await self._give_back(*rows)
            raise
        for row in rows:
            self._start(row, records[row.position])
        return len(rows) == free

    async def _give_back_unheard(self, statements: Statements) -> None:
        """Give back what a claim took whose commit succeeded unheard, because the connection broke: nobody runs it."""
        for row in await statements.running(self.name):
            if row.owner == self._worker and row not in self._rows and row != self._suspects.claiming:
                await statements.give_back(row, counted=False)

    def _start(self, row: Ready, record: Record) -> asyncio.Task[None]:
        author, executor = self._subscription.author, self._subscription.executor
        work = Work(row, record.envelope, self._store, self._world, settle, self._begin, author, executor)
        task = asyncio.get_running_loop().create_task(self._deliver(row, record, work))
        self._running[task] = work
        self._rows.append(row)
        task.add_done_callback(lambda done: self._ended(done, row))
        return task

    def _ended(self, task: asyncio.Task[None], row: Ready) -> None:
        del self._running[task]
        self._rows.remove(row)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("%s: settling failed; the work is given back", self.name, exc_info=task.exception())
            self._in_doubt = True  # this worker may have it still, and nobody else takes it while this one lives

    def _begin(
        self, statements: Statements, envelope: Envelope, ids: StableIds, attempt: int, opened: Opened | None
    ) -> tuple[Transaction, Callable[[], Awaitable[None]]]:
        outbox = Outbox(self._producer.inline)
        transaction = Transaction(
            statements,
            outbox,
            self._producer,
            self._world,
            Cause.of(envelope),
            envelope=envelope,
            ids=ids,
            attempt=attempt,
            opened=opened,
            store=self._store,
        )

        async def flush() -> None:
            await outbox.flush(statements)
            reach("work.before_commit")

        return transaction, flush

    async def _deliver(self, row: Ready, record: Record, work: Work) -> None:
        if row.failures and row.failures[-1].error == DIED_IN_IT and row.attempt > self._subscription.retry.attempts:
            # Every attempt was counted, and its process died; the last death is noted already.
            await self._fail(replace(row, failures=row.failures[:-1]), record, row.attempt - 1, None)
            return
        try:
            await self._pipeline.run(record.envelope, work)
            if not work.finished:
                await work.settle_without_effects()
        except asyncio.CancelledError:
            if not work.finished:
                await self._give_back(row)
            raise
        except Exception as error:
            await self._failed(row, record, work, error)
            return
        reach("work.after_commit")
        self._outcome([], succeeded=True)

    async def _failed(self, row: Ready, record: Record, work: Work, error: Exception) -> None:
        if work.finished:
            log.error("%s: raised after it had settled; nothing is retried.", self.name, exc_info=error)
        elif error is work.lost:
            log.warning("%s: another worker has taken event %s over.", self.name, record.envelope.id)
        elif isinstance(error, StoreError) and error.retryable and error.store is self._store:
            await self._give_back(row)  # the store itself failed: that is no attempt
        else:
            attempt = row.attempt if self.outage.counts else row.attempt - 1
            self._outcome([] if isinstance(error, ParkedEventError) else [row.position], succeeded=False)
            await self._fail(row, record, attempt, error)

    def _outcome(self, failed: Sequence[int], *, succeeded: bool) -> None:
        if self.outage.outcome(failed, succeeded, asyncio.get_running_loop().time()):
            log.warning("%s: an outage %s.", self.name, "began" if self.outage.on else "is over")

    async def _fail(self, row: Ready, record: Record, attempt: int, error: Exception | None) -> None:
        held = self._exceptions.failed(record, attempt, error, row.failures)

        async def unit(statements: Statements) -> None:
            if await statements.unready(row):
                await statements.hold([held])

        await self._surely(unit)
        reach("work.failed")

    async def _give_back(self, *rows: Ready) -> None:
        async def unit(statements: Statements) -> None:
            for row in rows:
                await statements.give_back(row, counted=False)

        await self._surely(unit)

    async def _surely(self, unit: Callable[[Statements], Awaitable[None]]) -> None:
        """Run a unit even if the store fails for a while: the work would stay with this worker, and nobody run it."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._store.run(unit)
                return
            except StoreError as error:
                if not error.retryable or self._stopping:
                    raise
                log.warning("%s: the store failed while settling; it is tried again: %s", self.name, error)
            await asyncio.sleep(pause * self._world.random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def reclaim(self, alive_in: AliveIn) -> None:
        """Take back the work of dead workers; see suspects.py."""
        await self._suspects.reclaim(alive_in)


async def settle(statements: Statements, row: Ready) -> None:
    """Remove settled work; raises LeaseLostError if this attempt is not the current one."""
    if not await statements.unready(row):
        raise LeaseLostError(
            f"Attempt {row.attempt} of {row.subscription} at position {row.position} was taken over by another worker; "
            "nothing of it was written."
        )
