"""Bugs that others have shipped, planted into the real code on purpose: the simulation must find every one of them."""

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from tidings.backends.sqlite.statements import SqliteStatements
from tidings.consuming import ready, registration, relaying, scheduled, worker
from tidings.consuming.effects import Effects
from tidings.consuming.landing import Landing
from tidings.consuming.lanes import Lanes
from tidings.consuming.ready import WorkRunner
from tidings.consuming.runner import Taken
from tidings.events import Envelope
from tidings.operations import dead_letters
from tidings.points import reach
from tidings.publishing.producer import StableIds
from tidings.publishing.publisher import Publisher
from tidings.publishing.relay import Relay
from tidings.publishing.transaction import Transaction
from tidings.rows import Held, LaneStep, Page, Ready, Record
from tidings.statements import Statements
from tidings.testing.simulation.planting import MUTANTS, Patch, mutant, planted
from tidings.transport import Delivery

__all__ = ["MUTANTS", "planted"]


@mutant
def _unfenced_progress() -> list[Patch]:
    """The next step is written whoever wrote the last one: two owners of a lane both commit."""

    async def advance(self: Any, subscription: str, steps: Sequence[LaneStep]) -> bool:
        newest = "SELECT max(step) FROM tidings_progress WHERE subscription = ?1 AND lane = ?2"
        insert = "INSERT INTO tidings_progress (subscription, lane, step, position, owner) VALUES (?1, ?2, ?3, ?4, ?5)"
        for step in steps:
            number = self._db.rows(newest, (subscription, step.lane))[0][0]
            self._db.run(insert, (subscription, step.lane, max(number + 1, step.step), step.position, step.owner))
        return True

    return [(_owner("advance"), "advance", advance)]


@mutant
def _progress_outside_the_transaction() -> list[Patch]:
    """Effects commit first, progress in a second transaction: a crash between the two repeats the effects."""
    settle = Effects._settle

    async def settle_in_two(self: Effects, records: Sequence[Record], lanes: Lanes, holding: Any, outage: Any) -> Taken:
        late: list[LaneStep] = []

        async def insert(statements: Statements, steps: Sequence[LaneStep]) -> None:
            late.extend(steps)

        later = _Instead(lanes, insert=insert, confirm=lambda steps, seen=0: None)
        taken = await settle(self, records, later, holding, outage)  # type: ignore[arg-type]
        await self._store.run(lambda statements: lanes.insert(statements, late))
        lanes.confirm(late, taken.seen)
        return taken

    return [(Effects, "_settle", settle_in_two)]


@mutant
def _admission_by_id_alone() -> list[Patch]:
    """What arrives is known by its id, whoever sent it: another source's event is dropped."""

    async def admit(self: Any, envelopes: Sequence[Envelope], *, undated_at: int | None = None) -> list[Envelope]:
        statement = (
            "INSERT INTO tidings_admitted (time, source, id) SELECT 0, '', ?1 "
            "WHERE NOT EXISTS (SELECT 1 FROM tidings_admitted WHERE id = ?1)"
        )
        return [envelope for envelope in envelopes if self._db.run(statement, (envelope.id,))]

    return [(_owner("admit"), "admit", admit)]


@mutant
def _admission_by_arrival() -> list[Patch]:
    """A copy that comes later is another event."""

    async def admit(self: Any, envelopes: Sequence[Envelope], *, undated_at: int | None = None) -> list[Envelope]:
        if undated_at is None:
            return [replace(one, id=f"{one.id}+{_fresh()}") for one in envelopes]
        known = {one.id for envelope in envelopes for one in await _found(self, envelope)}
        return [one for one in envelopes if one.id not in known]

    return [(_owner("admit"), "admit", admit)]


async def _found(statements: Any, envelope: Envelope) -> list[Envelope]:
    return [record.envelope for record in await statements.find(envelope.id)]


_numbers = iter(range(1, 1_000_000_000))


def _fresh() -> int:
    return next(_numbers)


@mutant
def _settle_without_the_attempt() -> list[Patch]:
    """Whoever finishes work settles it, though another worker has taken it over."""

    async def settle(statements: Any, row: Ready) -> None:
        statements._db.run(
            "DELETE FROM tidings_ready WHERE subscription = ?1 AND position = ?2", (row.subscription, row.position)
        )

    return [(ready, "settle", settle)]


@mutant
def _failures_without_a_savepoint() -> list[Patch]:
    """A handler that fails without a savepoint is held like any other: what it had written stays."""

    async def undo(self: Effects, batch: Any, transaction: Transaction) -> None:
        await transaction.undo()

    return [(Effects, "_undo", undo)]


@mutant
def _follower_overtakes() -> list[Patch]:
    """A new event is handled though an earlier one of its key is held."""

    async def closed_keys(self: Any, subscription: str, keys: Sequence[str], *, by_work: bool = False) -> set[str]:
        return set()

    return [(_owner("closed_keys"), "closed_keys", closed_keys)]


@mutant
def _mark_before_send() -> list[Patch]:
    """The relay steps on, then sends: a crash between the two loses what was not sent."""

    async def send_new(self: Relay, records: Sequence[Record], settle: Any, *, holding: bool) -> tuple[list[int], bool]:
        own = [record for record in records if record.envelope.source == self._source]
        await settle([], records[-1].position)
        return [], len(await self._send(own)) < len(records)

    return [(Relay, "send_new", send_new)]


@mutant
def _followers_left_unsent() -> list[Patch]:
    """What waits behind a refused event stays there when the relay has sent that one."""

    async def settle(self: Any, statements: Any, row: Held, again: Held | None) -> None:
        await (statements.hold([again]) if again is not None else statements.unhold(row.subscription, row.position))

    return [(relaying.Relaying, "_settle", settle)]


@mutant
def _dual_write() -> list[Patch]:
    """A transaction's events are published in a second transaction, after the first has committed."""

    @asynccontextmanager
    async def transaction(self: Publisher, **options: Any) -> Any:
        published: list[Envelope] = []
        async with original(self, **options) as tx:
            yield tx
            published, tx._outbox.envelopes = tx._outbox.envelopes, []
        if published:
            await self.store.publish(published)

    original = Publisher.transaction
    return [(Publisher, "transaction", transaction)]


@mutant
def _acknowledge_first() -> list[Patch]:
    """A message is acknowledged before it is in the log."""
    land = Landing.land

    async def acknowledge_and_land(self: Landing, deliveries: Sequence[Delivery]) -> None:
        await self._transport.settle(deliveries)
        await land(self, deliveries)

    return [(Landing, "land", acknowledge_and_land)]


@mutant
def _drop_below_the_head() -> list[Patch]:
    """Retention drops what is old, whether or not every subscription has settled it."""

    async def drop(self: Any, keep: str, after: int, through: int, older_than: int) -> int:
        return int(self._db.run("DELETE FROM tidings_log WHERE keep = ?1 AND time < ?2", (keep, older_than)))

    return [(_owner("drop"), "drop", drop)]


@mutant
def _fresh_ids_on_retry() -> list[Patch]:
    """What a handler publishes gets a new id each time."""
    return [(StableIds, "next", lambda self: f"{self._incoming.id}/{self._subscription}/{_fresh()}")]


@mutant
def _effects_of_a_failure_stay() -> list[Patch]:
    """A handler that raises in the middle leaves what it wrote before."""

    async def undo(self: Transaction) -> None:
        await self.keep()

    return [(Transaction, "undo", undo)]


@mutant
def _fired_and_kept() -> list[Patch]:
    """A delayed publish becomes an event and stays scheduled for a while, where it can still be cancelled."""

    async def unit(self: scheduled.Timers, statements: Any) -> None:
        rows = await statements.all_scheduled(500)
        now = self._world.now()
        envelopes = [row.envelope for row in rows if row.due <= now]
        await statements.append([one for one in envelopes if not await _found(statements, one)])
        statements._db.run("DELETE FROM tidings_scheduled WHERE due < ?1", (now - 1_000_000,))

    return [(scheduled.Timers, "_unit", unit)]


@mutant
def _fired_in_two_steps() -> list[Patch]:
    """A delayed publish is taken away in one transaction and published in another."""

    async def fire(self: scheduled.Timers) -> float | None:
        due = await self._store.reading.next_scheduled()
        if due is None:
            return None
        if due > self._world.now():
            return (due - self._world.now()) / 1e6
        fired = await self._store.run(lambda statements: statements.fire(self._world.now(), 500))
        reach("scheduled.after_commit")
        await self._store.publish([row.envelope for row in fired])
        return 0.0

    return [(scheduled.Timers, "_fire", fire)]


@mutant
def _attempt_not_counted_first() -> list[Patch]:
    """No lane is ever careful: an event that kills its process kills it for ever."""
    return [(Lanes, "careful", lambda self, lane: False)]


@mutant
def _redrive_looks_once() -> list[Patch]:
    """Two operators redrive at once, and the second does not look whether the first was faster."""
    current: dict[dead_letters.Address, Held] = {}
    letter = dead_letters._letter

    def remember(row: Held, record: Record | None) -> dead_letters.DeadLetter:
        current[row.position, row.subscription] = row
        return letter(row, record)

    async def remembered(statements: Statements, page: Any) -> list[Held]:
        return [current[address] for address in page]

    return [(dead_letters, "_letter", remember), (dead_letters, "_current", remembered)]


@mutant
def _reader_that_skips() -> list[Patch]:
    """A reader takes the newest position that it has seen anywhere for the place where it stands."""
    read = _owner("read").read

    async def read_past(self: Any, after: int, types: Any, lanes: Sequence[int], limit: int) -> Page:
        page: Page = await read(self, after, types, lanes, limit)
        return Page(page.records, await self.head())

    confirm = Lanes.confirm

    def confirm_scanned(self: Lanes, steps: Sequence[LaneStep], seen: int = 0) -> None:
        confirm(self, steps, seen + 1 if seen else 0)

    return [(_owner("read"), "read", read_past), (Lanes, "confirm", confirm_scanned)]


@mutant
def _one_cursor_for_all_lanes() -> list[Patch]:
    """A lane that was just taken is read from where the others stand."""
    update = Lanes.rebalance

    async def rebalance(self: Lanes, *args: Any) -> bool:
        taken: bool = await update(self, *args)
        newest = max((lane.seen for lane in self._owned.values()), default=0)
        for lane in self._owned.values():
            lane.seen = newest
        return taken

    return [(Lanes, "rebalance", rebalance)]


@mutant
def _unpark_forgotten() -> list[Patch]:
    """What was parked until a release knows it stays parked when one does."""

    async def unpark(*args: Any) -> int:
        return 0

    return [(worker, "unpark", unpark), (registration, "unpark", unpark)]


@mutant
def _registration_without_a_fence() -> list[Patch]:
    """A release that takes more types leaves the lanes to owners that know less, and pass them."""

    async def fence(self: Any, subscription: str) -> None:
        return

    return [(_owner("fence"), "fence", fence)]


@mutant
def _releases_read_what_they_declare() -> list[Patch]:
    """Each release reads the types that it declares itself, and passes those of the other."""

    async def declared(self: Lanes, statements: Statements) -> Any:
        return self._types

    return [(Lanes, "_stored_types", declared)]


@mutant
def _an_older_release_takes_types_away() -> list[Patch]:
    """The last release that starts says which types a subscription takes."""
    row = registration._row

    async def replaced(statements: Statements, service: str, subscription: Any, known: Any) -> Any:
        return replace(await row(statements, service, subscription, known), types=subscription.types)

    return [(registration, "_row", replaced)]


@mutant
def _fail_without_the_fence() -> list[Patch]:
    """An attempt that failed is held, though another worker has taken the work over."""

    async def fail(self: WorkRunner, row: Ready, record: Record, attempt: int, error: Exception | None) -> None:
        held = self._exceptions.failed(record, attempt, error, row.failures)

        async def unit(statements: Any) -> None:
            await statements.unready(row)
            await statements.hold([held])

        await self._store.run(unit)

    return [(WorkRunner, "_fail", fail)]


@mutant
def _two_heads_of_a_key() -> list[Patch]:
    """Every follower of a key goes on at once when its head is settled."""

    async def next_behind(self: Any, subscription: str, key: str) -> Held | None:
        rows = [row for row in await self.letters(["behind"], subscription, 0, 1000) if row.key == key]
        return rows[-1] if rows else None

    return [(_owner("next_behind"), "next_behind", next_behind)]


@mutant
def _ahead_of_a_failed_commit() -> list[Patch]:
    """What was read ahead comes next, though the commit that it was to follow has failed."""

    async def page(self: Lanes, after: int, limit: int) -> Page:
        if self._ahead is not None:
            (_, ahead), self._ahead = self._ahead, None
            return await ahead
        return await self._store.reading.read(after, self._types, self.owned, limit)

    return [(Lanes, "_page", page)]


class _Instead:
    """An object with some methods replaced."""

    def __init__(self, real: Any, **instead: Any) -> None:
        self.__dict__.update(instead, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _owner(method: str) -> Any:
    """Return the class among the store's statements that defines a method."""
    return next(cls for cls in SqliteStatements.__mro__ if method in vars(cls))
