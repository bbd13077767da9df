"""Reading in commit order: nothing is skipped while many writers commit out of order, and every edge of the fence."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest
from servers import servers

from tidings import Event, Service
from tidings.backends.postgres import PostgresStore, open_store
from tidings.backends.postgres.fence import _HIGH, Fence
from tidings.consuming.lanes import Lanes
from tidings.errors import LeaseLostError
from tidings.events import Envelope
from tidings.integrations.asgi import health_app
from tidings.rows import SubscriptionRow
from tidings.service import system_clock, uuid7_ids
from tidings.world import World

WRITERS = 16
EVENTS_EACH = 40


def envelope(key: str, number: int) -> Envelope:
    event_id = f"{key}-{number}"
    return Envelope(
        id=event_id,
        source="fence",
        type="fence.written",
        time=datetime.now(UTC),
        correlation=event_id,
        key=key,
        data=b'{"n":%d}' % number,
    )


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = open_store(postgres_url, World(system_clock, random.Random(1), uuid7_ids))
    await made.open(migrate=True)
    yield made
    await made.close()


async def write_slowly(url: str, writer: int) -> None:
    """Publish in transactions that stay open after the insert, and commit out of order; some roll back."""
    rng = random.Random(writer)
    made = open_store(url, World(system_clock, random.Random(writer), uuid7_ids))
    await made.open(migrate=False)
    try:
        for number in range(EVENTS_EACH):
            try:
                async with made.transaction() as statements:
                    await statements.query("SELECT pg_current_xact_id()::text", ())  # older than its position tells
                    await asyncio.sleep(rng.uniform(0, 0.01))
                    await statements.append([envelope(f"k{writer}", number)])
                    await asyncio.sleep(rng.uniform(0, 0.01))
                    if rng.random() < 0.1:
                        raise LookupError
            except LookupError:
                async with made.transaction() as statements:  # the writer tries again, under the same number
                    await statements.append([envelope(f"k{writer}", number)])
    finally:
        await made.close()


async def read_all(store: PostgresStore, until: int, *, patience: float = 20.0) -> list[Envelope]:
    """Follow the log as a subscription does, by a position that only grows."""
    seen: list[Envelope] = []
    after = 0
    deadline = asyncio.get_running_loop().time() + patience
    while len(seen) < until and asyncio.get_running_loop().time() < deadline:
        page = await store.reading.read(after, None, range(store.lanes), 100)
        seen.extend(record.envelope for record in page.records)
        after = max(after, page.scanned)
        await asyncio.sleep(0.001)
    return seen


async def follow_while_writers_write(store: PostgresStore, url: str, patience: float) -> list[Envelope]:
    total = WRITERS * EVENTS_EACH
    reading = asyncio.create_task(read_all(store, total, patience=patience))
    await asyncio.gather(*(write_slowly(url, writer) for writer in range(WRITERS)))
    return await reading


async def test_sixteen_writers_out_of_order_lose_nothing_and_keep_key_order(
    store: PostgresStore, postgres_url: str
) -> None:
    seen = await follow_while_writers_write(store, postgres_url, 30)
    assert len({one.id for one in seen}) == len(seen) == WRITERS * EVENTS_EACH
    for writer in range(WRITERS):
        numbers = [int(one.id.rpartition("-")[2]) for one in seen if one.key == f"k{writer}"]
        assert numbers == list(range(EVENTS_EACH))


async def read_while_two_commit_out_of_order(store: PostgresStore, url: str) -> list[str | None]:
    """The older transaction draws the later position and commits first; return the keys that a reader sees."""
    older, younger = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        for connection in (older, younger):
            await connection.execute("BEGIN")
            await connection.execute("SELECT pg_current_xact_id()")
        await _insert(younger, "first")
        await _insert(older, "second")
        await older.execute("COMMIT")
        page = await store.reading.read(0, None, range(store.lanes), 10)
        await younger.execute("COMMIT")
        seen = [record.envelope.key for record in page.records]
        async with asyncio.timeout(5):
            while await store.reading.head() > page.scanned:
                page = await store.reading.read(page.scanned, None, range(store.lanes), 10)
                seen += [record.envelope.key for record in page.records]
        return seen
    finally:
        await older.close()
        await younger.close()


async def by_position(self: Fence) -> int:
    self.safe = int((await self._session.rows(_HIGH))[0][0])
    return self.safe


async def below_the_oldest_running(self: Fence) -> int:
    """Filtering by the transactions that were running (xmin of the snapshot), by position."""
    rows = await self._session.rows(
        "SELECT coalesce(max(position), 0) FROM tidings.log "
        "WHERE xmin::text::bigint < pg_snapshot_xmin(pg_current_snapshot())::text::bigint % 4294967296"
    )
    self.safe = int(rows[0][0])
    return self.safe


async def test_two_that_commit_out_of_order_are_read_in_order(store: PostgresStore, postgres_url: str) -> None:
    assert await read_while_two_commit_out_of_order(store, postgres_url) == ["first", "second"]


@pytest.mark.parametrize("look", [by_position, below_the_oldest_running])
async def test_readers_by_position_and_by_the_oldest_running_transaction_would_skip(
    look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fence, "look", look)
    with servers() as new:  # a transaction in another database of the server would hold the second reader back
        alone = new()
        alone.make()
        made = open_store(alone.url, World(system_clock, random.Random(1), uuid7_ids))
        await made.open(migrate=True)
        seen = await read_while_two_commit_out_of_order(made, alone.url)
        await made.close()
    assert seen == ["second"], "nothing was skipped, so the test above proves nothing"


async def test_sixteen_writers_commit_out_of_order_indeed(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fence, "look", by_position)
    seen = await follow_while_writers_write(store, postgres_url, 5)
    assert len(seen) < WRITERS * EVENTS_EACH, "or the test above proves nothing"


async def test_an_open_transaction_holds_the_fence_and_is_named(store: PostgresStore, postgres_url: str) -> None:
    writer = await asyncpg.connect(postgres_url, server_settings={"application_name": "slow-writer"})
    transaction = writer.transaction()
    await transaction.start()
    await _insert(writer, "early")
    await store.publish([envelope("late", 1)])
    assert (await store.reading.read(0, None, range(store.lanes), 10)).records == []
    facts: Any = await store.status()
    assert "slow-writer, idle in transaction" in facts["fence held by"]
    assert facts["fence held doing"].startswith("INSERT INTO tidings.log")
    await asyncio.sleep(0.2)
    await shown_by_the_command_line(postgres_url)
    await shown_by_the_health_check(postgres_url)
    await transaction.commit()
    seen = await read_all(store, 2, patience=5)
    assert [one.key for one in seen] == ["early", "late"]
    await writer.close()


async def shown_by_the_command_line(url: str) -> None:
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidings.cli", "store", "status", "--store", url), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await run.communicate()
    assert run.returncode == 0
    lines = {line.partition("  ")[0]: line.partition("  ")[2].strip() for line in out.decode().splitlines()}
    assert "slow-writer" in lines["fence held by"]
    assert float(lines["fence held seconds"]) >= 0.2
    assert lines["fence held doing"].startswith("INSERT INTO tidings.log")


async def shown_by_the_health_check(url: str) -> None:
    """A probe that scrapes it sees who holds the fence and since when, and no query, which may hold data."""
    service = Service("probed", store=url)
    transport = httpx.ASGITransport(app=health_app(service))
    async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://probed") as client:
        answer = await client.get("/healthz")
    health = answer.json()
    assert (answer.status_code, health["status"]) == (200, "ok")
    assert "slow-writer" in health["store"]["fence held by"]
    assert health["store"]["fence held seconds"] >= 0.2
    assert "INSERT" not in answer.text


async def test_a_gap_of_a_rolled_back_transaction_does_not_stall(store: PostgresStore, postgres_url: str) -> None:
    writer = await asyncpg.connect(postgres_url)
    transaction = writer.transaction()
    await transaction.start()
    await _insert(writer, "never")
    await transaction.rollback()
    await store.publish([envelope("next", 1)])
    assert [one.key for one in await read_all(store, 1, patience=5)] == ["next"]
    await writer.close()


async def test_a_savepoint_that_was_rolled_back_frees_the_fence_only_of_its_rows(
    store: PostgresStore, postgres_url: str
) -> None:
    writer = await asyncpg.connect(postgres_url)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("SAVEPOINT a")
    await _insert(writer, "undone")
    await writer.execute("ROLLBACK TO SAVEPOINT a")
    await _insert(writer, "kept")
    await store.publish([envelope("other", 1)])
    assert (await store.reading.read(0, None, range(store.lanes), 10)).records == []
    await transaction.commit()
    assert [one.key for one in await read_all(store, 2, patience=5)] == ["kept", "other"]
    await writer.close()


async def test_a_writer_in_another_database_does_not_hold_the_fence(store: PostgresStore, postgres_server: str) -> None:
    other = await asyncpg.connect(postgres_server)
    async with other.transaction():
        await other.execute("CREATE TEMPORARY TABLE other (x int) ON COMMIT DROP")
        await other.execute("INSERT INTO other VALUES (1)")
        await store.publish([envelope("k", 1)])
        assert len(await read_all(store, 1, patience=5)) == 1
    await other.close()


async def _insert(connection: "asyncpg.Connection[Any]", key: str) -> None:
    await connection.execute(
        "INSERT INTO tidings.log (lane, type, version, id, source, time, key, correlation, keep, data) "
        "VALUES (0, 'fence.written', '1', $1, 'fence', 0, $1, $1, 'forever', '{}')",
        key,
    )


async def set_back(url: str, position: int) -> None:
    """As after a failover to a standby that lagged: the newest events are gone, and their positions come again."""
    admin = await asyncpg.connect(url)
    await admin.execute(f"DELETE FROM tidings.log WHERE position > {position}")
    await admin.execute("SELECT setval('tidings.log_position', $1)", position)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    await admin.close()


class Wanted(Event, name="fence.wanted", key="k"):
    k: str


class Unwanted(Event, name="fence.unwanted", key="k"):
    k: str


async def test_a_worker_that_survives_the_loss_of_the_newest_events_skips_none_of_those_that_follow(
    postgres_url: str,
) -> None:
    service = Service("survivor", store=postgres_url)
    handled: list[str] = []

    @service.subscribe(Wanted)
    async def note(event: Wanted) -> None:
        handled.append(event.k)

    async with service.running():
        for number in range(60):  # lanes go over them in memory only
            await service.publish(Unwanted(k=f"u{number}"))
        await until(lambda: history_of(service).safe >= 60)
        await set_back(postgres_url, 10)
        await until(lambda: history_of(service).history > 0)
        for number in range(20):
            await service.publish(Wanted(k=f"w{number}"))
        await until(lambda: len(set(handled)) == 20)


def history_of(service: Service) -> Fence:
    assert isinstance(service.store, PostgresStore)
    return service.store._fence


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - other tasks do it
            await asyncio.sleep(0.02)


async def test_lanes_settle_nothing_that_was_read_before_the_server_became_another(store: PostgresStore) -> None:
    await store.run(lambda s: s.register(SubscriptionRow("s", "f", "transaction", True, ("fence.written",), 0)))
    lanes = Lanes("s", ["fence.written"], store, "me")
    await lanes.rebalance(["me"])
    await store.publish([envelope(f"k{number}", number) for number in range(20)])
    records, seen, _ = await lanes.read(100)
    steps = lanes.moves({record.lane for record in records}, seen)
    store._fence.met("another server", False)
    with pytest.raises(LeaseLostError):
        await store.run(lambda statements: lanes.insert(statements, steps))
    assert {step.position for step in await store.reading.steps("s")} == {0}
    await lanes.rebalance(["me"])
    async with asyncio.timeout(5):
        again: set[str] = set()
        while len(again) < 20:
            found, seen, _ = await lanes.read(100)
            again |= {record.envelope.id for record in found}


async def test_a_time_is_no_later_than_what_is_undecided(store: PostgresStore, postgres_url: str) -> None:
    writer = await asyncpg.connect(postgres_url)
    transaction = writer.transaction()
    await transaction.start()
    await _insert(writer, "early")
    await store.publish([envelope("late", 1)])
    assert await store.reading.position_at(0) == 0  # and not 1, just before what can be seen
    await transaction.commit()
    await writer.close()
