"""The example of notification events: what is looked up is new, has moved on, is gone, or is not known yet."""

import asyncio
import os
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "order_notification"

LETTERS = [
    "o-1: a lamp goes to Elm Street 1",
    "o-2: a lamp goes to Oak Lane 2 (as of version 2; the event spoke of 1)",
    "o-3: no letter: the order was removed meanwhile",
    "o-4: a chair goes to Elm Street 1",
]

LATE = """
import asyncio, orders

async def late(event, model, placed=orders.placed):
    await asyncio.sleep(0.1)  # the announcement is faster than the read model
    await placed(event, model)

handlers = orders.orders._handlers
handlers[orders.Placed] = type(handlers[orders.Placed])(late, False)
"""


async def run(url: str, before: str = "") -> list[str]:
    script = f"{before}\nimport runpy; runpy.run_path({str(EXAMPLE / 'run.py')!r}, run_name='__main__')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import sys; sys.argv = ['run.py', {url!r}]\n{script}",
        env={**os.environ, "PYTHONPATH": str(EXAMPLE), "STORE": url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return said.decode().splitlines()


async def test_the_example_runs(store_url: str) -> None:
    assert await run(store_url) == LETTERS


async def test_who_does_not_know_yet_is_asked_again(store_url: str) -> None:
    assert await run(store_url, LATE) == LETTERS
