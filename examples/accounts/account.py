"""A bank account: what may happen to it, as a decider of pure functions, and the same once more as a class."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from tidings import Aggregate, Command, Decider, Event, Snapshots

Amount = Annotated[int, Meta(gt=0)]
"""A command with any other is refused before anybody decides on it."""


class AccountCreated(Event, name="bank.account.created"):
    """An account was opened, with this balance."""

    balance: int


class MoneyDeposited(Event, name="bank.money.deposited"):
    """Money came in."""

    amount: int


class MoneyWithdrawn(Event, name="bank.money.withdrawn"):
    """Money went out."""

    amount: int


AccountEvent = AccountCreated | MoneyDeposited | MoneyWithdrawn
EVENTS = (AccountCreated, MoneyDeposited, MoneyWithdrawn)


class RefusedError(Exception):
    """The bank does not do this."""


# As functions: commands, which name the stream that they are about, a state, and what each makes of the other.


class Create(Command, stream="account-{account}"):
    """Open an account."""

    account: str


class Deposit(Command, stream="account-{account}"):
    """Pay in."""

    account: str
    amount: Amount


class Withdraw(Command, stream="account-{account}"):
    """Take out."""

    account: str
    amount: Amount


AccountCommand = Create | Deposit | Withdraw


class Account(Struct, frozen=True):
    """The state: all that a decision needs to know."""

    is_open: bool = False
    balance: int = 0


def decide(command: AccountCommand, state: Account) -> Sequence[AccountEvent]:
    """Return what happens if a command is obeyed; refuse what must not happen."""
    match command:
        case Create():
            return [] if state.is_open else [AccountCreated(balance=0)]
        case Deposit(amount=amount):
            _check(state.is_open, amount)
            return [MoneyDeposited(amount=amount)]
        case Withdraw(amount=amount):
            _check(state.is_open, amount)
            if amount > state.balance:
                raise RefusedError(f"the balance is {state.balance}, and {amount} was asked for")
            return [MoneyWithdrawn(amount=amount)]


def _check(is_open: bool, amount: int) -> None:
    if not is_open:
        raise RefusedError("there is no such account")
    if amount <= 0:
        raise RefusedError(f"{amount} is no amount")


def evolve(state: Account, event: AccountEvent) -> Account:
    """Return the state after an event. It refuses nothing: this has happened."""
    match event:
        case AccountCreated(balance=balance):
            return Account(is_open=True, balance=balance)
        case MoneyDeposited(amount=amount):
            return Account(is_open=True, balance=state.balance + amount)
        case MoneyWithdrawn(amount=amount):
            return Account(is_open=True, balance=state.balance - amount)


account: Decider[AccountCommand, Account, AccountEvent] = Decider(
    name="account",
    initial=Account,
    decide=decide,
    evolve=evolve,
    events=EVENTS,
    snapshots=Snapshots(Account, every=100),
)


# As a class: the same account, for those who like methods.


class BankAccount(Aggregate):
    """Methods check and record; `apply` alone changes the fields."""

    events = EVENTS
    snapshot_every = 100

    is_open: bool = False
    balance: int = 0

    def create(self) -> None:
        """Open the account, if it is not open."""
        if not self.is_open:
            self.record(AccountCreated(balance=0))

    def deposit(self, amount: int) -> None:
        """Pay in."""
        _check(self.is_open, amount)
        self.record(MoneyDeposited(amount=amount))

    def withdraw(self, amount: int) -> None:
        """Take out."""
        _check(self.is_open, amount)
        if amount > self.balance:
            raise RefusedError(f"the balance is {self.balance}, and {amount} was asked for")
        self.record(MoneyWithdrawn(amount=amount))

    def apply(self, event: Event) -> None:
        """Change the state by what has happened."""
        match event:
            case AccountCreated(balance=balance):
                self.is_open, self.balance = True, balance
            case MoneyDeposited(amount=amount):
                self.balance += amount
            case MoneyWithdrawn(amount=amount):
                self.balance -= amount
