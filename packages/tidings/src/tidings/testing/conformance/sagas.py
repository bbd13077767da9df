"""Suite: the rows of sagas, and that of two who change one only one does."""

# ruff: noqa: D102 - the names of the tests say what they do

from pathlib import Path

from msgspec.structs import replace

from tidings.rows import COMPLETED, RUNNING, STUCK, SagaNote, SagaRow
from tidings.statements import Statements
from tidings.store import Store
from tidings.testing.conformance.opening import Opening
from tidings.testing.conformance.samples import at


def saga_row(saga_id: str = "s-1", **fields: object) -> SagaRow:
    """Return the first version of a saga."""
    note = SagaNote(at(0), "suite.happened", "e1", RUNNING, "began ½")
    row = SagaRow(
        "suite", saga_id, RUNNING, 1, 1, b'{"a":1}', ("pay", "ship"), {"t": "id"}, (note,), None, at(0), at(0)
    )
    return replace(row, **fields)


class SagaSuite(Opening):
    """Part of StoreSuite."""

    async def save(self, store: Store, *rows: SagaRow) -> None:
        """Save new sagas."""

        async def unit(statements: Statements) -> None:
            for row in rows:
                assert await statements.save_saga(row)

        await store.run(unit)

    async def test_a_saga_comes_back_as_it_was_saved(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.reading.load_saga("suite", "s-1") is None
            assert await store.run(lambda s: s.save_saga(saga_row()))
            assert await store.reading.load_saga("suite", "s-1") == saga_row()
            later = saga_row(version=2, status=STUCK, reason="no", needs=(), timers={}, expires=at(9), state_version=3)
            assert await store.run(lambda s: s.save_saga(later))
            assert await store.reading.load_saga("suite", "s-1") == later

    async def test_of_two_changes_of_one_version_one_is_made(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.run(lambda s: s.save_saga(saga_row()))
            assert not await store.run(lambda s: s.save_saga(saga_row(reason="begun twice")))
            assert await store.run(lambda s: s.save_saga(saga_row(version=2, reason="first")))
            assert not await store.run(lambda s: s.save_saga(saga_row(version=2, reason="second")))
            assert not await store.run(lambda s: s.save_saga(saga_row(version=4, reason="too far")))
            found = await store.reading.load_saga("suite", "s-1")
            assert found is not None
            assert (found.version, found.reason) == (2, "first")

    async def test_sagas_are_listed_counted_and_asked_what_they_need(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            rows = [saga_row("b"), saga_row("a", status=STUCK), saga_row("c", saga="other"), saga_row("B", needs=())]
            done = saga_row("d", status=COMPLETED, needs=(), expires=at(5))
            await self.save(store, *rows, done)
            every = await store.reading.sagas(None, (RUNNING, STUCK), ("", ""), 10)
            assert [(row.saga, row.id) for row in every] == [
                ("other", "c"),
                ("suite", "B"),
                ("suite", "a"),
                ("suite", "b"),
            ]
            assert [row.id for row in await store.reading.sagas("suite", (RUNNING,), ("suite", "B"), 10)] == ["b"]
            assert [row.id for row in await store.reading.sagas(None, (RUNNING, STUCK), ("", ""), 1)] == ["c"]
            assert await store.reading.saga_counts() == {
                ("other", RUNNING): 1,
                ("suite", COMPLETED): 1,
                ("suite", RUNNING): 2,
                ("suite", STUCK): 1,
            }
            assert sorted(await store.reading.saga_needs("suite")) == [((), 1), (("pay", "ship"), 2)]

    async def test_finished_sagas_are_forgotten_when_they_expire(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            expires = {f"s-{number}": at(number) if number else None for number in range(4)}
            await self.save(store, *(saga_row(saga_id, expires=when) for saga_id, when in expires.items()))
            assert await store.run(lambda s: s.forget_sagas(at(2), 1)) == 1
            assert await store.run(lambda s: s.forget_sagas(at(2), 10)) == 1
            left = await store.reading.sagas(None, (RUNNING,), ("", ""), 10)
            assert [row.id for row in left] == ["s-0", "s-3"]
