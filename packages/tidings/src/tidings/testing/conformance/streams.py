"""Suite: streams. Heads, appends and who wins, reading, archives, snapshots."""

# ruff: noqa: D102, PT012 - the names of the tests say what they do; blocks raise at their end

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tidings.rows import Append, SnapshotRow, StreamHead
from tidings.store import Store
from tidings.testing.conformance.opening import Opening
from tidings.testing.conformance.samples import at, envelope

NO_END = 1 << 40


def appending(stream: str, expected: int | None, *ids: str, **attributes: Any) -> Append:
    """Return an append of events with some ids."""
    return Append(stream, expected, tuple(envelope(one, key=stream, stream=stream, **attributes) for one in ids))


def ids_of(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the ids of rows of columns.RECORDED_COLUMNS."""
    return [row[5] for row in rows]


async def versions(store: Store, stream: str) -> list[int]:
    """Return the versions that a stream's events have."""
    rows = await store.reading.stream_events(stream, 0, NO_END, 0, 10_000, backward=False, archived=True)
    return [row[2] for row in rows]


class StreamSuite(Opening):
    """Part of StoreSuite."""

    async def test_an_append_is_taken_at_the_expected_version_only(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.append(appending("s", 5, "too-early")) is None
            assert await store.reading.stream_head("s") is None
            assert await store.append(appending("s", 0, "a", "b")) == 2
            assert await store.append(appending("s", 0, "again")) is None
            assert await store.append(appending("s", 1, "stale")) is None
            assert await store.append(appending("s", 3, "ahead")) is None
            assert await store.append(appending("s", 2, "c")) == 3
            assert await store.append(appending("s", None, "d")) == 4
            assert await store.append(appending("t", None, "e")) == 1
            assert [record.envelope.id for record in await store.reading.recent(0, 99)] == list("abcde")
            assert await versions(store, "s") == [1, 2, 3, 4]
            assert await store.reading.stream_head("s") == StreamHead("s", 4)

    async def test_appended_events_are_events_of_the_log_and_know_their_place(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.append(appending("s", 0, "a", "b"))
            await store.publish([envelope("plain")])
            page = await store.reading.read(0, ["suite.happened"], range(store.lanes), 9)
            places = [(one.envelope.id, one.envelope.stream, one.envelope.stream_version) for one in page.records]
            assert places == [("a", "s", 1), ("b", "s", 2), ("plain", None, None)]
            assert (await store.reading.find("b"))[0].envelope == envelope("b", key="s", stream="s", stream_version=2)

    async def test_many_events_at_once_keep_their_order_and_all_that_they_say(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            odd: dict[int, dict[str, Any]] = {1: {"extensions": {"a": "b"}, "subject": "s"}, 200: {"causation": "c"}}
            some = [envelope(f"{n:03}", stream="s", key=["k", None][n % 2], **odd.get(n, {})) for n in range(300)]
            assert await store.append(Append("s", 7, tuple(some))) is None
            assert await store.append(Append("s", 0, tuple(some))) == 300
            assert await store.append(Append("s", 0, tuple(some))) is None
            plain = [replace(one, id=f"+{one.id}", stream=None) for one in some]
            with pytest.raises(LookupError):
                async with store.transaction() as s:
                    await s.append(plain)
                    raise LookupError
            await store.publish(plain)
            seen = [one.envelope for one in await store.reading.recent(0, 999)]
            assert seen == [replace(one, stream_version=n) for n, one in enumerate(some, 1)] + plain

    async def test_of_several_appends_at_once_one_wins_and_the_others_hear_of_it(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for turn in range(5):
                calls = [store.append(appending("s", turn, f"{turn}-{n}")) for n in range(8)]
                outcomes = await asyncio.gather(*calls)
                assert sorted(outcomes, key=str) == [turn + 1] + [None] * 7
            assert await versions(store, "s") == [1, 2, 3, 4, 5]

    async def test_of_transactions_at_once_one_wins_and_the_others_go_on(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.script("CREATE TABLE tries (n INTEGER, head INTEGER)")

            async def attempt(n: int) -> int | None:
                async with store.transaction() as s:
                    head = await s.move_head("s", 0, 1)
                    await s.execute("INSERT INTO tries VALUES ($1, $2)", (n, head))
                    if head is not None:
                        await asyncio.sleep(0.02)  # the others are there by now
                        await s.append(appending("s", 0, f"e{n}").placed(head))
                return head

            heads = await asyncio.gather(*(attempt(n) for n in range(5)))
            assert sorted(heads, key=str) == [1, None, None, None, None]
            _, rows = await store.reading.query("SELECT count(*), count(head) FROM tries", ())
            assert [tuple(row) for row in rows] == [(5, 1)]
            assert await versions(store, "s") == [1]

    async def test_versions_have_no_gap_whoever_appends_what(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:

            async def write(n: int) -> list[int | None]:
                return [
                    await store.append(appending(f"s{turn % 2}", None, *[f"{n}-{turn}-{i}" for i in range(1 + n % 3)]))
                    for turn in range(6)
                ]

            heads = await asyncio.gather(*(write(n) for n in range(6)))
            assert None not in [head for some in heads for head in some]
            for stream in ("s0", "s1"):
                count = 3 * sum(1 + n % 3 for n in range(6))
                assert await versions(store, stream) == list(range(1, count + 1))
            rows, _ = await store.reading.events_of_streams(0, "s0", 999, archived=False)
            assert [row[2] for row in rows] == sorted(row[2] for row in rows)

    async def test_a_rollback_leaves_no_head(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.append(appending("old", 0, "a"))
            with pytest.raises(LookupError):
                async with store.transaction() as s:
                    assert await s.move_head("new", 0, 1) == 1
                    assert await s.move_head("old", 1, 1) == 2
                    raise LookupError
            async with store.transaction() as s:
                await s.savepoint()
                assert await s.move_head("new", 0, 3) == 3
                await s.roll_back_to_savepoint()
            assert await store.reading.stream_head("new") is None
            assert await store.append(appending("old", 1, "b")) == 2
            assert await store.append(appending("new", 0, "c")) == 1

    async def test_what_fails_in_a_group_of_appends_fails_alone(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.refuse(store, "e3")
            calls = [store.append(appending(f"s{n}", 1 if n == 5 else 0, f"e{n}")) for n in range(8)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(outcomes.pop(3), Exception)
            assert outcomes == [1, 1, 1, 1, None, 1, 1]
            assert await store.reading.stream_head("s3") is None
            assert await store.reading.stream_head("s5") is None
            found = [record.envelope.id for record in await store.reading.recent(0, 99)]
            assert sorted({*found, "e3"}) == ["e0", "e1", "e2", "e3", "e4", "e6", "e7"]

    async def test_a_stream_is_read_from_a_version_or_a_time_and_backward(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for n in range(1, 7):
                await store.append(appending("s", n - 1, str(n), time=envelope("x").time.replace(minute=n)))
            await store.append(appending("t", 0, "other"))
            read = store.reading.stream_events

            async def some(*args: int, backward: bool = False) -> list[str]:
                return ids_of(await read("s", *args, backward=backward, archived=False))

            assert await some(0, NO_END, 0, 99) == list("123456")
            assert await some(2, NO_END, 0, 3) == list("345")
            assert await some(2, 5, 0, 99) == list("34")
            assert await some(0, NO_END, 0, 2, backward=True) == list("65")
            assert await some(1, 5, 0, 99, backward=True) == list("432")
            assert await some(0, NO_END, at(4 * 60), 99) == list("456")
            assert await some(6, NO_END, 0, 99) == []

    async def test_all_streams_are_read_in_global_order_and_by_prefix(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for n in range(6):
                await store.append(appending(f"{'ab'[n % 2]}-{n}", 0, f"e{n}"))
                await store.publish([envelope(f"plain{n}")])

            async def every(prefix: str, page: int) -> list[str]:
                found, after = [], 0
                while True:
                    rows, scanned = await store.reading.events_of_streams(after, prefix, page, archived=False)
                    found += ids_of(rows)
                    if scanned == after:
                        return found
                    after = scanned

            async def back(prefix: str, page: int) -> list[str]:
                found: list[str] = []
                before: int | None = None
                while before is None or before > 1:
                    rows, before = await store.reading.events_of_streams_back(before, prefix, page, archived=False)
                    found += ids_of(rows)
                return found

            for page in (1, 2, 99):
                assert await every("", page) == ["e0", "e1", "e2", "e3", "e4", "e5"]
                assert await every("a-", page) == ["e0", "e2", "e4"]
                assert await back("b-", page) == ["e5", "e3", "e1"]
            assert await every("%", 9) == []
            heads = await store.reading.stream_heads("b-", "b-1", 9, archived=False)
            assert heads == [StreamHead("b-3", 1), StreamHead("b-5", 1)]

    async def test_an_archived_stream_takes_nothing_and_is_left_out(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for stream in ("s", "t"):
                await store.append(appending(stream, 0, f"{stream}1"))
            assert await store.run(lambda s: s.archive_stream("s", at(60)))
            assert not await store.run(lambda s: s.archive_stream("unknown", at(60)))
            for expected in (1, None, 0):
                assert await store.append(appending("s", expected, f"refused-{expected}")) is None
            reading = store.reading
            assert await reading.stream_head("s") == StreamHead("s", 1, at(60))
            for archived, ids in ((False, ["t1"]), (True, ["s1", "t1"])):
                assert ids_of((await reading.events_of_streams(0, "", 9, archived=archived))[0]) == ids
                assert ids_of((await reading.events_of_streams_back(None, "", 9, archived=archived))[0]) == ids[::-1]
                own = await reading.stream_events("s", 0, NO_END, 0, 9, backward=False, archived=archived)
                assert ids_of(own) == (["s1"] if archived else [])
                assert len(await reading.stream_heads("", "", 9, archived=archived)) == len(ids)
            assert await store.run(lambda s: s.archive_stream("s", None))
            assert await store.append(appending("s", 1, "s2")) == 2

    async def test_a_snapshot_is_replaced_by_a_newer_or_one_of_another_version(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            first = SnapshotRow("s", "account", 1, 10, at(0), b'{"n":1}')

            async def kept(row: SnapshotRow) -> SnapshotRow | None:
                await store.run(lambda s: s.keep_snapshot(row))
                return await store.reading.snapshot_of("s", "account")

            assert await store.reading.snapshot_of("s", "account") is None
            assert await kept(first) == first
            assert await kept(replace(first, stream_version=9, state=b"{}")) == first
            newer = replace(first, stream_version=11, time=at(1), state=b'{"n":2}')
            assert await kept(newer) == newer
            other = replace(first, state_version=2, stream_version=8)
            assert await kept(other) == other
            assert await store.reading.snapshot_of("s", "audit") is None
