"""Orders kept with asyncpg: the web side publishes on its own pool, a handler charges in the settling transaction.

Run it on an empty Postgres database:  python orders.py postgresql://localhost/shop
"""

import asyncio
import sys

import asyncpg

from tidings import Event, Service, Transaction
from tidings.integrations.asyncpg import outbox


class OrderPlaced(Event, name="shop.order.placed", key="order_id"):
    """A customer's order was accepted for payment."""

    order_id: str
    cents: int


class OrderCharged(Event, name="shop.order.charged", key="order_id"):
    """The money of an order has arrived."""

    order_id: str


class OutOfStockError(Exception):
    """The goods are gone."""


url = sys.argv[1] if len(sys.argv) > 1 else "postgresql://localhost/shop"
service = Service("shop", store=url)
service.schema("""
CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, cents integer NOT NULL);
CREATE TABLE IF NOT EXISTS charges (order_id text PRIMARY KEY, cents integer NOT NULL);
""")
charged: set[str] = set()
all_charged = asyncio.Event()


async def place(connection: asyncpg.Connection, order_id: str, cents: int, *, in_stock: bool = True) -> None:
    """Write an order and its event: both, or neither."""
    async with outbox(connection) as publish:
        publish(OrderPlaced(order_id=order_id, cents=cents))
        await connection.execute("INSERT INTO orders (id, cents) VALUES ($1, $2)", order_id, cents)
        if not in_stock:
            raise OutOfStockError(order_id)


@service.subscribe(OrderPlaced, ordered=True)
async def charge(event: OrderPlaced, tx: Transaction) -> None:
    """Charge an order; the store's own transactions are asyncpg's."""
    await tx.execute("INSERT INTO charges (order_id, cents) VALUES ($1, $2)", event.order_id, event.cents)
    tx.publish(OrderCharged(order_id=event.order_id))


@service.subscribe(OrderCharged)
async def tell(event: OrderCharged) -> None:
    """Say that the money is there."""
    charged.add(event.order_id)
    if len(charged) == 3:
        all_charged.set()


async def main() -> None:
    """Place three orders and fail with a fourth; see what was charged."""
    async with service, asyncpg.create_pool(url, min_size=1) as pool:
        async with pool.acquire() as connection:
            for number in range(1, 4):
                await place(connection, f"order-{number}", 100 * number)
            try:
                await place(connection, "order-4", 400, in_stock=False)
            except OutOfStockError as error:
                print(f"{error} is out of stock")
        async with asyncio.timeout(30):
            await all_charged.wait()
        row = await service.fetch_one("SELECT count(*), sum(cents) FROM charges")
    assert row is not None
    print(f"charged {row[0]} orders, {row[1]} cents; events: {', '.join(sorted(charged))}")


if __name__ == "__main__":
    asyncio.run(main())
