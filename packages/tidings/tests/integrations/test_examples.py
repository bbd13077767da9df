"""The examples run with one command each, and say what they should; the code of the how-to pages runs."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SAID = "charged 3 orders, 600 cents; events: order-1, order-2, order-3"
PAGES = ("postgres", "sqlalchemy", "django", "psycopg", "asyncpg")


async def run(*command: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


@pytest.mark.parametrize("name", ["sqlalchemy_orders", "django_orders", "psycopg_orders", "asyncpg_orders"])
async def test_an_example_runs(name: str, postgres_url: str) -> None:
    said = await run("orders.py", postgres_url, folder=ROOT / "examples" / name)
    assert said.splitlines()[-1] == SAID


@pytest.mark.parametrize("page", PAGES)
async def test_the_code_of_a_page_runs(page: str, postgres_url: str, tmp_path: Path) -> None:
    pages = Path(__file__).with_name("run_page.py")
    said = await run(str(pages), str(ROOT / f"docs/how-to/{page}.md"), postgres_url, folder=tmp_path)
    assert said.splitlines()[-1] == "every block ran"
