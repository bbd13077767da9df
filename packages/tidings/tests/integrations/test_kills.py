"""Real processes killed by SIGKILL around the commit: the order and its event are both there, or neither is."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

KILLED = Path(__file__).parent / "killed.py"


@pytest.mark.parametrize("integration", ["sqlalchemy", "psycopg", "asyncpg", "django"])
@pytest.mark.parametrize(("when", "remains"), [("before", 0), ("after", 1)])
async def test_a_kill_leaves_both_or_nothing(integration, when, remains, postgres_url, log) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(KILLED), integration, postgres_url, when, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert await log.orders() == ["killed"] * remains
    assert await log.numbers() == [0] * remains
