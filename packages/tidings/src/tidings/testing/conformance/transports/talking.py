"""The two services of the end-to-end suite: one tells, the other listens and writes down what it heard."""

from pathlib import Path

from tidings.events import Event
from tidings.publishing.transaction import Transaction
from tidings.service import Service
from tidings.transport import Transport


class Told(Event, name="conformance.told", key="account"):
    """Something was told; `number` counts up."""

    account: str
    number: int


def teller(store: Path, transport: Transport) -> Service:
    """Return the service that publishes; nothing comes to it."""
    service = Service("suite-teller", store=f"sqlite:///{store}/teller.db")
    service.register(Told)
    service.transport = service.inward = transport
    return service


def listener(store: Path, transport: Transport) -> Service:
    """Return the service that another's events land at; it notes each in a table, where a second effect would show."""
    service = Service("suite-listener", store=f"sqlite:///{store}/listener.db")
    service.schema("CREATE TABLE IF NOT EXISTS heard (id INTEGER PRIMARY KEY, account TEXT, number INTEGER)")
    service.transport = service.inward = transport

    @service.subscribe(Told, ordered=True if transport.capabilities.ordered_by_key else "log", start="beginning")
    async def hear(event: Told, tx: Transaction) -> None:
        await tx.execute("INSERT INTO heard (account, number) VALUES ($1, $2)", event.account, event.number)

    return service
