"""Accounts by event sourcing: one stream an account, its balance the sum of what has happened.

Run it:  python accounts.py              in memory
         python accounts.py sqlite:///bank.db
         python accounts.py postgresql://localhost/bank
"""

import asyncio
import sys

from account import Account, BankAccount, Create, Deposit, RefusedError, Withdraw, account

from tidings import Service

url = sys.argv[1] if len(sys.argv) > 1 else "sqlite:///:memory:"
service = Service("bank", store=url)
# Whoever was overtaken decides again on what the stream holds then.
service.handle(Create, Deposit, Withdraw, by=account, retries=50)


async def take(name: str, amount: int) -> bool:
    """Withdraw, if the balance allows it."""
    try:
        await service.execute(Withdraw(account=name, amount=amount))
    except RefusedError:
        return False
    return True


async def main() -> None:
    """Open an account, move money, then let 20 withdrawals of 10 race for what is left."""
    async with service:
        await service.execute(Create(account="4711"))
        await service.execute(Deposit(account="4711", amount=100), id="transfer-1")
        await service.execute(Deposit(account="4711", amount=100), id="transfer-1")  # sent twice, paid in once
        await service.execute(Withdraw(account="4711", amount=50))
        async for recorded in service.read_stream("account-4711"):
            print(recorded.version, recorded.event)
        state = (await service.load(account, "account-4711")).state
        print(f"balance {state.balance}")

        taken = await asyncio.gather(*(take("4711", 10) for _ in range(20)))
        state = (await service.load(account, "account-4711")).state
        print(f"{sum(taken)} of {len(taken)} withdrawals of 10 were paid; balance {state.balance}")
        assert state == Account(is_open=True, balance=0)

        await service.act(BankAccount, "account-4711", lambda one: one.deposit(7))
        print(f"balance {(await service.load(BankAccount.decider(), 'account-4711')).state.balance}")


if __name__ == "__main__":
    asyncio.run(main())
