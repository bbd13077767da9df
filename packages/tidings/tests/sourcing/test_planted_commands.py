"""Bugs planted into commands, each seen by a test that promises otherwise; and processes that are killed at one."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from account import MoneyWithdrawn, RefusedError
from commanded import Note, Open, Pay, Take, balance, bank, notes

from tidings import ConstraintError, Service, StreamConflictError
from tidings.points import COMMAND_POINTS
from tidings.sourcing.decider import Decision

COPIES = 5


async def met(service: Service, where: str, number: int) -> None:
    """Wait until so many are at the same place."""
    service.__dict__[where] = service.__dict__.get(where, 0) + 1
    while service.__dict__[where] < number:  # noqa: ASYNC110 - a number
        await asyncio.sleep(0.005)


class ForgetsIds(Service):
    """Executes whatever comes."""

    async def _before(self, *args: Any) -> None:
        return None


class NotesFirst(Service):
    """Notes an id in a transaction of its own, before it does what it is for."""

    async def _before(self, one: Any, part: Any) -> Any:
        mine = f"noted-{one.id}"
        if mine in self.__dict__.setdefault("ids", set()):
            return self._executed(one, 0, (), repeated=True)
        self.__dict__["ids"].add(mine)
        return None


class LooksThenActs(Service):
    """Looks whether an id has come, and does not keep others with it waiting."""

    async def _before(self, one: Any, part: Any) -> Any:
        statements = await part.statements()
        found = await self._made_by(one.id, statements, part)
        await met(self, "looked", COPIES if self.store_url.startswith("postgres") else 1)
        return self._executed(one, 0, found, repeated=True) if found else None


class SwallowsConflicts(Service):
    """Says that it was done, though somebody else was first."""

    async def load(self, *args: Any, **options: Any) -> Any:
        loaded = await super().load(*args, **options)
        if options.get("tx") is None and loaded.version:
            await met(self, "loaded", COPIES)
        return loaded

    async def decide(self, decider: Any, command: Any, **options: Any) -> Any:
        try:
            return await super().decide(decider, command, **{**options, "retries": 0})
        except StreamConflictError:
            loaded = await self.load(decider, options["stream"], tx=options.get("tx"))
            return Decision(options["stream"], loaded.state, loaded.version, (), ())


async def once_for_an_id(service: Service) -> bool:
    """Say whether a repeated id changes nothing, and one that was refused is executed when it comes again."""
    await service.execute(Open(account="1", balance=10))
    for _ in range(2):
        await service.execute(Take(account="1", amount=4), id="take")
        await service.execute(Note(text="n"), id="note")
    with pytest.raises(RefusedError):
        await service.execute(Take(account="1", amount=8), id="later")
    await service.execute(Pay(account="1", amount=9))
    await service.execute(Take(account="1", amount=8), id="later")
    return (await balance(service), await notes(service)) == (7, ["n"])


async def copies_together(service: Service) -> bool:
    """Say whether copies that come at the same moment are executed once."""
    await service.execute(Open(account="1", balance=10))
    await asyncio.gather(*(service.execute(Note(text="n"), id="note") for _ in range(COPIES)))
    return await notes(service) == ["n"]


async def as_many_as_said(service: Service) -> bool:
    """Say whether as many withdrawals are in the stream as were said to be done."""
    await service.execute(Open(account="1", balance=100))
    ids = [f"id-{n}" for n in range(COPIES)] + [None] * COPIES
    done = await asyncio.gather(*(service.execute(Take(account="1", amount=1), id=one) for one in ids))
    withdrawn = [one.event async for one in service.read_stream("account-1")][1:]
    return len(withdrawn) == len(done) and {type(event) for event in withdrawn} == {MoneyWithdrawn}


PROMISES = (
    (once_for_an_id, (ForgetsIds, NotesFirst)),
    (copies_together, (ForgetsIds, LooksThenActs)),
    (as_many_as_said, (SwallowsConflicts,)),
)


@pytest.mark.parametrize(
    ("promise", "made"),
    [(promise, made) for promise, bugs in PROMISES for made in (Service, *bugs)],
    ids=lambda one: one.__name__,
)
async def test_a_planted_bug_breaks_the_promise(store_url: str, promise: Any, made: type[Service]) -> None:
    # One writer at a time is all that SQLite has: who looks there, acts before the next one looks.
    seen = made is not Service and not (made is LooksThenActs and store_url.startswith("sqlite"))
    async with bank(store_url, made) as service:
        try:
            kept = await promise(service)
        except (RefusedError, ConstraintError):  # an error in place of the answer is none
            kept = False
        assert kept is not seen


@pytest.mark.parametrize("point", COMMAND_POINTS)
async def test_processes_that_are_killed_at_a_point_execute_once_all_the_same(store_url: str, point: str) -> None:
    script = str(Path(__file__).with_name("commanded.py"))
    for die in (("--die", point, "4"), ()):
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, store_url, "4", *die, env={**os.environ}, stderr=asyncio.subprocess.PIPE
        )
        said = (await process.communicate())[1].decode()
        assert process.returncode == (-signal.SIGKILL if die else 0), said
    service = bank(store_url)
    async with service.running(consumers=False):
        assert await balance(service) == 1000 - 4
        assert await notes(service) == [f"{number:03}" for number in range(4)]
        types = [row.envelope.type for row in await service.store.reading.recent(0, 99)]
        assert (types.count("bank.money.withdrawn"), types.count("bank.noted")) == (4, 4)
