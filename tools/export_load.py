"""Ad Export under load, as processes, and what is seen of it from outside: shared by the tests and the benchmark."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web
from asking import small_order
from aws_proxy import AwsProxy
from cloud_servers import free_port
from local_cloud import Api, Command, Machine, Place, Worker, function_at_work

from tidings.testing.aws_lambda import EventSource

OVER = ("done", "dead", "cancelled")


@asynccontextmanager
async def started(*commands: Command) -> AsyncIterator[None]:
    """Start commands one after the other; stop them in the opposite order, and show what they printed."""
    begun: list[Command] = []
    try:
        for command in commands:
            begun.append(command)
            await asyncio.to_thread(command.start)
        yield
    finally:
        for command in reversed(begun):
            await asyncio.to_thread(command.stop)
            print(command.said())


@asynccontextmanager
async def on_one_machine(machine: Machine, *, workers: int = 1) -> AsyncIterator[str]:
    """The API, and workers as processes of their own; gives the API's address."""
    api = Api(machine, free_port(), consumers=False)
    async with started(api, *(Worker(machine) for _ in range(workers))):
        yield api.address


@asynccontextmanager
async def in_the_cloud(
    place: Place, *, concurrency: int = 2, batch_size: int = 10
) -> AsyncIterator[tuple[str, EventSource]]:
    """The API, a worker that carries and lands, and the function; gives the API's address."""
    api = Api(place, free_port(), consumers=False)
    async with (
        started(api, Worker(place)),
        function_at_work(place, concurrency=concurrency, batch_size=batch_size) as (_, source),
    ):
        yield api.address, source


@asynccontextmanager
async def one_worker_then_another(machine: Machine) -> AsyncIterator[tuple[str, Worker, Worker]]:
    """The API and a worker; gives the API's address, that worker, and one that is yet to be started."""
    api, first, second = Api(machine, free_port(), consumers=False), Worker(machine), Worker(machine)
    async with started(api, first):
        try:
            yield api.address, first, second
        finally:
            await asyncio.to_thread(second.stop)


@asynccontextmanager
async def connected(store: str) -> AsyncIterator[Any]:
    """A connection to the database, to look behind the API."""
    connection = await asyncpg.connect(store)
    try:
        yield connection
    finally:
        await connection.close()


async def all_ended(store: str, seconds: float) -> Counter[str]:
    """Wait until no export is under way; return how many ended how."""
    deadline = time.monotonic() + seconds
    async with connected(store) as connection:
        while True:
            rows = await connection.fetch("SELECT state, count(*) FROM adexport_exports_v1 GROUP BY 1")
            states = Counter({row["state"]: row["count"] for row in rows})
            asked_for = await connection.fetchval("SELECT count(DISTINCT export_id) FROM adexport_cell")
            if sum(states.values()) == asked_for and not set(states) - set(OVER):  # the list catches up
                return states
            assert time.monotonic() < deadline, f"After {seconds:g} seconds: {dict(states)}"
            await asyncio.sleep(0.25)


async def many_files(address: str, files: int, words: str) -> str:
    """Ask for one export of so many large files, each with words of its own; return its id."""
    body = small_order(words)
    body["design"] = body["design"] | {"sizes": ["1080x1080"]}
    body["rows"] = [{"headline": f"{words} number {number}"} for number in range(files)]
    async with aiohttp.ClientSession(address) as session, session.post("/v1/exports", json=body) as answer:
        assert answer.status == 202, await answer.text()
        return str((await answer.json())["export"]["id"])


async def until_made(store: str, export: str, files: int, seconds: float = 300.0) -> None:
    """Wait until so many files of an export are made."""
    deadline = time.monotonic() + seconds
    async with connected(store) as connection:
        sql = "SELECT count(*) FROM adexport_cell WHERE export_id = $1 AND state = 'done'"
        while (made := await connection.fetchval(sql, export)) < files:
            assert time.monotonic() < deadline, f"{made} of {files} files"
            await asyncio.sleep(0.02)


def cpu_of_family(pid: int) -> float:
    """Seconds of CPU that a process and those it has started have used; Linux tells."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        parents[int(stat.parent.name)] = int(fields[1])
        used[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family, more = {pid}, True
    while more:
        joined = {child for child, parent in parents.items() if parent in family} - family
        family |= joined
        more = bool(joined)
    return sum(used.get(each, 0.0) for each in family)


class Clock(AwsProxy):
    """Stands before S3 and writes down when each file was stored, by its digest."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.stored: dict[str, float] = {}

    async def _pass(self, request: web.Request) -> web.Response:
        response = await super()._pass(request)
        folder, _, name = request.path.rpartition("/")
        if request.method == "PUT" and folder.endswith("/files"):
            self.stored[name] = time.time()
        return response


def stored_in(machine: Machine) -> Callable[[str], float]:
    """When a file got its name in the folder of the files, by its digest."""
    folder = Path(machine.api()["ADEXPORT_DATA"]) / "files"
    return lambda digest: (folder / digest[:2] / digest).stat().st_ctime


async def page_delays(address: str, count: int, stored_at: Callable[[str], float], words: str) -> list[float]:
    """Seconds from the moment that a file was stored to the moment that a page's stream tells of it; one at a time."""
    found = []
    async with aiohttp.ClientSession(address) as session:
        for number in range(count):
            async with session.post("/v1/exports", json=small_order(f"{words} {number}")) as answer:
                home = (await answer.json())["links"]["self"]
            told = await _told_at(session, home)
            async with session.get(f"{home}/cells") as answer:
                (cell,) = await answer.json()
            found.append(told - stored_at(cell["sha256"]))
    return found


async def _told_at(session: aiohttp.ClientSession, home: str) -> float:
    """The time at which the stream of an export told of its file."""
    async with session.get(f"{home}/events", headers={"Accept": "text/event-stream"}) as stream:
        async for line in stream.content:
            if line.startswith(b"data: ") and json.loads(line[6:]).get("kind") == "files":
                return time.time()
    raise AssertionError(f"the stream of {home} ended before its file came")


def through_a_clock(place: Place, clock: Clock) -> Place:
    """The place, whose function stores its files through the clock."""
    return replace(place, function_endpoint=clock.url)
