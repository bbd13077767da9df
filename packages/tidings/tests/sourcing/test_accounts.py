"""The accounts of the examples: they run, and no race of withdrawals, in however many processes, overdraws one."""

import asyncio
import os
import sys
from pathlib import Path

from account import AccountCreated, MoneyDeposited, account

from tidings import NO_STREAM, Service

ACCOUNTS = Path(__file__).resolve().parents[4] / "examples" / "accounts"


async def run(script: Path, *args: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        *args,
        env={**os.environ, "PYTHONPATH": str(ACCOUNTS), "PYTHONWARNINGS": "error::ResourceWarning"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


async def test_the_example_runs(store_url: str) -> None:
    said = (await run(ACCOUNTS / "accounts.py", store_url)).splitlines()
    assert said[3:] == ["balance 50", "5 of 20 withdrawals of 10 were paid; balance 0", "balance 7"]


async def test_withdrawals_in_several_processes_overdraw_nothing(store_url: str) -> None:
    service = Service("bank", store=store_url)
    async with service.running(consumers=False):
        opening = [AccountCreated(balance=0), MoneyDeposited(amount=155)]
        await service.append("account-1", opening, expected=NO_STREAM)
    here = Path(__file__).with_name("withdrawing.py")
    paid = await asyncio.gather(*(run(here, store_url, "10") for _ in range(3)))
    assert sum(map(int, paid)) == 15
    async with service.running(consumers=False):
        assert (await service.load(account, "account-1")).state.balance == 5
        found = [one async for one in service.read_stream("account-1")]
        assert [one.version for one in found] == list(range(1, 18))
