"""A handler uses other stores besides its own: only the failures of its own are no attempts."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tidings import (
    ConstraintError,
    Event,
    RetryPolicy,
    Service,
    StatementError,
    StoreFullError,
    SyncWork,
    Transaction,
    Work,
)
from tidings.backends.sqlite import SqliteStore
from tidings.testing import harness

TWICE = RetryPolicy(attempts=2, backoff=timedelta(milliseconds=1))


class Asked(Event, name="stores.asked", version=1):
    """Something was asked for."""

    name: str


def service() -> Service:
    made = Service("stores", store="sqlite:///:memory:")
    made.schema("CREATE TABLE IF NOT EXISTS told (name TEXT UNIQUE)")
    return made


other = Service("other", store="sqlite:///nowhere/other.db")  # is not open: StoreUnavailableError, which is retryable


async def in_transaction(event: Asked, tx: Transaction) -> None:
    await tx.execute("INSERT INTO told VALUES ($1)", event.name)
    await other.publish(event)


async def as_work(event: Asked, work: Work) -> None:
    await other.publish(event)


async def in_finish(event: Asked, work: Work) -> None:
    async with work.finish() as tx:
        await tx.execute("INSERT INTO told VALUES ($1)", event.name)
        async with other.transaction():
            pass


def in_a_thread(event: Asked, work: SyncWork) -> None:
    with work.finish() as tx:
        tx.execute("INSERT INTO told VALUES ($1)", event.name)
        other.store.transaction()


@pytest.mark.parametrize("handler", [in_transaction, as_work, in_finish, in_a_thread])
async def test_another_store_that_is_away_is_an_attempt(handler: Callable[..., Any]) -> None:
    made = service()
    made.subscribe(Asked, name="ask", retry=TWICE)(handler)
    async with harness(made) as h:
        await h.publish(Asked(name="a"))
        await h.settled()
        (letter,) = h.dead_letters()
        assert letter.attempts == 2
        assert "StoreUnavailableError" in letter.failures[-1].error
        assert await made.fetch_all("SELECT * FROM told") == []


def fill(store: Any, *, room: int) -> None:
    """Let the file grow by so many pages only."""
    assert isinstance(store, SqliteStore)
    assert store._writing is not None
    pages = store._writing.rows("PRAGMA page_count")[0][0]
    store._writing.rows(f"PRAGMA max_page_count = {pages + room}")


@pytest.mark.parametrize("swallows", [True, False])
@pytest.mark.parametrize("shape", ["transaction", "work"])
async def test_the_own_store_that_is_full_is_no_attempt_also_if_its_error_is_swallowed(
    tmp_path: Path, shape: str, swallows: bool
) -> None:
    made = Service("stores", store=f"sqlite:///{tmp_path}/full.db")
    made.schema("CREATE TABLE IF NOT EXISTS told (name TEXT, data BLOB)")
    attempts: list[int] = []

    async def write(tx: Transaction, event: Asked) -> None:
        attempts.append(tx.attempt)
        try:
            await tx.execute("INSERT INTO told VALUES ($1, zeroblob(200000))", event.name)
        except StoreFullError:
            if len(attempts) == 2:
                fill(made.store, room=1_000_000)
            if not swallows:
                raise

    async def writing(event: Asked, tx: Transaction) -> None:
        await write(tx, event)

    async def working(event: Asked, work: Work) -> None:
        async with work.finish() as tx:
            await write(tx, event)

    made.subscribe(Asked, name="ask", retry=TWICE)(writing if shape == "transaction" else working)
    async with harness(made) as h:
        fill(made.store, room=20)
        await h.publish(Asked(name="a"))
        await h.settled()
        assert attempts == [1, 1, 1]
        assert await made.fetch_value("SELECT count(*) FROM told") == 1
        assert h.dead_letters() == []


@pytest.mark.parametrize("ending", ["INSERT OR ROLLBACK INTO told VALUES ('there')", "INSERT INTO refused VALUES (1)"])
@pytest.mark.parametrize("swallows", [True, False])
async def test_a_statement_that_ends_the_transaction_fails_its_handler_alone(ending: str, swallows: bool) -> None:
    made = service()
    made.schema(
        "CREATE TABLE IF NOT EXISTS refused (id INTEGER); CREATE TRIGGER IF NOT EXISTS no BEFORE INSERT ON refused "
        "BEGIN SELECT raise(ROLLBACK, 'no'); END; INSERT OR IGNORE INTO told VALUES ('there')"
    )

    @made.subscribe(Asked, retry=TWICE)
    async def ask(event: Asked, tx: Transaction) -> None:
        await tx.execute("INSERT INTO told VALUES ($1)", f"{event.name} first")
        if event.name == "bad":
            try:
                await tx.execute(ending)
            except Exception:
                if not swallows:
                    raise
        await tx.execute("INSERT INTO told VALUES ($1)", f"{event.name} last")

    async with harness(made) as h:
        for name in ("a", "bad", "b"):
            await h.publish(Asked(name=name))
        await h.settled()
        names = [row[0] for row in await made.fetch_all("SELECT name FROM told ORDER BY name")]
        assert names == ["a first", "a last", "b first", "b last", "there"]
        (letter,) = h.dead_letters()
        assert letter.attempts == 2


async def test_a_block_whose_transaction_was_ended_by_a_statement_publishes_nothing() -> None:
    made = service()
    made.register(Asked)
    async with made:
        async with made.transaction() as tx:
            await tx.execute("INSERT INTO told VALUES ('there')")
        with pytest.raises(StatementError, match="rolled back the whole transaction"):  # noqa: PT012 - at its end
            async with made.transaction() as tx:
                await tx.execute("INSERT INTO told VALUES ('a')")
                tx.publish(Asked(name="a"))
                with suppress(ConstraintError):
                    await tx.execute("INSERT OR ROLLBACK INTO told VALUES ('there')")
        assert await made.store.reading.recent(0, 9) == []
        assert await made.fetch_value("SELECT count(*) FROM told") == 1
