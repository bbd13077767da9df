"""Suite: transactions, what shares a commit, the user's SQL, and who hears of a commit."""

# ruff: noqa: D102, PT012, ASYNC110 - the names of the tests say what they do; blocks raise at their end; waiting is for another process

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tidings.errors import (
    ConstraintError,
    StatementError,
    StoreUnavailableError,
    TidingsError,
    TransactionError,
    TransactionHeldTooLongError,
)
from tidings.statements import Statements
from tidings.store import HELD_CHANGED, Store
from tidings.testing.conformance.opening import Opening
from tidings.testing.conformance.samples import envelope

CONTROLS = ("BEGIN", "COMMIT", "ROLLBACK", "END", "SAVEPOINT a", "RELEASE a", "/* c */ commit", "-- c\nrollback")


class TransactionSuite(Opening):
    """Part of StoreSuite."""

    async def prepare_table(self, store: Store) -> None:
        """Make the table of a service."""
        await store.script("CREATE TABLE suite_rows (id INTEGER PRIMARY KEY, name TEXT)")

    async def names(self, store: Store) -> list[str]:
        """Return what is committed."""
        _, rows = await store.reading.query("SELECT name FROM suite_rows ORDER BY id", ())
        return [row[0] for row in rows]

    async def test_a_block_commits_at_its_end_and_rolls_back_when_it_raises(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)
            async with store.transaction() as s:
                assert await s.execute("INSERT INTO suite_rows VALUES ($1, $2)", (1, "kept")) == 1
                assert await self.names(store) == []
            with pytest.raises(LookupError):
                async with store.transaction() as s:
                    await s.execute("INSERT INTO suite_rows VALUES ($1, $2)", (2, "gone"))
                    await s.append([envelope("gone")])
                    raise LookupError
            assert await self.names(store) == ["kept"]
            assert await store.reading.find("gone") == []

    async def test_savepoints_nest_and_undo_alone(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)
            async with store.transaction() as s:
                await s.execute("INSERT INTO suite_rows VALUES (1, 'first')", ())
                await s.savepoint()
                await s.execute("INSERT INTO suite_rows VALUES (2, 'undone')", ())
                await s.savepoint()
                await s.execute("INSERT INTO suite_rows VALUES (3, 'undone too')", ())
                await s.release()
                await s.roll_back_to_savepoint()
                await s.execute("INSERT INTO suite_rows VALUES (4, 'last')", ())
            assert await self.names(store) == ["first", "last"]

    async def test_placeholders_are_bound_by_number(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)
            async with store.transaction() as s:
                await s.execute("INSERT INTO suite_rows (name, id) VALUES ($2, $1)", (7, "seven"))
                names, rows = await s.query("SELECT id, name, '$1' AS text FROM suite_rows WHERE id = $1", (7,))
            assert names == ("id", "name", "text")
            assert [tuple(row) for row in rows] == [(7, "seven", "$1")]

    async def test_a_question_sees_one_committed_state_and_writes_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)
            counted = "SELECT count(*) FROM suite_rows"
            for number in range(2):  # the second time on a connection that was used
                async with store.querying() as asked, store.querying() as beside:
                    assert (await asked.query(counted, ()))[1] == [(number,)]
                    async with store.transaction() as s:
                        await s.execute("INSERT INTO suite_rows VALUES ($1, 'new')", (number,))
                    assert (await asked.query(counted, ()))[1] == [(number,)]
                    assert (await beside.query(counted, ()))[1] == [(number + 1,)]
                    assert len(await self.names(store)) == number + 1
            for sql in (
                "INSERT INTO suite_rows VALUES (9, 'written')",
                "INSERT INTO suite_rows VALUES (9, 'written') RETURNING id",
                "UPDATE suite_rows SET name = 'written'",
                "DELETE FROM suite_rows",
                "CREATE TABLE suite_more (id INTEGER)",
            ):
                with pytest.raises(StatementError):
                    async with store.querying() as asked:
                        await asked.query(sql, ())
            assert await self.names(store) == ["new", "new"]

    @pytest.mark.parametrize("sql", CONTROLS)
    async def test_sql_may_not_end_the_transaction(self, tmp_path: Path, sql: str) -> None:
        async with self.opened(tmp_path) as store, store.transaction() as s:
            with pytest.raises(StatementError):
                await s.execute(sql, ())

    async def test_sql_that_cannot_run_says_so_and_a_constraint_is_told_apart(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)
            with pytest.raises(StatementError):
                async with store.transaction() as s:
                    await s.execute("INSERT INTO nowhere VALUES (1)", ())
            with pytest.raises(ConstraintError):
                async with store.transaction() as s:
                    await s.execute("INSERT INTO suite_rows VALUES (1, 'a')", ())
                    await s.execute("INSERT INTO suite_rows VALUES (1, 'b')", ())
            with pytest.raises(StatementError):
                async with store.transaction() as s:
                    await s.execute("DELETE FROM suite_rows; DELETE FROM suite_rows", ())
            assert await self.names(store) == []

    async def test_a_block_that_swallows_its_end_keeps_nobody_waiting(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)

            async def hold_on() -> None:
                async with store.transaction() as s:
                    await s.execute("INSERT INTO suite_rows VALUES (1, 'never')", ())
                    for row in range(2, 100):
                        try:
                            await asyncio.sleep(0.1)
                        except asyncio.CancelledError:
                            continue
                        try:
                            await s.execute("INSERT INTO suite_rows VALUES ($1, 'never')", (row,))
                        except TidingsError:
                            return

            holding = asyncio.ensure_future(hold_on())
            await asyncio.sleep(0.05)
            async with asyncio.timeout(10), store.transaction() as s:
                await s.execute("INSERT INTO suite_rows VALUES (999, 'another')", ())
            async with asyncio.timeout(10):
                with pytest.raises(TransactionHeldTooLongError):
                    await holding
            assert await self.names(store) == ["another"]

    async def test_one_bad_publish_of_a_group_fails_alone(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.refuse(store, "e3")
            calls = [store.publish([envelope(f"e{n}")]) for n in range(6)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            failed = [n for n, outcome in enumerate(outcomes) if outcome is not None]
            assert failed == [3]
            assert isinstance(outcomes[3], ConstraintError)
            found = [record.envelope.id for record in await store.reading.recent(0, 99)]
            assert sorted({*found, "e3"}) == [f"e{n}" for n in range(6)]

    async def test_one_bad_unit_of_a_group_fails_alone(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)

            async def add(s: Statements, number: int) -> int:
                await s.execute("INSERT INTO suite_rows VALUES ($1, $2)", (number, f"n{number}"))
                if number == 2:
                    raise LookupError(number)
                return number

            calls = [store.run(partial(add, number=n)) for n in range(4)]
            outcomes = await asyncio.gather(*calls, store.publish([envelope("beside")]), return_exceptions=True)
            assert [type(one) for one in outcomes] == [int, int, LookupError, int, type(None)]
            assert await self.names(store) == ["n0", "n1", "n3"]
            assert len(await store.reading.find("beside")) == 1

    async def test_a_cancelled_block_writes_nothing_and_blocks_nobody(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)
            entered = asyncio.Event()

            async def hold() -> None:
                async with store.transaction() as s:
                    await s.execute("INSERT INTO suite_rows VALUES (1, 'gone')", ())
                    entered.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(hold())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await store.publish([envelope("after")])
            assert await self.names(store) == []

    async def test_a_transaction_held_too_long_is_rolled_back(self, tmp_path: Path) -> None:
        limit = 15.0  # the longest limit of any store is 10 s; SQLite's is 1 s
        async with self.opened(tmp_path) as store:
            await self.prepare_table(store)
            with pytest.raises(TransactionHeldTooLongError) as caught:
                async with asyncio.timeout(limit), store.transaction() as s:
                    await s.execute("INSERT INTO suite_rows VALUES (1, 'gone')", ())
                    await asyncio.sleep(limit)
            assert caught.value.retryable
            await store.publish([envelope("after")])
            assert await self.names(store) == []

    async def test_a_transaction_within_a_transaction_is_refused(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store, store.transaction():
            with pytest.raises(TransactionError):
                await store.publish([envelope("inside")])
            with pytest.raises(TransactionError):
                async with store.transaction():
                    pass

    async def test_who_listens_hears_of_commits_only(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            heard: list[str] = []
            stop = store.listen(["suite.happened"], lambda: heard.append("event"))
            store.listen([HELD_CHANGED], lambda: heard.append("held"))
            with pytest.raises(LookupError):
                async with store.transaction() as s:
                    await s.append([envelope("gone")])
                    raise LookupError
            assert heard == []
            await store.publish([envelope("e")])
            await self.until(lambda: heard == ["event"])
            stop()
            await store.publish([envelope("f")])
            assert heard == ["event"]

    async def until(self, is_so: object) -> None:
        """Wait for a wake-up, which a store may deliver a moment after the commit."""
        assert callable(is_so)
        async with asyncio.timeout(5):
            while not is_so():
                await asyncio.sleep(0.005)

    async def test_a_store_that_is_not_open_says_so(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            pass
        with pytest.raises(StoreUnavailableError):
            await store.publish([envelope("e")])

    async def test_what_was_committed_is_there_after_opening_again(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.publish([envelope("e")])
        try:
            await store.open(migrate=False)
        except TidingsError as error:
            pytest.skip(f"this store does not outlive its closing: {error}")
        assert len(await store.reading.find("e")) == 1
        await store.close()
