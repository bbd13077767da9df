"""A bank that takes commands: what the tests of commands run, and their child processes.

python commanded.py STORE COMMANDS [--die POINT TIMES]
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "examples" / "accounts"))

from account import Account, AccountCreated, AccountEvent, BankAccount, MoneyDeposited, MoneyWithdrawn, RefusedError
from account import evolve as evolved
from msgspec import Meta

from tidings import Command, Decider, Event, Service, Snapshots, Transaction, points

Amount = Annotated[int, Meta(gt=0)]
STREAM = "account-1"


class Open(Command, stream="account-{account}"):
    """Open an account with some money."""

    account: str
    balance: int = 0


class Take(Command, stream="account-{account}"):
    """Take money out."""

    account: str
    amount: Amount


class Pay(Command, stream="account-{account}"):
    """Pay in, through the aggregate."""

    account: str
    amount: Amount


class Note(Command):
    """Write a note, of which no stream tells."""

    text: str


class Noted(Event, name="bank.noted"):
    """A note was written."""

    text: str


class Seen(Event, name="bank.seen", key="account"):
    """Something was seen, upon which money is taken."""

    account: str
    amount: int


def decide(command: Open | Take, state: Account) -> Sequence[AccountEvent]:
    """Open once; take what is there."""
    match command:
        case Open(balance=balance):
            return [] if state.is_open else [AccountCreated(balance=balance)]
        case Take(amount=amount):
            if amount > state.balance:
                raise RefusedError(f"the balance is {state.balance}, and {amount} was asked for")
            return [MoneyWithdrawn(amount=amount)]


by_events: Decider[Open | Take, Account, AccountEvent] = Decider(
    name="account",
    initial=Account,
    decide=decide,
    evolve=evolved,
    events=(AccountCreated, MoneyDeposited, MoneyWithdrawn),
    snapshots=Snapshots(Account, every=5),
)


def bank(url: str, made: type[Service] = Service) -> Service:
    """Return a service that obeys: by a decider, an aggregate, and a function."""
    service = made("bank", store=url)
    service.schema("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    service.register(Noted, Seen)
    service.handle(Open, Take, by=by_events, retries=30)

    @service.handle(Pay, retries=30)
    def pay(command: Pay, account: BankAccount) -> None:
        account.deposit(command.amount)

    @service.handle(Note)
    async def note(command: Note, tx: Transaction) -> None:
        await tx.execute("INSERT INTO notes VALUES ($1)", command.text)
        tx.publish(Noted(text=command.text))
        if command.text == "refused":
            raise RefusedError("no such note")

    return service


async def balance(service: Service) -> int:
    """Return the balance of account 1."""
    return (await service.load(by_events, STREAM)).state.balance


async def notes(service: Service) -> list[str]:
    """Return the notes, in order."""
    return [row[0] for row in await service.fetch_all("SELECT text FROM notes ORDER BY text")]


async def main(url: str, commands: int, die: list[str] | None) -> None:
    """Obey all commands anew, with the ids that they always have; stop dead at a point."""
    service = bank(url)
    async with service.running(consumers=False):
        await service.execute(Open(account="1", balance=1000), id="open")
        left = int(die[1]) if die else 0

        def visit(reached: str) -> None:
            nonlocal left
            left -= bool(die) and reached == die[0]
            if die and left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

        points.watch(visit)
        for number in range(commands):
            await service.execute(Take(account="1", amount=1), id=f"take-{number}")
            await service.execute(Note(text=f"{number:03}"), id=f"note-{number}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("commands", type=int)
    parser.add_argument("--die", nargs=2)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.store, arguments.commands, arguments.die))
