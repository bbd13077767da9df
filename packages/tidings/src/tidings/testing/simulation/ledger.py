"""The simulated service of projections: accounts whose entries are chained, so that a lost, repeated or misplaced event
shows for ever."""

from collections.abc import Iterable
from datetime import timedelta
from random import Random
from typing import Any

from msgspec import Struct

from tidings.consuming.retry import RetryPolicy
from tidings.events import Event
from tidings.publishing.transaction import Transaction
from tidings.service import Service
from tidings.sourcing.projection import ReadModel

SOURCE = "ledger"
"""Name of the simulated service."""

LEDGER, SUMMARY = "ledger", "summary"
"""The projections: the first gets a second version, the second is inline."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS {{{0}}} (account TEXT PRIMARY KEY, entries INTEGER NOT NULL, chain INTEGER NOT NULL)"
)

State = dict[str, tuple[int, int]]
"""Account -> how many entries, and their chain."""


class Entered(Event, name="ledger.entered", version=1, key="account"):
    """An entry. `fails`: how often a projection's handler fails at it; `echo`: whether another entry follows."""

    account: str
    number: int
    fails: int = 0
    echo: bool = False


class Failures:
    """How often each handler has failed at an entry already."""

    def __init__(self) -> None:
        self.met: dict[tuple[str, int], int] = {}

    def meet(self, name: str, event: Entered) -> None:
        """Fail as often as the entry says."""
        met = self.met.get((name, event.number), 0)
        if met < event.fails:
            self.met[name, event.number] = met + 1
            raise RuntimeError(f"{name} fails at {event.number}")


class Chosen(Struct, frozen=True):
    """What one seed chose for the whole service."""

    batched: bool
    second_inline: bool
    shy: bool


def link(state: State, account: str, number: int) -> None:
    """Add an entry to an account."""
    entries, chain = state.get(account, (0, 0))
    state[account] = entries + 1, (chain * 31 + number) % 1_000_003


def fold(entries: Iterable[tuple[str, int]]) -> State:
    """Return the state after some entries."""
    state: State = {}
    for account, number in entries:
        link(state, account, number)
    return state


def declare(service: Service, failures: Failures, chosen: Chosen, release: int) -> None:
    """Declare the service as one of its two releases has it: only the second has the second version of the ledger."""
    service.register(Entered)
    _project(service, LEDGER, 1, failures, chosen)
    _project(service, SUMMARY, 1, failures, chosen, inline=True)
    if release == 2:
        _project(service, LEDGER, 2, failures, chosen, inline=chosen.second_inline)

    async def echo(event: Entered, tx: Transaction) -> None:
        if event.echo:
            tx.publish(Entered(account=event.account, number=event.number + 1_000_000))

    service.subscribe(Entered, name="echo", ordered=True, start="beginning")(echo)


def _project(
    service: Service, name: str, version: int, failures: Failures, chosen: Chosen, *, inline: bool = False
) -> None:
    table, retry = f"{{{name}}}", RetryPolicy(attempts=5)
    projection = service.projection(name, version=version, schema=SCHEMA.format(name), inline=inline, retry=retry)
    own = projection.subscription_name

    async def keep(account: str, numbers: list[int], model: ReadModel) -> None:
        row = await model.fetch_one(f"SELECT entries, chain FROM {table} WHERE account = $1", account)
        state: State = {} if row is None else {account: (row[0], row[1])}
        for number in numbers:
            link(state, account, number)
        await model.execute(f"INSERT OR REPLACE INTO {table} VALUES ($1, $2, $3)", account, *state[account])

    async def one(event: Entered, model: ReadModel) -> None:
        await keep(event.account, [event.number], model)
        failures.meet(own, event)

    async def many(events: list[Entered], model: ReadModel) -> None:
        for account in sorted({event.account for event in events}):
            await keep(account, [event.number for event in events if event.account == account], model)
        for event in events:
            failures.meet(own, event)

    projection.on(Entered, batched=True)(many) if chosen.batched else projection.on(Entered)(one)


class Clients:
    """Publishes entries in every way there is, through whichever process is up."""

    def __init__(self, random: Random, chosen: Chosen) -> None:
        self.random = random
        self._chosen = chosen
        self._numbers = iter(range(1, 1_000_000))

    def entry(self) -> Entered:
        """Return the next entry."""
        draw = self.random
        fails = draw.choice((1, 2)) if not self._chosen.shy and draw.random() < 0.05 else 0
        return Entered(
            account=f"a{draw.randrange(5)}", number=next(self._numbers), fails=fails, echo=draw.random() < 0.1
        )

    async def publish(self, service: Service) -> Any:
        """Publish once: by itself, several in a transaction, or later."""
        way = self.random.random()
        if way < 0.5:
            await service.publish(self.entry())
        elif way < 0.9:
            async with service.transaction() as tx:
                for _ in range(self.random.choice((1, 2, 8))):
                    tx.publish(self.entry())
        else:
            await service.publish(self.entry(), delay=timedelta(seconds=self.random.random()))
