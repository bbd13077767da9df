"""Databases whose defaults are not Postgres's own: isolation and timeouts; and errors that the user's SQL raises."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tidings import Event, RetryPolicy, Service, Transaction
from tidings.backends.postgres import PostgresStore
from tidings.backends.postgres.driver import of_the_server
from tidings.errors import StatementError, StoreUnavailableError
from tidings.rows import LaneStep

LOST_STEPS = 200
"""More than the versions of a row that a snapshot could still see by chance."""


class Asked(Event, name="defaults.asked", key="name"):
    name: str


async def set_default(url: str, setting: str, value: str) -> None:
    connection = await asyncpg.connect(url)
    database = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE \"{database}\" SET {setting} = '{value}'")
    await connection.close()


async def until(service: Service, sql: str) -> None:
    async with asyncio.timeout(20):
        while not await service.fetch_value(sql):  # noqa: ASYNC110 - other connections do it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_progress_is_fenced_whatever_the_default_isolation(postgres_url: str, isolation: str) -> None:
    """A worker that lost its lane amid a transaction sees that it has, and nobody's commit is refused."""
    await set_default(postgres_url, "default_transaction_isolation", isolation)
    service = Service("defaults", store=postgres_url)
    service.schema("CREATE TABLE IF NOT EXISTS effect (name text)")

    @service.subscribe(Asked)
    async def note(event: Asked, tx: Transaction) -> None:
        await tx.execute("INSERT INTO effect VALUES ($1)", event.name)

    async def publish(number: int) -> None:
        async with service.transaction() as tx:
            tx.publish(Asked(name=f"in a transaction {number}"))
        await service.publish(Asked(name=f"alone {number}"))

    async with service:
        await asyncio.gather(*(publish(number) for number in range(40)))
        await until(service, "SELECT count(*) = 80 AND count(DISTINCT name) = 80 FROM effect")
    async with service.running(consumers=False):
        store = service.store
        assert isinstance(store, PostgresStore)
        async with store.transaction() as stale:
            lane = next(one for one in await stale.steps("note") if one.lane == 0)

            async def new_owner() -> None:
                for step in range(lane.step + 1, lane.step + LOST_STEPS):
                    async with store.transaction() as tx:
                        assert await tx.advance("note", [LaneStep(0, step, lane.position, "the new owner")])

            await asyncio.create_task(new_owner())
            assert not await stale.advance("note", [LaneStep(0, lane.step + 1, lane.position, "the old one")])


async def test_a_wait_for_our_own_locks_costs_no_attempt(postgres_url: str) -> None:
    """statement_timeout of the database is for its users' statements, not for our waiting."""
    await set_default(postgres_url, "statement_timeout", "600ms")
    service, handled = Service("defaults", store=postgres_url), list[str]()

    @service.subscribe(Asked, retry=RetryPolicy(attempts=1))
    async def note(event: Asked, tx: Transaction) -> None:
        handled.append(event.name)

    async with service:
        await asyncio.sleep(0.3)
        blocker = await asyncpg.connect(postgres_url)
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE tidings.progress IN SHARE ROW EXCLUSIVE MODE")
            await service.publish(Asked(name="waits"))
            await asyncio.sleep(0.9)  # one timeout passes, the next does not
        await blocker.close()
        await until(service, "SELECT count(*) > 0 FROM tidings.progress WHERE position > 0")
        assert await service.fetch_value("SELECT count(*) FROM tidings.held") == 0
    assert handled == ["waits"]


async def test_a_statement_of_the_users_that_was_given_up_is_the_users_error(postgres_url: str) -> None:
    async with Service("defaults", store=postgres_url).running(consumers=False) as service:

        async def sleep() -> None:
            async with service.transaction() as tx:
                await tx.execute("SET LOCAL statement_timeout = '50ms'")
                await tx.execute("SELECT pg_sleep(5)")

        with pytest.raises(StatementError, match="gave a statement up"):
            await sleep()


async def test_an_internal_error_raised_by_the_users_sql_ends_as_a_dead_letter(postgres_url: str) -> None:
    """As PostGIS does for a geometry that is none: the database is not away, and the lane goes on."""
    service, handled = Service("defaults", store=postgres_url), list[str]()
    retry = RetryPolicy(attempts=2, backoff=timedelta(0))

    @service.subscribe(Asked, ordered=True, retry=retry)
    async def note(event: Asked, tx: Transaction) -> None:
        if event.name == "bad":
            await tx.execute("DO $$ BEGIN RAISE EXCEPTION 'no geometry' USING ERRCODE = 'XX000'; END $$")
        handled.append(event.name)

    async with service:
        await service.publish(Asked(name="bad"))
        await service.publish(Asked(name="good"))
        await until(service, "SELECT count(*) = 1 FROM tidings.held WHERE state = 'dead' AND attempts = 2")
        async with asyncio.timeout(10):
            while "good" not in handled:  # noqa: ASYNC110 - a handler appends it
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("state", "ours"),
    [
        ("XX000", StatementError),
        ("XX001", StoreUnavailableError),
        ("XX002", StoreUnavailableError),
        ("25P04", StoreUnavailableError),
    ],
)
def test_which_errors_mean_that_the_database_is_away(state: str, ours: type[Exception]) -> None:
    error: Any = asyncpg.PostgresError("as the server says it")
    error.sqlstate = state
    assert type(of_the_server(error)) is ours
