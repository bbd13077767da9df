"""Accounts whose balances are projected: what the tests of projections, and their child processes, run."""

from collections.abc import Sequence
from typing import Any

from tidings import Event, Projection, ReadModel, Service


class Deposited(Event, name="bank.deposited", version=1, key="account"):
    """Money came in."""

    account: str
    cents: int
    poison: bool = False


class Withdrawn(Event, name="bank.withdrawn", version=1, key="account"):
    """Money went out."""

    account: str
    cents: int


BALANCES = """
CREATE TABLE IF NOT EXISTS {balances} (account TEXT PRIMARY KEY, cents BIGINT NOT NULL, moves BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS {balances_by_cents} ON {balances} (cents);
"""
ADD = (
    "INSERT INTO {balances} (account, cents, moves) VALUES ($1, $2, $3) ON CONFLICT (account) DO UPDATE "
    "SET cents = {balances}.cents + excluded.cents, moves = {balances}.moves + excluded.moves"
)


class Troubles:
    """What a handler meets: it fails at poison until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self.calls: list[int] = []

    def meet(self, events: Sequence[Deposited | Withdrawn]) -> None:
        self.calls.append(len(events))
        if not self.mended and any(isinstance(event, Deposited) and event.poison for event in events):
            raise RuntimeError("poison")


def bank(store: str, **options: Any) -> Service:
    """Return a service of one bank."""
    service = Service("bank", store=store, **options)
    service.register(Deposited, Withdrawn)
    return service


def balances(
    service: Service, version: int = 1, *, batched: bool = False, troubles: Troubles | None = None, **options: Any
) -> Projection:
    """Declare a version of the balances; what it keeps is the same in each."""
    met = troubles or Troubles()
    projection = service.projection("balances", version=version, schema=BALANCES, **options)

    async def one(event: Deposited | Withdrawn, model: ReadModel) -> None:
        cents = event.cents if isinstance(event, Deposited) else -event.cents
        await model.execute(ADD, event.account, cents, 1)
        met.meet([event])

    async def many(events: Sequence[Deposited | Withdrawn], model: ReadModel) -> None:
        sums: dict[str, list[int]] = {}
        for event in events:
            total = sums.setdefault(event.account, [0, 0])
            total[0] += event.cents if isinstance(event, Deposited) else -event.cents
            total[1] += 1
        for account in sorted(sums):
            await model.execute(ADD, account, *sums[account])
        met.meet(events)

    if batched:
        projection.on(Deposited, Withdrawn, batched=True)(many)
    else:
        projection.on(Deposited, Withdrawn)(one)
    return projection


async def table(service: Service, version: int) -> list[tuple[str, int, int]]:
    """Return the rows of one version's table, whichever is live."""
    rows = await service.fetch_all(f"SELECT account, cents, moves FROM balances_v{version} ORDER BY account")
    return [tuple(row) for row in rows]  # type: ignore[misc]  # three columns
