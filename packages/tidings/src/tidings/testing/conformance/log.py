"""Suite: the log, what is admitted to it, progress in it, and delayed publishes."""

# ruff: noqa: D102 - the names of the tests say what they do

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from tidings.rows import Followed, LaneStep, Scheduled, WorkerRow
from tidings.statements import Statements
from tidings.testing.conformance.opening import Opening
from tidings.testing.conformance.samples import at, envelope, subscription


class LogSuite(Opening):
    """Part of StoreSuite."""

    async def test_events_are_read_in_the_order_of_their_positions_and_none_is_skipped(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.publish([envelope(f"e{n}", key=f"k{n % 5}") for n in range(30)])
            seen, after = [], 0
            while (page := await store.reading.read(after, ["suite.happened"], range(store.lanes), 7)).scanned > after:
                seen += [record.envelope.id for record in page.records]
                after = page.scanned
            assert seen == [f"e{n}" for n in range(30)]
            assert after == await store.reading.head()

    async def test_reading_is_by_type_and_lane_and_a_key_stays_in_one_lane(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.publish([envelope(f"a{n}", key="one") for n in range(3)])
            await store.publish([envelope("b", type="suite.other", key="one")])
            reading, every = store.reading, list(range(store.lanes))
            assert [r.envelope.id for r in (await reading.read(0, ["suite.other"], every, 9)).records] == ["b"]
            assert len((await reading.read(0, None, every, 9)).records) == 4
            (lane,) = {record.lane for record in (await reading.read(0, None, every, 9)).records}
            others = [one for one in every if one != lane]
            assert (await reading.read(0, None, others, 9)).records == []

    async def test_reading_on_finds_what_a_snapshot_finds_whatever_was_undone_meanwhile(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            lanes = list(range(0, store.lanes, 2))

            async def undo(statements: Statements) -> None:
                await statements.append([envelope("never", key="k1")])
                raise LookupError

            for turn in range(4):
                name = f"suite.{'happened' if turn % 2 else 'other'}"
                await store.publish([envelope(f"a{turn}-{n}", key=f"k{n}", type=name) for n in range(5)])
                with pytest.raises(LookupError):
                    await store.run(undo)
                async with store.transaction() as s:
                    await s.append([envelope(f"b{turn}", key="k2", extensions={"vendor": "value"})])
                    await s.savepoint()
                    await s.append([envelope("undone", key="k3")])
                    await s.roll_back_to_savepoint()
                    if turn % 2:
                        await s.append([envelope(f"c{turn}", key="k4", data=b"{}")])
                head = await store.reading.head()
                for after in range(head + 1):
                    page = await store.reading.read(after, ["suite.happened"], lanes, 3)
                    async with store.snapshot() as snapshot:
                        assert page.records == (await snapshot.read(after, ["suite.happened"], lanes, 3)).records
                    assert page.scanned <= head

    async def test_an_event_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        whole = envelope(
            "e",
            key="Schlüssel \U0001f511",
            subject="s",
            share="tenant",
            causation="c",
            traceparent="00-ab",
            tracestate="x=y",
            version="2.1",
            keep="3600",
            supersedes="d",
            extensions={"vendor": "value"},
            data='{"text":"\u4f60\u597d"}'.encode(),
        )
        async with self.opened(tmp_path) as store:
            await store.publish([whole])
            (record,) = await store.reading.find("e")
            assert record.envelope == whole
            assert await store.reading.records([record.position, 999]) == {record.position: record}

    async def test_one_id_of_several_sources_is_several_events(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.publish([envelope("e")])
            await store.publish([envelope("e", source="another")])
            assert [record.envelope.source for record in await store.reading.find("e")] == ["suite", "another"]

    async def test_what_followed_is_found_by_its_correlation(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.publish([envelope("a"), envelope("b", correlation="a", causation="a"), envelope("c")])
            assert [record.envelope.id for record in await store.reading.caused_by("a")] == ["b"]

    async def test_what_arrives_is_admitted_once_by_source_and_id(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            first = await store.run(lambda s: s.admit([envelope("e"), envelope("e"), envelope("e", source="web")]))
            assert [(one.source, one.id) for one in first] == [("suite", "e"), ("web", "e")]
            assert await store.run(lambda s: s.admit([envelope("e")])) == []
            assert len(await store.run(lambda s: s.admit([envelope("u")], undated_at=at(0)))) == 1
            assert await store.run(lambda s: s.admit([envelope("u")], undated_at=at(0))) == []

    async def test_admissions_are_forgotten_by_their_time_or_by_their_arrival(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.run(lambda s: s.admit([envelope("dated")]))
            await store.run(lambda s: s.admit([envelope("early")], undated_at=at(0)))
            await store.run(lambda s: s.admit([envelope("late")], undated_at=at(9)))
            assert await store.run(lambda s: s.admit([envelope("early")], undated_at=at(9))) == []
            assert await store.run(lambda s: s.forget_admitted(at(1), 100)) == 2
            assert len(await store.run(lambda s: s.admit([envelope("dated")]))) == 1
            assert len(await store.run(lambda s: s.admit([envelope("early")], undated_at=at(9)))) == 1
            assert await store.run(lambda s: s.admit([envelope("late")], undated_at=at(9))) == []

    async def test_progress_is_fenced_by_its_steps(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.run(lambda s: s.register(subscription()))
            first = LaneStep(0, 1, 5, "ann")
            assert await store.run(lambda s: s.advance("sub", [first]))
            assert not await store.run(lambda s: s.advance("sub", [LaneStep(0, 1, 9, "bob")]))
            assert not await store.run(lambda s: s.advance("sub", [LaneStep(0, 3, 9, "bob")]))
            steps = {step.lane: step for step in await store.reading.steps("sub")}
            assert steps[0] == first
            assert len(steps) == store.lanes
            for number in range(2, 200):
                assert await store.run(_advancing(LaneStep(0, number, number, "ann")))

    async def test_registering_again_keeps_progress_and_start(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.run(lambda s: s.register(subscription(start=3)))
            await store.run(lambda s: s.advance("sub", [LaneStep(0, 1, 7, None)]))
            await store.run(lambda s: s.register(subscription(start=9, types=("suite.other", "suite.happened"))))
            (row,) = await store.reading.subscriptions()
            assert row.start == 3
            assert {step.position for step in await store.reading.steps("sub")} == {3, 7}
            await store.run(lambda s: s.rename("sub", "new"))
            assert {step.position for step in await store.reading.steps("new")} == {3, 7}
            assert await store.run(lambda s: s.pause("new", "ann", "to look"))
            assert (await store.reading.subscriptions())[0].paused_by == "ann"
            await store.run(lambda s: s.forget("new"))
            assert await store.reading.subscriptions() == []
            assert not await store.run(lambda s: s.pause("new", None, None))

    async def test_a_name_that_comes_again_has_another_version(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:

            async def version_of(name: str) -> int:
                await store.run(lambda s: s.register(subscription(name)))
                return next(row.version for row in await store.reading.subscriptions() if row.name == name)

            assert [await version_of("a"), await version_of("a"), await version_of("b")] == [1, 1, 1]
            await store.run(lambda s: s.forget("a"))
            assert await version_of("a") == 2
            await store.run(lambda s: s.rename("a", "c"))
            assert [await version_of("c"), await version_of("a")] == [2, 3]
            await store.run(lambda s: s.forget("c"))
            await store.run(lambda s: s.rename("b", "c"))
            assert [await version_of("c"), await version_of("b")] == [3, 2]

    async def test_a_fence_lets_no_owner_go_on_and_moves_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.run(lambda s: s.register(subscription(start=3)))
            await store.run(lambda s: s.advance("sub", [LaneStep(0, 1, 7, "ann")]))
            await store.run(lambda s: s.fence("sub"))
            steps = {step.lane: step for step in await store.reading.steps("sub")}
            assert steps[0] == LaneStep(0, 2, 7, "ann")
            assert {step for lane, step in steps.items() if lane} == {
                LaneStep(lane, 1, 3, None) for lane in range(1, store.lanes)
            }
            assert not await store.run(lambda s: s.advance("sub", [LaneStep(0, 2, 9, "ann")]))

    async def test_who_registers_waits_for_those_who_count_on_what_is_registered(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.run(lambda s: s.register(subscription()))

            async def widen(statements: Statements) -> None:
                await statements.registering()
                await statements.register(subscription(types=("suite.happened", "suite.other")))

            async with store.transaction() as s:
                before = await s.subscriptions(steady=True)
                widening = asyncio.ensure_future(store.run(widen))
                await asyncio.sleep(0.05)
                assert await s.subscriptions(steady=True) == before
                assert not widening.done()
            await widening
            assert (await store.reading.subscriptions())[0].types == ("suite.happened", "suite.other")

    async def test_workers_beat_and_retire(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            row = WorkerRow("w", "suite", "elsewhere", 1, at(0), at(10), ("consumers",))
            await store.run(lambda s: s.beat(row, at(0)))
            (found,) = await store.reading.workers()
            assert store.is_alive(found, at(5))
            await store.run(lambda s: s.beat(replace(row, expires=at(-1)), at(0)))  # its lease is past, by any clock
            (found,) = await store.reading.workers()
            assert not store.is_alive(found, at(0))
            await store.run(lambda s: s.retire("w"))
            assert await store.reading.workers() == []

    async def test_nothing_is_dropped_that_a_subscription_still_needs(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.run(lambda s: s.register(subscription()))
            await store.publish([envelope(f"e{n}", keep="60", key="k") for n in range(4)])
            head = await store.reading.head()
            floor = (await store.reading.floors())["sub"]
            assert floor < head - 3
            assert await store.run(lambda s: s.drop("60", 0, floor, at(3600))) == 0
            for step in await store.reading.steps("sub"):
                moved = LaneStep(step.lane, step.step + 1, head, None)
                assert await store.run(_advancing(moved))
            floor = (await store.reading.floors())["sub"]
            assert floor >= head
            assert await store.run(lambda s: s.drop("60", 0, head, at(-3600))) == 0
            assert await store.run(lambda s: s.drop("60", 0, head, at(3600))) == 4

    async def test_how_far_a_log_was_followed_is_written_only_over_what_was_known(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            first, second = Followed({"a": 3, "b": 5}, 5, "e5"), Followed({"b": 7, "a": 7}, 7, "e7")
            assert await store.reading.followed("there") is None
            assert await store.run(lambda s: s.follow("there", None, first))
            assert not await store.run(lambda s: s.follow("there", None, second))
            assert await store.run(lambda s: s.follow("there", first, second))
            assert not await store.run(lambda s: s.follow("there", first, Followed({"a": 4})))
            assert await store.reading.followed("there") == second
            assert await store.reading.followed("elsewhere") is None
            assert await store.reading.followed_logs() == {"there": second}

    async def test_a_delayed_publish_is_kept_once_and_taken_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            rows = [Scheduled(at(due), envelope(name)) for name, due in (("late", 9), ("soon", 1), ("soon", 2))]
            await store.run(lambda s: s.schedule(rows))
            assert await store.reading.next_scheduled() == at(1)
            assert await store.run(lambda s: s.fire(at(0), 10)) == []
            assert [row.envelope.id for row in await store.run(lambda s: s.fire(at(1), 10))] == ["soon"]
            assert await store.run(lambda s: s.fire(at(1), 10)) == []
            assert not await store.run(lambda s: s.cancel("suite", "soon"))
            assert await store.run(lambda s: s.cancel("suite", "late"))
            assert await store.reading.next_scheduled() is None

    async def test_delayed_publishes_of_several_sources_may_have_one_id(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            rows = [Scheduled(at(due), envelope("e", source=source)) for due, source in ((1, "suite"), (2, "another"))]
            await store.run(lambda s: s.schedule(rows))
            assert await store.reading.scheduled("e") == [rows[1], rows[0]]
            assert not await store.run(lambda s: s.cancel("third", "e"))
            assert await store.run(lambda s: s.cancel("another", "e"))
            assert await store.reading.scheduled("e") == [rows[0]]
            await store.run(lambda s: s.schedule(rows))
            assert await store.run(lambda s: s.fire(at(1), 10)) == [rows[0]]
            assert await store.reading.scheduled("e") == [rows[1]]


def _advancing(step: LaneStep) -> Callable[[Statements], Awaitable[bool]]:
    return lambda statements: statements.advance("sub", [step])
