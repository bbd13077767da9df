"""What a handler's SQL sets for its session goes with its transaction: the connection is somebody else's next."""

import pytest

from tidings import Service, Transaction
from tidings.backends.postgres import store

SETTINGS = (
    "SET search_path TO pg_catalog",
    "SET ROLE pg_monitor",
    "SELECT set_config('app.tenant', 'a', false)",
    "SELECT pg_advisory_lock(7470144999)",
    "LISTEN elsewhere",
)
STATE = """
SELECT pg_backend_pid(), current_setting('search_path'), current_user = session_user,
       coalesce(current_setting('app.tenant', true), ''), to_regclass('pg_temp.scratch') IS NOT NULL,
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_listening_channels())
"""


@pytest.fixture(autouse=True)
def _one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transaction has the connection of the one before it."""
    monkeypatch.setattr(store, "CONNECTIONS", 1)


async def set_everything(tx: Transaction) -> None:
    await tx.execute("CREATE TEMP TABLE scratch (name text)")
    for statement in SETTINGS:
        await tx.execute(statement)


async def state_of(service: Service) -> list[object]:
    async with service.transaction() as tx:
        row = await tx.fetch_one(STATE)
    assert row is not None
    return list(row)


async def test_nothing_is_left_after_a_commit(postgres_url: str) -> None:
    async with Service("state", store=postgres_url).running(consumers=False) as service:
        before = await state_of(service)
        async with service.transaction() as tx:
            await set_everything(tx)
            during = await tx.fetch_one(STATE)
        assert during is not None
        assert [one != other for one, other in zip(during, before, strict=True)] == [False, *[True] * 5, False]
        assert await state_of(service) == before


async def test_nothing_is_left_after_a_rollback(postgres_url: str) -> None:
    """Postgres undoes settings itself then, but no advisory lock of a session."""
    service = Service("state", store=postgres_url)

    async def fail() -> None:
        async with service.transaction() as tx:
            await set_everything(tx)
            raise LookupError("the handler's own")

    async with service.running(consumers=False):
        before = await state_of(service)
        with pytest.raises(LookupError):
            await fail()
        assert await state_of(service) == before


async def test_nothing_is_left_after_a_query_without_a_transaction(postgres_url: str) -> None:
    async with Service("state", store=postgres_url).running(consumers=False) as service:
        before = await state_of(service)
        await service.fetch_value("SELECT set_config('app.tenant', 'a', false), pg_advisory_lock(7470144999)")
        assert await state_of(service) == before
