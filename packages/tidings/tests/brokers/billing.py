"""The receiving service of the end-to-end tests: `python billing.py URL DATABASE` writes a row for every order."""

import asyncio
import sys

from tidings import Event, Service, Transaction


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """An order was accepted."""

    order_id: str
    number: int


async def main(url: str, database: str) -> None:
    service = Service("billing", store=f"sqlite:///{database}", transport=url)
    service.schema("CREATE TABLE IF NOT EXISTS charges (order_id TEXT, number INTEGER)")  # a doubled effect is a row

    @service.subscribe(OrderPlaced, start="beginning")
    async def charge(event: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("INSERT INTO charges VALUES ($1, $2)", event.order_id, event.number)

    async with service:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
