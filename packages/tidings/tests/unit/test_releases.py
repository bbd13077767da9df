"""Two releases of a service side by side: what one takes more than the other is neither lost nor doubled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tidings import Event, Service, Transaction, Work
from tidings.errors import OperationError
from tidings.events import derive_id
from tidings.operations import forget, narrow, where
from tidings.rows import BEHIND, DISCARDED, PARKED, RETRY, Held
from tidings.statements import Statements
from tidings.testing.unfinished import unfinished

pytest.importorskip("apsw")


class Asked(Event, name="releases.asked", version=1, key="key"):
    """Every release takes it."""

    key: str


class Answered(Event, name="releases.answered", version=1, key="key"):
    """Only one release takes it."""

    key: str


KEYS = [str(number) for number in range(40)]


@asynccontextmanager
async def release(folder: Path, *events: type[Event], shape: str = "transaction") -> AsyncIterator[Service]:
    """Run a release whose one subscription takes these events."""
    service = Service("releases", store=f"sqlite+apsw:///{folder}/releases.db")
    service.schema("CREATE TABLE IF NOT EXISTS took (type TEXT, key TEXT, release TEXT)")
    service.register(Asked, Answered)
    insert, mine = "INSERT INTO took VALUES ($1, $2, $3)", " ".join(cls.__name__ for cls in events)

    async def in_transaction(event: Event, tx: Transaction) -> None:
        await tx.execute(insert, type(event).__name__, event.key, mine)  # type: ignore[attr-defined]

    async def as_work(event: Event, work: Work) -> None:
        async with work.finish() as tx:
            await tx.execute(insert, type(event).__name__, event.key, mine)  # type: ignore[attr-defined]

    handler = in_transaction if shape == "transaction" else as_work
    service.subscribe(*events, name="take", ordered=True, start="beginning")(handler)
    async with service:
        yield service


async def taken(service: Service) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in await service.fetch_all("SELECT type, key FROM took"))


async def states(service: Service) -> dict[str, int]:
    return {state: n for (name, state), n in (await service.store.reading.counts()).items() if name == "take"}


async def quiet(service: Service, *, parked: int = 0) -> None:
    """Wait until nothing is left to do but what is parked."""
    async with asyncio.timeout(20):
        while True:
            left = list(await unfinished(service.store.reading))
            if not left and (await states(service)).get(PARKED, 0) >= parked:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("shape", ["transaction", "work"])
async def test_what_a_newer_release_takes_is_not_passed_by_an_older_one(tmp_path: Path, shape: str) -> None:
    async with release(tmp_path, Asked, shape=shape) as old:
        for key in KEYS[:10]:
            await old.publish(Asked(key=key))
        await quiet(old)
        async with release(tmp_path, Asked, Answered, shape=shape) as new:
            for key in KEYS:
                await new.publish(Answered(key=key))
                await new.publish(Asked(key=f"later {key}"))
            await quiet(new)
    async with release(tmp_path, Asked, Answered, shape=shape) as new:
        await quiet(new)
        expected = [("Asked", key) for key in KEYS[:10]] + [("Asked", f"later {key}") for key in KEYS]
        assert await taken(new) == sorted(expected + [("Answered", key) for key in KEYS])
        rows = await new.fetch_all("SELECT DISTINCT release FROM took WHERE type = 'Answered'")
        assert [row[0] for row in rows] == ["Asked Answered"]


async def test_an_older_release_that_starts_later_takes_nothing_away(tmp_path: Path) -> None:
    async with release(tmp_path, Asked, Answered), release(tmp_path, Asked) as old:
        for key in KEYS:
            await old.publish(Answered(key=key))
        await quiet(old)
    async with release(tmp_path, Asked, Answered) as new:
        await quiet(new)
        assert await taken(new) == sorted(("Answered", key) for key in KEYS)


async def test_what_the_newest_release_gives_up_is_parked_and_keeps_its_key(tmp_path: Path) -> None:
    async with release(tmp_path, Asked, Answered):
        pass
    async with release(tmp_path, Asked) as new:
        answered = await new.publish(Answered(key="a"))
        await new.publish(Asked(key="a"))
        await new.publish(Asked(key="b"))
        await quiet(new, parked=1)
        assert await taken(new) == [("Asked", "b")]
        ((found),) = await where(new.store, answered.id, now=new.world.now())
        assert "does not take releases.answered in this release" in found.places[0].why
    async with release(tmp_path, Asked, Answered) as back:
        await quiet(back)
        assert await taken(back) == [("Answered", "a"), ("Asked", "a"), ("Asked", "b")]


async def test_a_type_is_given_up_by_an_operator_alone(tmp_path: Path) -> None:
    async with release(tmp_path, Asked, Answered):
        pass
    async with release(tmp_path, Asked) as new:
        await new.publish(Answered(key="a"))
        await new.publish(Asked(key="a"))
        await quiet(new, parked=1)
        with pytest.raises(OperationError, match=r"takes releases\.answered, releases\.asked"):
            await narrow(new.store, "take", "releases.nope", actor="ann", reason="over", now=new.world.now())
        done = await narrow(new.store, "take", Answered.__event_type__.name, actor="ann", reason="over", now=1)
        assert done == 1
        await new.publish(Answered(key="a"))
        await quiet(new)
        assert await taken(new) == [("Asked", "a")]
        assert await states(new) == {DISCARDED: 1}
        with pytest.raises(OperationError, match="forget"):
            await narrow(new.store, "take", Asked.__event_type__.name, actor="ann", reason="over", now=1)


async def test_a_name_that_was_forgotten_publishes_other_facts_when_it_comes_again(tmp_path: Path) -> None:
    def made() -> Service:
        service = Service("again", store=f"sqlite+apsw:///{tmp_path}/again.db")
        service.register(Answered)

        @service.subscribe(Asked, start="beginning")
        async def in_transaction(event: Asked, tx: Transaction) -> None:
            tx.publish(Answered(key=event.key))

        @service.subscribe(Asked, start="beginning")
        async def as_work(event: Asked, work: Work) -> None:
            async with work.finish() as tx:
                tx.publish(Answered(key=work.idempotency_key))

        return service

    async def answers(service: Service) -> list[str]:
        return [row[0] for row in await service.fetch_all("SELECT id FROM tidings_log WHERE causation IS NOT NULL")]

    async with made() as first:
        asked = await first.publish(Asked(key="a"))
        await quiet(first)
        assert sorted(await answers(first)) == sorted(
            derive_id("again", asked.id, name, 0) for name in ("in_transaction", "as_work")
        )
        for name in ("in_transaction", "as_work"):
            await forget(first.store, name)
        async with made() as second:  # the first one runs on, and must leave the new subscriptions alone
            await quiet(second)
            ids = await answers(second)
            assert len(set(ids)) == len(ids) == 4
            assert (await states_of(second)) == {}
            keys = await second.fetch_all("SELECT DISTINCT data FROM tidings_log WHERE type = 'releases.answered'")
            assert len(keys) == 3  # the key for outside systems is another one too
            assert second.worker is not None
            for name in ("in_transaction", "as_work"):
                steps = await second.store.reading.steps(name)
                assert {step.owner for step in steps} <= {second.worker.id, None}


async def states_of(service: Service) -> dict[tuple[str, str], int]:
    return dict(await service.store.reading.counts())


async def two_heads(service: Service) -> None:
    """Let the first event have come back before the second, which is to be retried; the third waits behind it."""
    steps = await service.store.reading.steps("take")
    records = await service.store.reading.records([1, 2, 3])

    async def unit(statements: Statements) -> None:
        await statements.advance("take", [replace(step, step=step.step + 1, position=3) for step in steps])
        retry = Held("take", 2, records[2].lane, "k", True, RETRY, due=service.world.now() + 300_000)
        behind = [Held("take", position, records[position].lane, "k", True, BEHIND) for position in (1, 3)]
        await statements.hold([retry, *behind])

    await service.store.run(unit)


@pytest.mark.parametrize("shape", ["transaction", "work"])
async def test_what_landed_before_the_head_of_its_key_lets_no_follower_pass(tmp_path: Path, shape: str) -> None:
    service = Service("releases", store=f"sqlite+apsw:///{tmp_path}/heads.db")
    service.schema("CREATE TABLE IF NOT EXISTS took (seq INTEGER PRIMARY KEY, id TEXT)")
    working: list[str] = []

    async def in_transaction(event: Asked, tx: Transaction) -> None:
        assert tx.envelope is not None
        await tx.execute("INSERT INTO took (id) VALUES ($1)", tx.envelope.id)

    async def as_work(event: Asked, work: Work) -> None:
        working.append(work.envelope.id)
        await asyncio.sleep(0.6 if work.envelope.id == "first" else 0)
        assert working == [work.envelope.id]  # one at a time of a key, also of two heads
        async with work.finish() as tx:
            await tx.execute("INSERT INTO took (id) VALUES ($1)", work.envelope.id)
        working.remove(work.envelope.id)

    handler = in_transaction if shape == "transaction" else as_work
    service.subscribe(Asked, name="take", ordered=True, start="beginning")(handler)
    async with service.running(consumers=False):
        for name in ("first", "second", "third"):
            await service.publish(Asked(key="k"), id=name)
        await two_heads(service)
    async with service:
        await quiet(service)
        assert [row[0] for row in await service.fetch_all("SELECT id FROM took ORDER BY seq")] == [
            "first", "second", "third",
        ]  # fmt: skip
        assert (await states(service)) == {}
