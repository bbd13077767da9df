"""The use of projections: read model and progress in one transaction, and many events a time while there are many."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tidings.consuming.effects import Effects
from tidings.consuming.lanes import Lanes
from tidings.consuming.outage import Outage
from tidings.consuming.runner import Taken
from tidings.errors import LeaseLostError, StoreError
from tidings.events import Event
from tidings.points import reach
from tidings.publishing.outbox import Outbox
from tidings.publishing.producer import NO_CAUSE
from tidings.publishing.transaction import Transaction
from tidings.rows import DEAD, BarePage, Held, Record
from tidings.statements import Statements

PAGE = 5000
"""Events of one transaction of a replay: some 15 ms of reading and handling, in which nobody else has his turn."""

PAGES = 10
"""Pages that follow one another in a turn; then it is looked whether the projection is paused, or its lanes are due."""

STOPPED_BY = "projection"
"""In whose name a projection is paused that stops at an event it cannot handle."""


class Projecting(Effects):
    """Effects of one version of a projection. What was handled inline is passed; a full batch begins a replay, which
    reads only what it needs of each event. If anything fails there, its events are handled one by one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self._subscription.projection is not None  # that is whom this use is for
        self._projected = self._subscription.projection
        self._decoders: dict[tuple[str, str], Callable[[bytes], Event]] = {}
        self._slowly_until = 0

    async def take(
        self, records: Sequence[Record], lanes: Lanes, *, holding: Callable[[], bool], outage: Outage
    ) -> Taken:
        """Settle new records: the whole page that begins with them where nothing speaks against it."""
        many = len(records) == self.batch and records[-1].position > self._slowly_until
        at_ease = not outage.on and not holding() and lanes.calm_everywhere
        if many and at_ease and (seen := await self._replay(lanes)):
            return Taken(seen, [], True)
        return await super().take(records, lanes, holding=holding, outage=outage)

    async def _replay(self, lanes: Lanes) -> int:
        """Settle page after page, each in one transaction, while the next one is read; return how far, 0: nowhere."""
        seen, page = 0, await lanes.replay(PAGE)
        for left in reversed(range(PAGES)):
            full = left > 0 and len(page.rows) >= PAGE // 2
            following = asyncio.ensure_future(lanes.replay(PAGE, page.scanned)) if full else None
            try:
                settled = bool(page.rows) and await self._is_settled(page, lanes)
                seen = page.scanned if settled else seen
                if following is None or not settled:
                    break
                page = await following
            finally:
                if following is not None:
                    following.cancel()
        return seen

    async def _is_settled(self, page: BarePage, lanes: Lanes) -> bool:
        """Settle a page in one transaction; False if that cannot be, and its events must be handled one by one."""
        if await self._store.reading.any_inline(self._subscription.name):
            return False
        reach("lane.before_handlers")
        try:
            await self._settle_page(page, lanes)
        except LeaseLostError:
            raise
        except Exception as error:
            if isinstance(error, StoreError) and error.retryable:
                raise
            self._slowly_until = page.scanned
            return False
        return True

    async def _settle_page(self, page: BarePage, lanes: Lanes) -> None:
        events = self._decoded(page)
        steps = lanes.moves({row[1] for row in page.rows}, page.scanned)
        async with self._store.transaction() as statements:
            await self._apply(statements, events, [row[2] for row in page.rows])
            reach("lane.after_handlers")
            await lanes.insert(statements, steps)
            reach("lane.before_commit")
        reach("lane.after_commit")
        lanes.confirm(steps, page.scanned)

    async def _apply(self, statements: Statements, events: Sequence[Event], times: Sequence[int]) -> None:
        transaction = Transaction(statements, Outbox(), self._producer, self._world, NO_CAUSE, store=self._store)
        try:
            await self._projected.apply(events, transaction, times)
        finally:
            transaction.close()
        await transaction.keep()

    def _decoded(self, page: BarePage) -> list[Event]:
        kinds = {(row[3], row[4]) for row in page.rows}
        if len(kinds) == 1:
            decode = self._decoder(*kinds.pop())
            return [decode(row[5]) for row in page.rows]
        return [self._decoder(row[3], row[4])(row[5]) for row in page.rows]

    def _decoder(self, name: str, version: str) -> Callable[[bytes], Event]:
        """Return what reads the data of a type's version: looked for once, used for each event."""
        found = self._decoders.get((name, version))
        if found is None:
            found = self._decoders[name, version] = self._pipeline.decoder(name, version)
        return found

    async def take_carefully(self, record: Record, lanes: Lanes) -> Taken:
        """Settle one record that may kill the process; what was handled inline cannot."""
        if await self._store.reading.any_inline(self._subscription.name):
            return await super().take([record], lanes, holding=lambda: True, outage=Outage(None))
        return await super().take_carefully(record, lanes)

    async def _passed(self, statements: Statements, records: Sequence[Record]) -> set[int]:
        # Also where this release handles nothing inline: one beside it, or before it, may have.
        envelopes = {(one.envelope.source, one.envelope.id): one.position for one in records}
        taken = await statements.take_inline(self._subscription.name, [one.envelope for one in records])
        return {envelopes[identity] for identity in taken}

    async def _keep_held(self, statements: Statements, rows: Sequence[Held]) -> None:
        await super()._keep_held(statements, rows)
        dead = next((row for row in rows if row.state == DEAD), None)
        if self._projected.stops and dead is not None:
            why = f"the event at position {dead.position} cannot be handled: {dead.reason}"
            await statements.pause(self._subscription.name, STOPPED_BY, why)
