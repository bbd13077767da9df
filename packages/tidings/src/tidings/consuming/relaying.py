"""The use of a relay: lanes of the log, carried to a transport; it sends, then steps."""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from tidings.consuming.lanes import Lanes
from tidings.consuming.outage import Outage
from tidings.consuming.runner import Taken
from tidings.publishing.relay import Relay
from tidings.publishing.undelivered import undelivered
from tidings.rows import DEAD, RETRY, Held, LaneStep, Record
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World


class Relaying:
    """Implements runner.Use around publishing.relay."""

    def __init__(self, relay: Relay, store: Store, world: World) -> None:
        self.batch = relay.batch
        self._relay = relay
        self._store = store
        self._world = world

    async def take(
        self, records: Sequence[Record], lanes: Lanes, *, holding: Callable[[], bool], outage: Outage
    ) -> Taken:
        """Send new records, then move the lanes past them."""

        async def settle(held: Sequence[Held], seen: int) -> None:
            steps = lanes.moves({record.lane for record in records}, seen)

            async def unit(statements: Statements) -> None:
                if held:
                    await statements.hold(held)
                    await self._tell(statements, held, by_position)
                await lanes.insert(statements, steps)

            await self._store.run(unit)
            lanes.confirm(steps, seen)

        by_position = {record.position: record for record in records}

        failed, sent = await self._relay.send_new(records, settle, holding=holding())
        return Taken(records[-1].position, failed, sent)

    async def take_carefully(self, record: Record, lanes: Lanes) -> Taken:
        """Sending runs no code of the user: nothing to be careful about."""
        lanes.calm(record.lane, self.batch)
        return Taken(0, [], False)

    async def retake(self, rows: Sequence[Held], lanes: Lanes, *, outage: Outage) -> Taken:
        """Send held records again, one after the other."""
        records = await self._store.reading.records([row.position for row in rows])
        taken = Taken(0, [], False)
        for row in rows:
            again = await self._relay.send_again(records[row.position], row)
            steps = lanes.fences({row.lane})

            async def unit(
                statements: Statements, row: Held = row, again: Held | None = again, steps: Sequence[LaneStep] = steps
            ) -> None:
                current = await statements.held(row.subscription, [row.position])
                if current and current[0].state == row.state:  # else an operator has discarded it meanwhile
                    await self._settle(statements, row, again)
                    await self._tell(statements, [again] if again else [], records)
                await lanes.insert(statements, steps)

            await self._store.run(unit)
            lanes.confirm(steps)
            if again is None:
                taken.succeeded = True
            elif again.state == RETRY:
                taken.failed.append(row.position)
        return taken

    async def _tell(self, statements: Statements, held: Sequence[Held], records: Mapping[int, Record]) -> None:
        """Put it into the log that events are dead letters: whoever waits for what follows from them may give up."""
        dead = [row for row in held if row.state == DEAD]
        if dead:
            facts = [undelivered(records[row.position].envelope, row.reason or "", self._world) for row in dead]
            await statements.append(facts)

    async def _settle(self, statements: Statements, row: Held, again: Held | None) -> None:
        if again is not None:
            await statements.hold([again])
            return
        await statements.unhold(row.subscription, row.position)
        follower = await statements.next_behind(row.subscription, row.key) if row.key is not None else None
        if follower is not None:  # the head of its key now, whose turn comes at once
            now = self._world.now()
            await statements.hold([replace(follower, state=RETRY, due=now, updated=now)])
