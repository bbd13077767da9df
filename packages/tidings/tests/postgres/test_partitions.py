"""Partitions by retention class: made ahead, dropped whole, never above a floor, dead letters kept."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tidings.backends.postgres import PostgresStore, open_store, partitions
from tidings.backends.postgres import upkeep as upkeep_module
from tidings.backends.postgres.driver import HeldSession
from tidings.events import Envelope
from tidings.rows import DEAD, DISCARDED, Held, LaneStep, SubscriptionRow
from tidings.service import system_clock, uuid7_ids
from tidings.statements import Statements
from tidings.world import World, microseconds

DAY = timedelta(days=1)
KEEP = "86400"
NOW = datetime.now(UTC)


@pytest.fixture
async def store(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresStore]:
    monkeypatch.setattr(partitions, "RANGE", 10)
    made = open_store(postgres_url, World(system_clock, random.Random(1), uuid7_ids))
    await made.open(migrate=True)
    await upkeep(made)
    yield made
    await made.close()


def envelope(number: int, age: timedelta, keep: str = KEEP) -> Envelope:
    event_id = f"e{number}"
    return Envelope(
        id=event_id,
        source="p",
        type="p.kept",
        time=NOW - age,
        correlation=event_id,
        key=f"k{number}",
        keep=keep,
        data=b'{"n":%d}' % number,
    )


async def tables(store: PostgresStore) -> list[str]:
    rows = await store.reading.query(
        "SELECT relname FROM pg_class WHERE relname LIKE 'log\\_keep%' AND relkind IN ('r', 'p')", ()
    )
    return sorted(row[0] for row in rows[1])


async def positions(store: PostgresStore) -> list[int]:
    rows = await store.reading.query("SELECT position FROM tidings.log ORDER BY position", ())
    return [row[0] for row in rows[1]]


async def upkeep(store: PostgresStore, keep: str = KEEP) -> int:
    """Return how many events of a class were let go, told as they go."""
    told: list[int] = []
    dropped, _ = await store.upkeep([keep], microseconds(NOW), told.append)
    assert sum(told) == sum(dropped.values())
    return dropped.get(keep, 0)


async def subscribe_at(store: PostgresStore, position: int) -> None:
    async def unit(statements: Statements) -> None:
        await statements.register(SubscriptionRow("s", "p", "transaction", True, ("p.kept",), 0))
        await statements.advance("s", [LaneStep(lane, 1, position, None) for lane in range(store.lanes)])

    await store.run(unit)


async def test_events_of_a_class_go_to_its_ranges(store: PostgresStore) -> None:
    await store.publish([envelope(n, DAY) for n in range(25)])
    assert f"log_keep_{KEEP}_0" in await tables(store)
    rows = await store.reading.query(f"SELECT count(*) FROM tidings.log_keep_{KEEP}_1", ())
    assert rows[1] == [(10,)]
    await upkeep(store)
    assert f"log_keep_{KEEP}_6" in await tables(store)


async def test_past_ranges_are_dropped_whole_below_the_floor_only(store: PostgresStore) -> None:
    await store.publish([envelope(n, 3 * DAY) for n in range(25)])
    await subscribe_at(store, 15)
    assert await upkeep(store) == 9  # positions 1 to 9; the next range ends above the floor
    assert (await positions(store))[0] == 10
    assert f"log_keep_{KEEP}_0" not in await tables(store)


async def test_what_is_not_past_its_retention_stays(store: PostgresStore) -> None:
    await store.publish([envelope(n, DAY / 2 if n == 5 else 3 * DAY) for n in range(25)])
    await subscribe_at(store, 25)
    assert await upkeep(store) == 6  # 20 to 25: their range still fills, and what is past there is deleted
    assert await positions(store) == list(range(1, 20))


async def test_forever_is_never_dropped(store: PostgresStore) -> None:
    await store.publish([envelope(n, 3000 * DAY, keep="forever") for n in range(25)])
    await subscribe_at(store, 25)
    assert await upkeep(store, "forever") == 0


async def test_dead_letters_keep_their_bytes_and_discarded_ones_go(store: PostgresStore) -> None:
    await store.publish([envelope(n, 3 * DAY) for n in range(12)])
    await subscribe_at(store, 12)

    async def unit(statements: Statements) -> None:
        await statements.hold(
            [Held("s", 3, 0, "k2", True, DEAD, attempts=3), Held("s", 4, 0, "k3", False, DISCARDED, actor="ann")]
        )

    await store.run(unit)
    assert await upkeep(store) == 11  # all but the dead letter's
    assert [row.state for row in await store.reading.held("s", [3, 4])] == [DEAD]
    assert await positions(store) == [3]
    assert (await store.reading.records([3]))[3].envelope.data == b'{"n":2}'


async def test_a_dead_letter_that_outlived_its_range_goes_once_it_is_settled(store: PostgresStore) -> None:
    await store.publish([envelope(n, 3 * DAY) for n in range(12)])
    await subscribe_at(store, 12)
    await store.run(lambda statements: statements.hold([Held("s", 3, 0, "k2", True, DEAD, attempts=3)]))
    assert await upkeep(store) == 11
    assert await upkeep(store) == 0
    await store.run(lambda statements: statements.unhold("s", 3))
    assert await upkeep(store) == 1
    assert await positions(store) == []


async def test_what_one_subscription_discarded_stays_known_while_another_needs_it(store: PostgresStore) -> None:
    await store.publish([envelope(n, 3 * DAY) for n in range(12)])
    await subscribe_at(store, 12)
    rows = [Held("s", 3, 0, "k2", True, DEAD, attempts=3), Held("t", 3, 0, "k2", False, DISCARDED, actor="ann")]
    await store.run(lambda statements: statements.hold(rows))
    await upkeep(store)
    assert [(row.subscription, row.state) for row in await store.reading.held(None, [3])] == [
        ("s", DEAD),
        ("t", DISCARDED),
    ]


async def test_a_class_without_a_partition_takes_events_and_gets_one_with_them(store: PostgresStore) -> None:
    await store.publish([envelope(n, DAY, keep="3600000") for n in range(3)])
    assert await rows_in(store, "log_other") == 3
    assert await upkeep(store, "3600000") == 0
    assert (await rows_in(store, "log_other"), await rows_in(store, "log_keep_3600000_0")) == (0, 3)
    await store.publish([envelope(9, DAY, keep="3600000")])
    assert await rows_in(store, "log_keep_3600000_0") == 4
    assert await positions(store) == [1, 2, 3, 4]


async def test_classes_that_others_name_get_only_so_many_partitions(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "MOST_CLASSES", 3)
    past, foreign = 2 * DAY, [str(number) for number in range(60, 70)]
    async with store.transaction() as statements:
        await statements.append([envelope(number, past, keep) for number, keep in enumerate(foreign)])
    await upkeep(store, "7200")
    await upkeep(store, "7200")
    made = {name.split("_")[2] for name in await tables(store)}
    assert {KEEP, "7200"} < made, "what a service declares always gets its own"
    assert len(made) == 3
    assert await positions(store) == [], "past all the same"


async def test_events_beyond_the_ranges_come_into_ranges_later(store: PostgresStore) -> None:
    await store.publish([envelope(n, DAY / 2) for n in range(60)])
    assert await rows_in(store, f"log_keep_{KEEP}_rest") == 11  # 50 to 60
    await upkeep(store)
    assert await rows_in(store, f"log_keep_{KEEP}_rest") == 10  # 50 to 59 are behind; 60 has its range
    assert await positions(store) == list(range(1, 61))


async def test_what_has_no_partition_and_is_past_goes_below_the_floor_only(store: PostgresStore) -> None:
    await store.publish([envelope(n, 3 * DAY) for n in range(60)])
    await subscribe_at(store, 55)
    assert await upkeep(store) == 55
    assert await positions(store) == [56, 57, 58, 59, 60]


async def rows_in(store: PostgresStore, table: str) -> int:
    _, rows = await store.reading.query(f"SELECT count(*) FROM tidings.{table}", ())
    return int(rows[0][0])


async def test_a_lock_that_is_not_to_be_had_is_left_to_the_next_upkeep(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "100ms")
    await store.publish([envelope(n, 3 * DAY) for n in range(12)])
    await subscribe_at(store, 12)
    reader: Any = await asyncpg.connect(postgres_url)
    async with reader.transaction():
        await reader.fetch("SELECT 1 FROM tidings.log LIMIT 1")
        assert await upkeep(store) == 3  # what is deleted needs no such lock
    assert await upkeep(store) == 9
    await reader.close()


async def waiting_for_locks(watcher: Any, number: int) -> None:
    sql = (
        "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_database d ON d.oid = database "
        "WHERE NOT granted AND datname = current_database()"
    )
    async with asyncio.timeout(5):
        while await watcher.fetchval(sql) < number:  # noqa: ASYNC110 - the server does it
            await asyncio.sleep(0.01)


async def test_who_reads_and_writes_while_a_partition_is_attached_misses_nothing(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached, go_on = asyncio.Event(), asyncio.Event()
    ensure_class = partitions._ensure_class

    async def slow_to_commit(session: HeldSession, keep: str) -> None:
        await ensure_class(session, keep)
        attached.set()
        await go_on.wait()

    await store.publish([envelope(n, DAY, keep="3600000") for n in range(9)])
    assert await store.reading.head() == 9
    monkeypatch.setattr(partitions, "_ensure_class", slow_to_commit)
    watcher = await asyncpg.connect(postgres_url)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(upkeep(store, "3600000"))
        await attached.wait()
        read = tasks.create_task(store.reading.read(0, None, range(store.lanes), 100))
        await waiting_for_locks(watcher, 1)
        tasks.create_task(store.publish([envelope(9, DAY, keep="3600000")]))
        await waiting_for_locks(watcher, 2)
        go_on.set()
    await watcher.close()
    assert [record.position for record in read.result().records][:9] == list(range(1, 10))
    assert await positions(store) == list(range(1, 11))


async def test_a_class_that_is_written_all_the_time_gets_its_partition(store: PostgresStore, postgres_url: str) -> None:
    """What is written while the rows are moved moves too; it made ATTACH fail, upkeep after upkeep."""
    watcher = await asyncpg.connect(postgres_url)
    async with store.transaction() as statements:
        await statements.append([envelope(0, DAY, keep="3600000")])
        kept_up = asyncio.create_task(upkeep(store, "3600000"))
        await waiting_for_locks(watcher, 1)
    await kept_up
    await watcher.close()
    assert (await rows_in(store, "log_other"), await rows_in(store, "log_keep_3600000_0")) == (0, 1)


async def test_who_may_not_change_the_partitions_is_told(
    store: PostgresStore, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await asyncpg.connect(postgres_url)
    role = f"guest_{random.randrange(10**12)}"
    await admin.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA tidings TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA tidings TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA tidings TO {role}"
    )
    guest = open_store(
        postgres_url.replace("postgres@", f"{role}@", 1), World(system_clock, random.Random(1), uuid7_ids)
    )
    try:
        await guest.open(migrate=False)
        _, left = await guest.upkeep(["3600000"], microseconds(NOW), lambda number: None)
        await guest.close()
    finally:
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()
    assert any("permission denied" in reason for reason in left)
    assert any("permission denied" in record.getMessage() for record in caplog.records if record.levelname == "WARNING")
