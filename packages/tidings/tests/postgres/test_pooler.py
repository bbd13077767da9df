"""Through a real PgBouncer that pools transactions: no notices, no prepared statements, all else as before."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tidings import Event, Service, Transaction, Work
from tidings.backends.postgres import PostgresStore, open_store, store
from tidings.store import Store
from tidings.testing.conformance import StoreSuite
from tidings.testing.conformance.samples import still_world

CONNECTIONS = 4
"""Of the pooler to the server: less than clients have, so that one client's statements go over several."""

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
"""


class Placed(Event, name="pooler.placed", key="order"):
    order: str


@pytest.fixture(scope="module")
def pooler(postgres_server: str) -> Iterator[int]:
    """The port of a PgBouncer before the server of these tests."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    to = urlsplit(postgres_server)
    if program is None:
        pytest.skip("no PgBouncer here: install one, or run `sh tools/pgbouncer.sh`")
    if to.hostname is None:
        pytest.skip("the Postgres of the tests listens on no port: set TIDINGS_TEST_POSTGRES to one that does")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    password = f"password={to.password}" if to.password else ""
    with tempfile.TemporaryDirectory(prefix="tidings-pooler-") as folder:
        file = Path(folder) / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                host=to.hostname,
                port=to.port or 5432,
                user=to.username or "postgres",
                password=password,
                listen=port,
                connections=CONNECTIONS,
            )
        )
        Path(folder).chmod(0o755)
        as_another = ["-u", "nobody"] if os.getuid() == 0 else []  # it refuses to run as root
        process = subprocess.Popen([program, "-q", *as_another, str(file)], stderr=subprocess.PIPE, text=True)
        try:
            wait_for(port, process)
            yield port
        finally:
            process.kill()
            process.communicate()


def wait_for(port: int, process: "subprocess.Popen[str]") -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise AssertionError(f"PgBouncer did not start: {process.communicate()[1]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("PgBouncer did not listen within 5 s")


@pytest.fixture
def url(pooler: int, postgres_url: str) -> str:
    """The URL of an empty database, through the pooler."""
    to = urlsplit(postgres_url)
    return to._replace(netloc=f"{to.username or 'postgres'}@127.0.0.1:{pooler}").geturl()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 - other connections do it
            await asyncio.sleep(0.02)


def make(url: str) -> Service:
    service = Service("pooled", store=url)
    service.schema("CREATE TABLE IF NOT EXISTS effect (handler text, id text)")

    @service.subscribe(Placed, ordered=True)
    async def book(event: Placed, tx: Transaction) -> None:
        await tx.execute("INSERT INTO effect VALUES ('book', $1)", event.order)

    @service.subscribe(Placed)
    async def send(event: Placed, work: Work) -> None:
        async with work.finish() as tx:
            await tx.execute("INSERT INTO effect VALUES ('send', $1)", event.order)

    return service


async def test_services_behind_a_pooler_poll_and_say_so_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two of them publish more at once than the pooler has connections, and each effect is there once."""
    one, other = make(url), make(url)
    with caplog.at_level(logging.WARNING, logger="tidings"):
        async with one:
            warnings = [record.message for record in caplog.records if "pooler" in record.message]
            assert len(warnings) == 1
            assert isinstance(one.store, PostgresStore)
            assert one.store.greeting.pooled
            assert (await one.store.status())["pooler"] is True
            async with other:
                await asyncio.gather(
                    *(
                        service.publish(Placed(order=f"{name}{n}"))
                        for n in range(50)
                        for name, service in (("a", one), ("b", other))
                    )
                )

                async def is_handled() -> bool:
                    return bool(await one.fetch_value("SELECT count(*) = 200 FROM effect"))

                await until(is_handled)
            rows = await one.fetch_all("SELECT count(DISTINCT (handler, id)) FROM effect")
            assert rows[0][0] == 200
            began = time.monotonic()
            await one.publish(Placed(order="last"))

            async def is_seen() -> bool:
                return bool(await one.fetch_value("SELECT count(*) = 2 FROM effect WHERE id = 'last'"))

            await until(is_seen)
            assert time.monotonic() - began < 3 * store.NET_SECONDS


async def test_what_a_handler_sets_stays_on_no_connection_of_the_pooler(url: str) -> None:
    """Also what is deferred to the commit still sees it."""
    async with make(url).running(consumers=False) as service:
        async with service.transaction() as tx:
            await tx.execute("CREATE TABLE seen (tenant text)")
            await tx.execute(
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "INSERT INTO seen VALUES (current_setting('app.tenant')); RETURN NULL; END $$"
            )
            await tx.execute(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION note()"
            )
        async with service.transaction() as tx:
            await tx.execute("SELECT set_config('app.tenant', 'a', false), pg_advisory_lock(7470144999)")
            await tx.execute("SET search_path TO public, pg_catalog")
            await tx.execute("INSERT INTO effect VALUES ('book', '1')")

        async def look() -> tuple[object, ...]:
            async with service.transaction() as tx:
                return tuple(
                    await tx.fetch_one(
                        "SELECT coalesce(current_setting('app.tenant', true), ''), current_setting('search_path'), "
                        "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
                        "(SELECT oid FROM pg_database WHERE datname = current_database())), pg_sleep(0.1)::text"
                    )
                    or ()
                )

        states = await asyncio.gather(*(look() for _ in range(CONNECTIONS)))
        assert set(states) == {("", '"$user", public', 0, "")}
        assert await service.fetch_value("SELECT tenant FROM seen") == "a"


class TestThroughThePooler(StoreSuite):
    @pytest.fixture(autouse=True)
    def _through_it(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        monkeypatch.setattr(store, "HOLD_LIMIT", 1.0)

    def make(self, folder: Path) -> PostgresStore:
        return open_store(self.url, still_world())

    async def refuse(self, store: Store, event_id: str) -> None:
        """As on Postgres without a pooler."""
        await store.script(f"ALTER TABLE tidings.log ADD CONSTRAINT refused CHECK (id <> '{event_id}')")
