"""The way in without a broker: another service's log is read, and what is wanted of it lands in ours."""

import asyncio
import logging
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from tidings.consuming.landing import PAUSE_SECONDS
from tidings.consuming.lanes import LAG_KEPT
from tidings.errors import LeaseLostError
from tidings.events import INTERNAL
from tidings.points import reach
from tidings.rows import Followed, Record
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World

log = logging.getLogger("tidings")

BATCH = 200
"""Events that one transaction lands at most."""

FIRST_LOOK, LONGEST_LOOK = 0.01, 0.5
"""Seconds between looks at a log without news: short after there were some, doubled while nothing comes."""


class FollowedLog:
    """Another service's log, which is only read; nothing is written to its database. `name` has no password in it."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.store = store

    async def open(self) -> None:
        """Open the log; raises StoreUnavailableError, and StoreVersionError if another version made it."""
        await self.store.open(migrate=False, read_only=True)

    async def close(self) -> None:
        """Close it."""
        await self.store.close()


class Following:
    """Lands what a followed log has of some types; how far it got is written by the same transaction.

    Each type has a position of its own, so one that a later release adds is read from the beginning, too. Of several
    processes that follow one log, one is faster with each page; the others find the place moved, and go on from there.
    """

    def __init__(self, followed: FollowedLog, store: Store, world: World, source: str, types: Collection[str]) -> None:
        self._log = followed
        self._store = store
        self._world = world
        self._source = source
        # What a service tells itself (timers of sagas) is nobody else's.
        self._types = sorted(name for name in types if not name.startswith(INTERNAL))
        self._written: Followed | None = None
        self._known: dict[str, int] = {}  # as written, also of types that only another release takes
        self._positions: dict[str, int] | None = None
        self._moved = asyncio.Event()
        self._told = False
        self._stopping = False

    def stop(self) -> None:
        """Take nothing more."""
        self._stopping = True

    async def run(self) -> None:
        """Follow until stopped."""
        pause = FIRST_LOOK
        while self._types and not self._stopping:
            try:
                pause = 0.0 if await self._take_some() else min(max(pause * 2, FIRST_LOOK), LONGEST_LOOK)
            except LeaseLostError:
                self._positions, pause = None, FIRST_LOOK
            except Exception as error:
                log.warning("Following %s failed, and goes on from where it was: %s", self._log.name, error)
                self._positions, pause = None, PAUSE_SECONDS
            await asyncio.sleep(pause * self._world.random.uniform(0.5, 1.5))

    async def reached(self, position: int) -> None:
        """Wait until everything up to a position of the followed log has landed."""
        while self._types and (self._positions is None or min(self._positions.values()) < position):
            self._moved.clear()
            await self._moved.wait()

    async def _begin(self) -> dict[str, int]:
        """Return after which position each type is read on."""
        self._written = written = await self._store.reading.followed(self._log.name)
        self._known = written.positions if written is not None and await self._is_the_same(written) else {}
        return {name: self._known.get(name, 0) for name in self._types}

    async def _is_the_same(self, written: Followed) -> bool:
        """Say whether the log is the one that was read: after a restore, or in a new file, positions mean others.

        Then all of it is read again, and what had come is recognised by its source and id.
        """
        if not written.event_id:
            return True
        record = (await self._log.store.reading.records([written.position])).get(written.position)
        if record is not None and record.envelope.id == written.event_id:
            return True
        log.warning("%s is not the log that was followed so far: it is read from the beginning.", self._log.name)
        return False

    async def _take_some(self) -> bool:
        """Land one page; say whether there may be more."""
        if self._positions is None:
            self._positions = await self._begin()
        positions, reading = self._positions, self._log.store.reading
        after = min(positions.values())
        types = [name for name, position in positions.items() if position == after]
        page = await reading.read(after, types, range(self._log.store.lanes), BATCH)
        # Types that were added later are read up to where the others are; from there on all are read together.
        scanned = min([page.scanned, *(position for position in positions.values() if position > after)])
        records = [record for record in page.records if record.position <= scanned]
        await self._tell_of_a_name_twice(records)
        moved = {**positions, **dict.fromkeys(types, scanned)}
        if records or scanned - min(self._known.get(name, 0) for name in self._types) > LAG_KEPT:
            await self._land(records, moved)
        self._positions = moved
        self._moved.set()
        return scanned > after

    async def _tell_of_a_name_twice(self, records: Sequence[Record]) -> None:
        """Warn, once, where another service has this one's name: its events are taken for one's own, and passed by."""
        ours = next((one.envelope for one in records if one.envelope.source == self._source), None)
        if ours is None or self._told or await self._store.reading.find(ours.id):
            return
        self._told = True
        log.warning(
            "%s has events of a service named %s, as this one is, which are not in its own log (%s is the first). They "
            "do not land: give this service a name of its own; or its log was restored, and has forgotten them.",
            self._log.name,
            self._source,
            ours.id,
        )

    async def _land(self, records: Sequence[Record], moved: dict[str, int]) -> None:
        """Write events and how far they were read in one transaction; raises LeaseLostError if another was faster."""
        before = self._written or Followed({})
        newest = (records[-1].position, records[-1].envelope.id) if records else (before.position, before.event_id)
        after = Followed({**self._known, **moved}, *newest)
        # What this service has sent is in its own log; where an event lies in a stream is true of its log only.
        others = [record.envelope for record in records if record.envelope.source != self._source]
        envelopes = [replace(envelope, stream=None, stream_version=None) for envelope in others]

        async def unit(statements: Statements) -> None:
            # Not for repetitions of this log, which cannot be; for what had come another way, or before a restore.
            if fresh := await statements.admit(envelopes):
                await statements.append(fresh)
            if not await statements.follow(self._log.name, self._written, after):
                raise LeaseLostError(f"Another process follows {self._log.name} too, and was faster.")
            reach("landing.before_commit")

        await self._store.run(unit)
        self._written, self._known = after, after.positions
