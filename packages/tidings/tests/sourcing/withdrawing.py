"""One of several processes: withdraws 10 from account 1 as often as it can; prints how often it was paid."""

import asyncio
import sys

from account import RefusedError, Withdraw, account

from tidings import Service


async def main(url: str, tries: int) -> int:
    """Let `tries` withdrawals race."""
    service = Service("bank", store=url)
    async with service.running(consumers=False):

        async def take() -> bool:
            try:
                await service.decide(account, Withdraw(account="1", amount=10), retries=200)
            except RefusedError:
                return False
            return True

        return sum(await asyncio.gather(*(take() for _ in range(tries))))


print(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
