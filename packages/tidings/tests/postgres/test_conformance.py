"""The suite of a store, over Postgres; and what asyncpg's errors become."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tidings.backends.postgres import PostgresStore, open_store, store
from tidings.errors import StatementError, StoreBusyError
from tidings.store import Store
from tidings.testing.conformance import StoreSuite
from tidings.testing.conformance.samples import still_world


class TestPostgres(StoreSuite):
    @pytest.fixture(autouse=True)
    def _on_postgres(self, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = postgres_url
        monkeypatch.setattr(store, "HOLD_LIMIT", 1.0)

    def make(self, folder: Path) -> PostgresStore:
        return open_store(self.url, still_world())

    async def refuse(self, store: Store, event_id: str) -> None:
        """No index of a partitioned table makes ids unique: on Postgres admission does, so refuse by a check."""
        await store.script(f"ALTER TABLE tidings.log ADD CONSTRAINT refused CHECK (id <> '{event_id}')")


@pytest.fixture
async def opened(postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = open_store(postgres_url, still_world())
    await made.open(migrate=True)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("sql", "args"),
    [
        ("SELECT $1::int + $2::int", (1,)),
        ("SELECT $1::int", ("seven",)),
        ("SELECT $1::int", (2**40,)),
        ("SELECT 'seven'::int", ()),
        ("SELECT 1; SELECT 2", ()),
        ("SET LOCAL statement_timeout = 30", ()),
    ],
)
async def test_what_a_handler_says_wrongly_is_its_own_failure(
    opened: PostgresStore, sql: str, args: tuple[object, ...]
) -> None:
    """A StoreError that is retryable would be tried again for ever, and no attempt counted."""
    with pytest.raises(StatementError):  # noqa: PT012 - the last case fails by its second statement
        async with opened.transaction() as statements:
            await statements.query(sql, args)  # type: ignore[arg-type]
            await statements.query("SELECT pg_sleep(0.2)", ())


async def test_a_table_that_changed_under_a_known_statement_is_tried_again(opened: PostgresStore) -> None:
    async def look() -> object:
        async with opened.transaction() as statements:
            return (await statements.query("SELECT * FROM changing", ()))[1]

    await opened.script("CREATE TABLE changing AS SELECT 1 AS a")
    assert await look() == [(1,)]
    await opened.script("ALTER TABLE changing ADD COLUMN b integer DEFAULT 2")
    with pytest.raises(StoreBusyError) as caught:
        await look()
    assert caught.value.retryable
    assert await look() == [(1, 2)]
