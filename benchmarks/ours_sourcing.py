"""The event store as measured, through its public face; and the same rows read by a raw driver."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec

from tidings import ANY, NO_STREAM, Decider, Event, Service, Snapshots

BULK, LOADS, RACERS, PAGE = 1000, 30, 16, 1000
NOTE = "a remark of a hundred characters or so, as people write them beside a payment " * 2


class Opened(Event, name="bench.account.opened"):
    """An account was opened."""


class Deposited(Event, name="bench.account.deposited"):
    """Money came in."""

    amount: int
    note: str


class Account(msgspec.Struct, frozen=True):
    """The state."""

    balance: int = 0


def _evolve(state: Account, event: Opened | Deposited) -> Account:
    return Account(state.balance + event.amount) if isinstance(event, Deposited) else state


def _decide(command: int, state: Account) -> list[Opened | Deposited]:
    return [Deposited(amount=command, note=NOTE)]


def decider(every: int | None = None) -> Decider[int, Account, Opened | Deposited]:
    """Return the account's decider, with snapshots or without."""
    return Decider(
        name="account",
        initial=Account,
        decide=_decide,
        evolve=_evolve,
        events=(Opened, Deposited),
        snapshots=Snapshots(Account, every) if every else None,
    )


def service_on(url: str) -> Service:
    """Return a service on a store."""
    service = Service("bench", store=url)
    service.register(Opened, Deposited)
    return service


async def append(url: str, writers: int, count: int) -> float:
    """Append events one by one, each of the writers to a stream of its own; return events per second."""
    async with service_on(url).running(consumers=False) as service:
        for writer in range(writers):
            await service.append(f"account-{writer}", [Opened()], expected=NO_STREAM)

        async def write(writer: int) -> None:
            for version in range(1, count // writers + 1):
                await service.append(f"account-{writer}", [Deposited(amount=1, note=NOTE)], expected=version)

        began = time.perf_counter()
        await asyncio.gather(*(write(writer) for writer in range(writers)))
        return count // writers * writers / (time.perf_counter() - began)


async def fill(service: Service, count: int) -> float:
    """Append many events at a time; return events per second of the appending alone."""
    seconds = 0.0
    for number in range(max(1, count // BULK)):
        events = [Deposited(amount=1, note=NOTE) for _ in range(min(BULK, count))]
        await service.append(f"account-{number}", [Opened()], expected=NO_STREAM)
        began = time.perf_counter()
        await service.append(f"account-{number}", events, expected=1)
        seconds += time.perf_counter() - began
    return count / seconds


async def bulk(url: str, count: int) -> float:
    """Append many events at a time; return events per second."""
    async with service_on(url).running(consumers=False) as service:
        return await fill(service, count)


async def replay(url: str, count: int) -> dict[str, float]:
    """Read every event of every stream as a typed one, in global order: ours, and a raw driver on the same rows."""
    async with service_on(url).running(consumers=False) as service:
        await fill(service, count)
        wanted = count + max(1, count // BULK)

        async def read() -> int:
            found = 0
            async for _ in service.read_all():
                found += 1
            return found

        raw = _raw_postgres if url.startswith("postgresql") else _raw_sqlite
        return {"tidings": await _rate(read, wanted), "raw": await _rate(lambda: raw(url), wanted)}


async def _rate(run: Callable[[], Awaitable[int]], wanted: int) -> float:
    began = time.perf_counter()
    found = await run()
    if found != wanted:
        raise SystemExit(f"read {found} events of {wanted}")
    return found / (time.perf_counter() - began)


_RAW = "SELECT position, stream, stream_version, type, data FROM {} WHERE position > $1 ORDER BY position LIMIT $2"
_DECODERS: dict[str, Any] = {
    "bench.account.opened": msgspec.json.Decoder(Opened),
    "bench.account.deposited": msgspec.json.Decoder(Deposited),
}


async def _raw_postgres(url: str) -> int:
    connection = await asyncpg.connect(url)
    after = found = 0
    while rows := await connection.fetch(_RAW.format("tidings.log"), after, PAGE):
        events = [(row[0], row[1], row[2], _DECODERS[row[3]].decode(row[4])) for row in rows]
        after = events[-1][0]
        found += len(events)
    await connection.close()
    return found


async def _raw_sqlite(url: str) -> int:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    after = found = 0
    sql = _RAW.format("tidings_log").replace("$1", "?1").replace("$2", "?2")
    while rows := connection.execute(sql, (after, PAGE)).fetchall():
        events = [(row[0], row[1], row[2], _DECODERS[row[3]].decode(row[4])) for row in rows]
        after = events[-1][0]
        found += len(events)
    connection.close()
    return found


async def load(url: str, count: int) -> dict[str, list[float]]:
    """Load the state of a stream of `count` events; return milliseconds, without a snapshot and with one."""
    async with service_on(url).running(consumers=False) as service:
        await fill(service, count)
        taken = {"load": await _loads(service, decider(), count)}
        await service.decide(decider(every=count), 1, stream="account-0")
        return {**taken, "load, snapshot": await _loads(service, decider(every=count), count + 1)}


async def _loads(service: Service, by: Decider[int, Account, Opened | Deposited], balance: int) -> list[float]:
    taken = []
    for _ in range(LOADS):
        began = time.perf_counter()
        loaded = await service.load(by, "account-0")
        taken.append((time.perf_counter() - began) * 1000)
        if loaded.state.balance != balance:
            raise SystemExit(f"loaded {loaded}, expected a balance of {balance}")
    return taken


async def race(url: str, count: int) -> tuple[float, float]:
    """Let 16 writers commit out of order, in two ways, while a reader follows; return events written and missed."""
    async with service_on(url).running(consumers=False) as service, service_on(url).running(consumers=False) as other:
        over = asyncio.Event()
        following = asyncio.create_task(_follow(service, over))
        await asyncio.gather(*(_write(service if n % 2 else other, n, count // RACERS) for n in range(RACERS)))
        over.set()
        seen = await following
        heads = [head async for head in service.streams()]
        written = {(head.stream, version) for head in heads for version in range(1, head.version + 1)}
        return len(written), len(written - set(seen)) + len(seen) - len(set(seen))


async def _follow(service: Service, over: asyncio.Event) -> list[tuple[str, int]]:
    seen: list[tuple[str, int]] = []
    after = 0
    while True:
        last = over.is_set()
        async for recorded in service.read_all(after=after):
            seen.append((recorded.stream, recorded.version))
            after = recorded.position
        if last:
            return seen
        await asyncio.sleep(0)


async def _write(service: Service, racer: int, count: int) -> None:
    stream = f"account-{racer}"
    for number in range(count):
        events = [Deposited(amount=number, note=NOTE)] * (1 + (racer + number) % 7)
        if racer // 2 % 2:
            await service.append(stream, events, expected=ANY)
            continue
        async with service.transaction() as tx:
            for event in events:
                await tx.append(stream, [event], expected=ANY)
