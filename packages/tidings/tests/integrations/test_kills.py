"""Real processes killed by SIGKILL around the commit: the order and its event are both there, or neither is."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

KILLED = Path(__file__).parent / "killed.py"
HANDLING = KILLED.with_name("handling.py")


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


POINTS = ["lane.after_commit", "lane.after_handlers", "held.before_commit", "none"]
"""In an order in which each is reached: after a death a lane's events are run carefully, from their held rows."""


@pytest.mark.parametrize("integration", ["sqlalchemy", "psycopg", "django"])
async def test_the_effect_is_there_once_however_often_the_process_dies(
    integration,
    postgres_url,
    service,
    log,
    Placed,  # noqa: N803
) -> None:
    async with service.running(consumers=False):
        for number in range(5):
            await service.publish(Placed(order_id=f"order-{number}", number=number))
    for point in POINTS:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HANDLING), integration, postgres_url, point, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == (0 if point == "none" else -signal.SIGKILL), f"{point}: {said.decode()}"
    once = [(f"order-{number}", 1) for number in range(5)]
    assert await log.rows("SELECT order_id, count(*) FROM charges GROUP BY 1 ORDER BY 1") == once
    charged = "SELECT key, count(*) FROM tidings.log WHERE type = 'shop.order.charged' GROUP BY 1 ORDER BY 1"
    assert await log.rows(charged) == once
