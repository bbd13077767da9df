"""Suite: work that waits or runs, and the exceptions."""

# ruff: noqa: D102 - the names of the tests say what they do

from pathlib import Path

from msgspec.structs import replace

from tidings.rows import BEHIND, DEAD, DISCARDED, PARKED, RETRY, Failure
from tidings.store import Store
from tidings.testing.conformance.opening import Opening
from tidings.testing.conformance.samples import at, envelope, held, ready, subscription


class ExceptionSuite(Opening):
    """Part of StoreSuite."""

    async def prepare(self, store: Store, events: int = 9) -> None:
        """Register `sub` and publish events, so that there are positions to speak of."""
        await store.run(lambda s: s.register(subscription()))
        await store.publish([envelope(f"e{n}", key="k") for n in range(events)])

    async def test_work_is_claimed_by_shares_in_turn(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            await store.run(lambda s: s.fill([ready(n, "big") for n in range(1, 7)] + [ready(7, "small")]))
            first = await store.run(lambda s: s.claim("sub", "ann", "", 2, at(4)))
            assert sorted((row.share, row.position) for row in first) == [("big", 1), ("small", 7)]
            assert {(row.owner, row.attempt, row.since) for row in first} == {("ann", 1, at(4))}
            rest = await store.run(lambda s: s.claim("sub", "bob", "small", 50, at(4)))
            assert [row.position for row in rest] == [2, 3, 4, 5, 6]
            assert await store.run(lambda s: s.claim("sub", "bob", "", 50, at(4))) == []

    async def test_the_turn_goes_round_among_thousands_of_shares(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            await store.run(lambda s: s.fill([ready(n, f"{n:04}") for n in range(1, 1201)]))
            late = await store.run(lambda s: s.claim("sub", "ann", "1100", 2, at(4)))
            last = await store.run(lambda s: s.claim("sub", "ann", "1199", 2, at(4)))
            first = await store.run(lambda s: s.claim("sub", "ann", "1200", 2, at(4)))
            turns = [sorted(row.share for row in taken) for taken in (late, last, first)]
            assert turns == [["1101", "1102"], ["0001", "1200"], ["0002", "0003"]]

    async def test_settling_work_is_fenced_by_owner_and_attempt(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            await store.run(lambda s: s.fill([ready(1, key="k")]))
            (old,) = await store.run(lambda s: s.claim("sub", "ann", "", 1, at(4)))
            assert await store.run(lambda s: s.give_back(old, counted=True))
            (new,) = await store.run(lambda s: s.claim("sub", "ann", "", 1, at(4)))
            assert new.attempt == 2
            assert not await store.run(lambda s: s.unready(old))
            assert not await store.run(lambda s: s.give_back(old, counted=True))
            assert not await store.run(lambda s: s.unready(replace(new, owner="bob")))
            assert [row.attempt for row in await store.reading.running("sub")] == [2]
            assert await store.run(lambda s: s.unready(new))
            assert await store.reading.ready([1]) == []

    async def test_work_given_back_uncounted_loses_no_attempt(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            await store.run(lambda s: s.fill([ready(1)]))
            (row,) = await store.run(lambda s: s.claim("sub", "ann", "", 1, at(4)))
            await store.run(lambda s: s.give_back(row, counted=False))
            assert [one.since for one in await store.reading.ready([1])] == [None]
            (row,) = await store.run(lambda s: s.claim("sub", "ann", "", 1, at(4)))
            assert row.attempt == 1

    async def test_an_exception_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        failures = (Failure(1, at(0), "ValueError", "no", "trace"), Failure(2, at(1), "KeyError", "k", ""))
        row = held(1, RETRY, attempts=2, due=at(3), reason="k", failures=failures, actor="ann", updated=at(2))
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            await store.run(lambda s: s.hold([row]))
            assert await store.reading.held("sub", [1, 2]) == [row]
            assert await store.reading.held(None, [1]) == [row]
            assert await store.reading.held("other", [1]) == []
            await store.run(lambda s: s.hold([replace(row, state=DEAD, due=None)]))
            assert [one.state for one in await store.reading.held("sub", [1])] == [DEAD]
            assert await store.run(lambda s: s.unhold("sub", 1))
            assert not await store.run(lambda s: s.unhold("sub", 1))

    async def test_keys_are_closed_by_exceptions_that_block_and_by_work(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            rows = [held(1, DEAD, key="dead"), held(2, DEAD, key="open", blocks=False)]
            await store.run(lambda s: s.hold(rows))
            await store.run(lambda s: s.fill([ready(3, key="working")]))
            keys = ["dead", "open", "working", "free"]
            assert await store.reading.closed_keys("sub", keys) == {"dead", "working"}
            assert await store.reading.closed_keys("sub", keys, by_work=True) == {"working"}
            assert await store.reading.closed_keys("other", keys) == set()

    async def test_retries_are_due_in_the_order_of_positions(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            rows = [held(n, RETRY, key=f"k{n}", due=at(due)) for n, due in ((1, 5), (2, 1), (3, 3), (4, 99))]
            await store.run(lambda s: s.hold([*rows, held(5, RETRY, lane=1, key="k5", due=at(0))]))
            assert await store.reading.next_due("sub", [0]) == at(1)
            assert [row.position for row in await store.reading.due("sub", [0], at(5), 9)] == [1, 2, 3]
            assert [row.position for row in await store.reading.due("sub", [0, 1], at(0), 9)] == [5]
            assert await store.reading.next_due("sub", []) is None

    async def test_the_first_follower_of_a_free_key_is_the_next_head(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            followers = [held(n, BEHIND, key=key) for n, key in ((2, "a"), (3, "a"), (5, "b"), (7, "c"))]
            await store.run(lambda s: s.hold([held(1, DEAD, key="a"), *followers]))
            await store.run(lambda s: s.fill([ready(6, key="c")]))
            assert await store.reading.next_behind("sub", "a") is None  # its head is not settled
            found = await store.reading.next_behind("sub", "b")
            assert found is not None
            assert found.position == 5
            assert [row.position for row in await store.reading.heads_to_be("sub", [0], 9)] == [5]
            await store.run(lambda s: s.hold([held(1, DISCARDED, key="a", blocks=False)]))
            assert [row.position for row in await store.reading.heads_to_be("sub", [0], 9)] == [2, 5]
            assert [row.position for row in await store.reading.heads_to_be("sub", [0], 1)] == [2]

    async def test_letters_are_listed_and_counted(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.prepare(store)
            rows = [held(1, DEAD), held(2, PARKED), held(3, DEAD), held(4, DISCARDED, blocks=False)]
            await store.run(lambda s: s.hold(rows))
            assert [row.position for row in await store.reading.letters([DEAD], "sub", 0, 1)] == [1]
            assert [row.position for row in await store.reading.letters([DEAD], "sub", 1, 9)] == [3]
            assert [row.position for row in await store.reading.letters([DEAD, PARKED], None, 0, 9)] == [1, 2, 3]
            assert (await store.reading.counts())["sub", DEAD] == 2
            assert await store.reading.holds_any("sub")
