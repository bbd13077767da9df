"""A network that swallows everything, a server that is away, a listening connection that is cut; and idle costs."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tidings import Event, RetryPolicy, Service, Transaction, TransactionHeldTooLongError, Work
from tidings.backends.postgres import PostgresStore, driver, notices, open_store, store
from tidings.errors import StoreUnavailableError
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.world import World

ONCE = RetryPolicy(attempts=1, backoff=timedelta(milliseconds=20))
"""An attempt that were counted wrongly would be the last."""

IDLE_SHARE = 0.01
HERE = Path(__file__).parent


class Placed(Event, name="network.placed", key="order"):
    order: str


class Proxy:
    """The way to a server, which can be stopped, cut off, and opened again."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None
        self.url = urlunsplit(self._to._replace(netloc=f"{self._to.username or 'postgres'}@127.0.0.1:{self._port}"))

    def open(self) -> None:
        """Let connections through."""
        to = [self._to.hostname or "127.0.0.1", self._to.port or 5432]
        command = [sys.executable, str(HERE / "proxy.py"), str(self._port), *map(str, to)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    made = Proxy(postgres_url)
    if urlsplit(postgres_url).hostname is None:
        pytest.skip("the Postgres of the tests listens on no port: set TIDINGS_TEST_POSTGRES to one that does")
    made.open()
    yield made
    made.cut()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes half a minute in production takes a second or two here."""
    monkeypatch.setattr(store, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(store, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(store, "HOLD_LIMIT", 1.5)
    monkeypatch.setattr(driver, "ROLLBACK_SECONDS", 0.5)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - other connections do it
            await asyncio.sleep(0.05)


class Shop:
    """A service behind the proxy, with a handler of each shape; every attempt it saw."""

    def __init__(self, url: str) -> None:
        self.attempts: list[tuple[str, str, int]] = []
        self.service = Service("shop", store=url)
        self.service.schema("CREATE TABLE IF NOT EXISTS effect (handler text, id text)")

        @self.service.subscribe(Placed, ordered=True, retry=ONCE)
        async def book(event: Placed, tx: Transaction) -> None:
            self.attempts.append(("book", event.order, tx.attempt))
            await tx.execute("INSERT INTO effect VALUES ('book', $1)", event.order)

        @self.service.subscribe(Placed, retry=ONCE)
        async def send(event: Placed, work: Work) -> None:
            self.attempts.append(("send", event.order, work.attempt))
            async with work.finish() as tx:
                await tx.execute("INSERT INTO effect VALUES ('send', $1)", event.order)

    async def publish_until(self, ended: asyncio.Event, numbers: Iterator[int]) -> list[str]:
        """Publish at a steady pace, each event until it is acknowledged; return how many were refused meanwhile."""
        refusals = []
        while not ended.is_set():
            order = str(next(numbers))
            while True:
                try:
                    await self.service.publish(Placed(order=order), id=f"placed-{order}")
                    break
                except StoreUnavailableError as error:
                    refusals.append(str(error))
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.01)
        return refusals


async def effects(url: str) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch("SELECT handler, id FROM effect")]
    finally:
        await connection.close()


async def live_through(shop: Shop, url: str, disturb: Callable[[], Awaitable[None]]) -> list[str]:
    """Publish and handle while something disturbs; check that each event had each effect once, at attempt 1."""
    ended = asyncio.Event()
    numbers = iter(range(100_000))
    async with shop.service:
        publishing = asyncio.create_task(shop.publish_until(ended, numbers))
        await asyncio.sleep(0.5)
        await disturb()
        await asyncio.sleep(0.5)
        ended.set()
        refusals = await publishing
        published = next(numbers)
        expected = sorted((name, str(number)) for name in ("book", "send") for number in range(published))

        async def is_handled() -> bool:
            return sorted(await effects(url)) == expected

        try:
            await until(is_handled)
        except TimeoutError:
            assert sorted(await effects(url)) == expected
    assert {attempt for _, _, attempt in shop.attempts} == {1}, "a lost connection is no attempt"
    return refusals


@pytest.mark.usefixtures("impatient")
async def test_a_network_that_swallows_everything_ends_in_another_try(proxy: Proxy, postgres_url: str) -> None:
    async def hang() -> None:
        proxy.signal(signal.SIGSTOP)
        await asyncio.sleep(5)
        proxy.signal(signal.SIGCONT)

    refusals = await live_through(Shop(proxy.url), postgres_url, hang)
    assert any("did not answer in time" in text for text in refusals), refusals


@pytest.mark.usefixtures("impatient")
async def test_a_network_that_stays_dead_is_left_for_a_new_one(proxy: Proxy, postgres_url: str) -> None:
    """Connections that never answer again are given up: no end of a connection ever comes to tell."""

    async def hang_and_come_anew() -> None:
        proxy.signal(signal.SIGSTOP)
        await asyncio.sleep(3)
        proxy.cut()
        proxy.open()

    assert await live_through(Shop(proxy.url), postgres_url, hang_and_come_anew)


async def test_a_failover_of_some_seconds_costs_nothing_but_time(proxy: Proxy, postgres_url: str) -> None:
    async def fail_over() -> None:
        proxy.cut()
        await asyncio.sleep(3)
        proxy.open()

    refusals = await live_through(Shop(proxy.url), postgres_url, fail_over)
    assert refusals


async def test_a_server_that_only_reads_is_away_and_is_left(postgres_url: str) -> None:
    """The old primary after a failover: a write that it refuses is no failed attempt, and the next may be elsewhere."""
    made = new_store(postgres_url)
    await made.open(migrate=True)
    try:
        async with made.transaction() as statements:
            (_, [(before,)]) = await statements.query("SELECT pg_backend_pid()", ())
        with pytest.raises(StoreUnavailableError, match="read-only"):  # noqa: PT012 - the second statement fails
            async with made.transaction() as statements:
                await statements.query("SET TRANSACTION READ ONLY", ())
                await statements.execute("CREATE TABLE never (n int)", ())
        async with made.transaction() as statements:
            (_, [(after,)]) = await statements.query("SELECT pg_backend_pid()", ())
        assert after != before
    finally:
        await made.close()


async def test_errors_of_a_block_stay_as_they_are(postgres_url: str) -> None:
    made = new_store(postgres_url)
    await made.open(migrate=True)
    try:
        with pytest.raises(FileNotFoundError):
            async with made.transaction():
                raise FileNotFoundError("the user's own")
        with pytest.raises(TimeoutError):
            async with made.transaction():
                raise TimeoutError("the user's own")
    finally:
        await made.close()


async def test_a_block_that_swallows_its_cancellation_does_not_hold_the_fence(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "HOLD_LIMIT", 0.3)
    monkeypatch.setattr(driver, "ROLLBACK_SECONDS", 0.3)
    made = new_store(postgres_url)
    await made.open(migrate=True)

    async def hold() -> None:
        async with made.transaction() as statements:
            await statements.append([envelope("held")])
            for _ in range(20):
                try:
                    await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    continue
            with pytest.raises(StoreUnavailableError):
                await statements.append([envelope("later")])

    try:
        holding = asyncio.create_task(hold())
        await asyncio.sleep(1)
        await made.publish([envelope("free")])
        page = await made.reading.read(0, None, range(made.lanes), 10)
        assert [record.envelope.id for record in page.records] == ["free"]
        assert not holding.done()
        with pytest.raises(TransactionHeldTooLongError):
            await holding
        assert len((await made.reading.read(0, None, range(made.lanes), 10)).records) == 1
    finally:
        await made.close()


def new_store(url: str) -> PostgresStore:
    return open_store(url, World(system_clock, random.Random(), uuid7_ids))


class Heard:
    """A store of another process, as far as wake-ups go; when it was woken."""

    def __init__(self, url: str) -> None:
        self.store = new_store(url)
        self.woken = asyncio.Event()
        self.at = 0.0
        self.store.listen(["suite.happened"], self._wake)

    def _wake(self) -> None:
        self.at = time.perf_counter()
        self.woken.set()

    async def after(self, publish: Awaitable[None]) -> float:
        """Return the seconds from the end of a publish to the wake-up; nobody polls."""
        self.woken.clear()
        await publish
        published = time.perf_counter()
        async with asyncio.timeout(5):
            await self.woken.wait()
        return self.at - published


async def listening_pid(url: str) -> int | None:
    connection = await asyncpg.connect(url)
    try:
        pid: int | None = await connection.fetchval(
            "SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'listen%'"
        )
        return pid
    finally:
        await connection.close()


async def test_a_commit_wakes_other_processes_by_notice_also_after_the_listener_was_cut(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "RECONNECT_SECONDS", 0.05)
    speaker, heard = new_store(postgres_url), Heard(postgres_url)
    await heard.store.open(migrate=True)
    pid = await listening_pid(postgres_url)
    await speaker.open(migrate=False)
    try:
        waits = [await heard.after(speaker.publish([sample(number)])) for number in range(50)]
        print(f"notice to another store: median {1000 * median(waits):.1f} ms, most {1000 * max(waits):.1f} ms")
        assert median(waits) < 0.05
        heard.woken.clear()
        connection = await asyncpg.connect(postgres_url)
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
        await connection.close()
        async with asyncio.timeout(10):
            await heard.woken.wait()  # what was said while nobody listened is looked at
        assert await listening_pid(postgres_url) != pid
        assert await heard.after(speaker.publish([sample(51)])) < 2
    finally:
        await speaker.close()
        await heard.store.close()


async def test_a_publish_takes_its_notice_along_only_if_none_has_gone_out_for_a_while(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "DEBOUNCE_SECONDS", 0.3)
    speaker, heard = new_store(postgres_url), asyncio.Queue[str]()
    await speaker.open(migrate=True)
    listener = await asyncpg.connect(postgres_url)
    try:
        await listener.add_listener(notices.CHANNEL, lambda *told: heard.put_nowait(str(told[3])))
        sent: list[set[str]] = []
        assert speaker._notices is not None
        send = speaker._notices.send
        monkeypatch.setattr(speaker._notices, "send", lambda topics: (sent.append(topics), send(topics)))
        for number in range(3):
            await speaker.publish([sample(number)])
            async with asyncio.timeout(5):
                assert sample(number).type in await heard.get()
        assert len(sent) == 2  # the first went with its commit, the others after theirs
    finally:
        await listener.close()
        await speaker.close()


async def test_a_listener_that_hangs_is_noticed(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "PING_SECONDS", 0.2)
    monkeypatch.setattr(notices, "PONG_SECONDS", 0.3)
    monkeypatch.setattr(notices, "RECONNECT_SECONDS", 0.05)
    heard = Heard(proxy.url)
    await heard.store.open(migrate=True)
    try:
        proxy.signal(signal.SIGSTOP)
        await asyncio.sleep(1)
        proxy.signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            await heard.woken.wait()  # by connecting anew: nothing was published
    finally:
        await heard.store.close()


def sample(number: int) -> Any:
    return envelope(f"e{number}")


def test_idle_service_costs_next_to_nothing(postgres_url: str) -> None:
    script = HERE.parent / "faults" / "idle_service.py"
    command = [sys.executable, str(script), postgres_url]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(run.stdout)
    print(seen)
    assert seen["handled"]
    assert seen["share"] <= IDLE_SHARE
