"""A service that follows another service's log gets all of it, once, in order; and each planted bug shows."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tidings import Event, Projection, ReadModel, Service, ServiceError, Transaction, operations, points
from tidings.consuming import following
from tidings.consuming.following import Following
from tidings.rows import Followed, Record
from tidings.testing.simulation.planting import planted

pytestmark = pytest.mark.timeout(120)


LONG = timedelta(seconds=40)


class Sold(Event, name="shop.sold", key="item"):
    item: str
    number: int


class Returned(Event, name="shop.returned", key="item"):
    item: str
    number: int


class Ignored(Event, name="shop.ignored", key="item"):
    item: str


@pytest.fixture(params=["sqlite", "postgres"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of the followed store and of one's own: each store is both."""
    file = f"sqlite+apsw:///{tmp_path}/one.db"
    if request.param == "sqlite":
        return file, str(request.getfixturevalue("postgres_url"))
    return str(request.getfixturevalue("postgres_url")), file


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return f"sqlite+apsw:///{tmp_path}/shop.db", f"sqlite+apsw:///{tmp_path}/figures.db"


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "BATCH", 20)
    monkeypatch.setattr(following, "PAUSE_SECONDS", 0.05)


def contents(url: str) -> dict[str, bytes]:
    """What a SQLite store's files hold, by name."""
    file = Path(url.removeprefix("sqlite+apsw:///"))
    return {one.name: one.read_bytes() for one in file.parent.glob(f"{file.name}*")}


def remove(url: str) -> None:
    file = Path(url.removeprefix("sqlite+apsw:///"))
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()


def shop(url: str, name: str = "shop") -> Service:
    service = Service(name, store=url)
    service.register(Sold, Returned, Ignored)
    return service


def figures(urls: tuple[str, str], *types: type[Event]) -> tuple[Service, Projection]:
    service = Service("figures", store=urls[1], landing=urls[0])
    moves = service.projection("moves", schema="CREATE TABLE IF NOT EXISTS {moves} (item TEXT, number INTEGER)")

    @moves.on(*(types or (Sold,)))
    async def move(event: Any, model: ReadModel) -> None:
        await model.execute("INSERT INTO {moves} (item, number) VALUES ($1, $2)", event.item, event.number)

    return service, moves


async def sell(service: Service, numbers: range, event: type[Event] = Sold) -> None:
    async with service.transaction() as tx:
        for number in numbers:
            tx.publish(event(item=f"i{number % 3}", number=number))


async def seen(service: Service, moves: Projection) -> list[int]:
    """The numbers that have come, in no order; and those of each item must be in theirs."""
    async with asyncio.timeout(40):
        await service.wait_until_followed()
    await moves.wait_until_caught_up(patience=LONG)
    records = await service.store.reading.recent(0, 10_000)
    keys: dict[str | None, list[bytes]] = {}
    for record in records:
        keys.setdefault(record.envelope.key, []).append(record.envelope.data)
    assert all(data == sorted(data, key=_number) for data in keys.values())
    return sorted(row["number"] for row in await moves.fetch_all("SELECT number FROM {moves}"))


def _number(data: bytes) -> int:
    return int(data.rsplit(b":", 1)[1].rstrip(b"}"))


async def test_what_was_there_before_and_what_comes_meanwhile_is_there_once(urls: tuple[str, str]) -> None:
    source = shop(urls[0])
    async with source:
        await sell(source, range(100))
        await source.publish(Ignored(item="i0"))
        service, moves = figures(urls)
        async with service:
            for start in range(100, 200, 10):
                await sell(source, range(start, start + 10))
            assert await seen(service, moves) == list(range(200))
            (followed,) = (await operations.status(service.store, now=0)).followed.values()
            assert 0 < followed.positions["shop.sold"] <= await source.store.reading.head()
            records = await service.store.reading.recent(0, 1000)
            assert {record.envelope.type for record in records} == {"shop.sold"}
            assert {record.envelope.source for record in records} == {"shop"}
        await sell(source, range(200, 230))
        service, moves = figures(urls)  # started again
        async with service:
            assert await seen(service, moves) == list(range(230))


async def test_an_event_keeps_its_identity_and_its_time_but_not_its_place_in_a_stream(urls: tuple[str, str]) -> None:
    source = shop(urls[0])
    service, moves = figures(urls)
    async with source:
        (said,) = await source.append("item-1", [Sold(item="i1", number=1)], expected=0, correlation="c")
        async with service:
            await seen(service, moves)
            (record,) = await service.store.reading.find(said.id)
    came = record.envelope
    assert (came.id, came.source, came.time, came.correlation) == (said.id, "shop", said.time, "c")
    assert said.stream == "item-1"
    assert (came.stream, came.stream_version) == (None, None)


async def test_several_processes_that_follow_one_log_land_everything_once(urls: tuple[str, str]) -> None:
    source = shop(urls[0])
    async with source:
        await sell(source, range(300))
        one, moves = figures(urls)
        other, _ = figures(urls)
        async with one, other:
            await sell(source, range(300, 400))
            await asyncio.gather(seen(one, moves), other.wait_until_followed())
            assert await seen(one, moves) == list(range(400))


async def test_a_type_that_is_added_later_is_followed_from_the_beginning(files: tuple[str, str]) -> None:
    source = shop(files[0])
    async with source:
        await sell(source, range(40), Returned)
        await sell(source, range(40, 90))
        service, moves = figures(files)
        async with service:
            assert await seen(service, moves) == list(range(40, 90))
        await sell(source, range(90, 100))
        service, moves = figures(files, Sold, Returned)
        async with service:
            async with asyncio.timeout(40):
                await service.wait_until_followed()
            await moves.wait_until_caught_up(patience=LONG)
            numbers = [row["number"] for row in await moves.fetch_all("SELECT number FROM {moves}")]
            assert sorted(numbers) == list(range(100))


async def test_another_log_in_the_same_place_is_read_from_its_beginning(files: tuple[str, str]) -> None:
    source = shop(files[0])
    service, moves = figures(files)
    async with source:
        await sell(source, range(60))
        async with service:
            await seen(service, moves)
    remove(files[0])
    async with source:
        await sell(source, range(1000, 1080))
        service, moves = figures(files)
        async with service:
            assert await seen(service, moves) == [*range(60), *range(1000, 1080)]


async def test_of_another_log_nothing_is_passed_either_that_only_another_release_takes(files: tuple[str, str]) -> None:
    source = shop(files[0])
    async with source:
        await sell(source, range(60))
        await sell(source, range(60, 120), Returned)
        service, moves = figures(files, Sold, Returned)
        async with service:
            await service.wait_until_followed()
    remove(files[0])
    async with source:
        await sell(source, range(1000, 1020))
        await sell(source, range(1020, 1040), Returned)
        await sell(source, range(1040, 1200))
        older, _ = figures(files, Sold)
        async with older:
            await older.wait_until_followed()
        newer, moves = figures(files, Sold, Returned)
        async with newer, asyncio.timeout(40):
            await newer.wait_until_followed()
            await moves.wait_until_caught_up(patience=LONG)
            numbers = [row["number"] for row in await moves.fetch_all("SELECT number FROM {moves}")]
            assert sorted(numbers) == [*range(120), *range(1000, 1200)]


async def test_what_a_service_has_sent_itself_does_not_come_back(
    files: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    service, moves = figures(files)
    other = shop(files[0], name="figures")
    async with other, service:
        own = await service.publish(Sold(item="i1", number=1))
        await other.publish(Sold(item="i1", number=1), id=own.id)  # as if it had come there by a transport
        assert await seen(service, moves) == [1]
        assert "name of its own" not in caplog.text
        await sell(other, range(60))  # of another service with the same name
        assert await seen(service, moves) == [1]
        assert caplog.text.count("name of its own") == 1


async def test_work_and_ordered_handlers_follow_too(files: tuple[str, str]) -> None:
    source, service = shop(files[0]), Service("figures", store=files[1], landing=files[0])
    numbers: list[int] = []
    done = asyncio.Event()

    @service.subscribe(Sold, ordered=True, start="beginning")
    async def count(event: Sold, tx: Transaction) -> None:
        numbers.append(event.number)
        if len(numbers) == 30:
            done.set()

    async with source:
        await sell(source, range(30))
        async with service, asyncio.timeout(40):
            await done.wait()
    assert sorted(numbers) == list(range(30))
    assert [n for n in numbers if n % 3 == 1] == list(range(1, 30, 3))


async def test_a_log_that_is_not_there_is_told_and_nothing_is_made(files: tuple[str, str]) -> None:
    service, _ = figures(files)
    with pytest.raises(Exception, match="does not exist"):
        async with service:
            pass
    assert contents(files[0]) == {}
    with pytest.raises(ServiceError, match="follows no log here"):
        await service.wait_until_followed()


async def test_nothing_is_written_to_the_followed_log(files: tuple[str, str]) -> None:
    source = shop(files[0])
    async with source:
        await sell(source, range(30))
    before = contents(files[0])
    service, moves = figures(files)
    async with service:
        await seen(service, moves)
    assert contents(files[0]) == before


@contextmanager
def failing(times: int) -> Iterator[None]:
    """Let the first commits of what lands fail, as a crash would."""
    left = times

    def visit(point: str) -> None:
        nonlocal left
        if point == "landing.before_commit" and left:
            left -= 1
            raise OSError("the power is gone")

    points.watch(visit)
    try:
        yield
    finally:
        points.watch(None)


async def interrupted(files: tuple[str, str]) -> list[int]:
    source = shop(files[0])
    async with source:
        await sell(source, range(90))
        service, moves = figures(files)
        with failing(3):
            async with service:
                async with asyncio.timeout(40):
                    await service.wait_until_followed()
                return await seen(service, moves)


async def replaced(files: tuple[str, str]) -> list[int]:
    await test_another_log_in_the_same_place_is_read_from_its_beginning(files)
    return list(range(90))


async def added(files: tuple[str, str]) -> list[int]:
    await test_a_type_that_is_added_later_is_followed_from_the_beginning(files)
    return list(range(90))


def _progress_first() -> list[Any]:
    whole = Following._land

    async def land(self: Following, records: list[Record], moved: dict[str, int]) -> None:
        after = Followed({**(self._written.positions if self._written else {}), **moved})
        await self._store.run(lambda statements: statements.follow(self._log.name, self._written, after))
        self._written = after
        await whole(self, records, moved)

    return [(Following, "_land", land)]


def _any_log() -> list[Any]:
    async def same(self: Following, written: Followed) -> bool:
        return True

    return [(Following, "_is_the_same", same)]


def _one_position() -> list[Any]:
    async def begin(self: Following) -> dict[str, int]:
        self._written = written = await self._store.reading.followed(self._log.name)
        position = max(written.positions.values()) if written else 0
        return dict.fromkeys(self._types, position)

    return [(Following, "_begin", begin)]


MUTANTS: dict[str, Callable[[], list[Any]]] = {
    "progress_first": _progress_first,
    "any_log": _any_log,
    "one_position": _one_position,
}
TRIED = {"progress_first": interrupted, "any_log": replaced, "one_position": added}


async def test_a_commit_that_fails_loses_nothing_and_doubles_nothing(files: tuple[str, str]) -> None:
    assert await interrupted(files) == list(range(90))


@pytest.mark.parametrize("name", sorted(MUTANTS))
async def test_a_planted_bug_shows(name: str, files: tuple[str, str]) -> None:
    with planted(name, MUTANTS), pytest.raises((AssertionError, TimeoutError)):
        assert await TRIED[name](files) == list(range(90))
