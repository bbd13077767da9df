"""Orders kept with psycopg 3: a script publishes on its connection, a handler charges on a connection of its own.

Run it on an empty Postgres database:  python orders.py postgresql://localhost/shop
"""

import asyncio
import sys
from typing import Any

import psycopg

from tidings import Event, Service
from tidings.integrations.psycopg import outbox, psycopg_executor, publish


class OrderPlaced(Event, name="shop.order.placed", key="order_id"):
    """A customer's order was accepted for payment."""

    order_id: str
    cents: int


class OrderCharged(Event, name="shop.order.charged", key="order_id"):
    """The money of an order has arrived."""

    order_id: str


url = sys.argv[1] if len(sys.argv) > 1 else "postgresql://localhost/shop"
service = Service("shop", store=url)
service.schema("""
CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, cents integer NOT NULL);
CREATE TABLE IF NOT EXISTS charges (order_id text PRIMARY KEY, cents integer NOT NULL);
""")
charged: set[str] = set()
all_charged = asyncio.Event()


def place_three() -> None:
    """Write three orders in one transaction; one insert writes their events right before the commit."""
    with psycopg.connect(url) as connection, outbox(connection) as publish_later:
        for number in range(1, 4):
            order = (f"order-{number}", 100 * number)
            connection.execute("INSERT INTO orders (id, cents) VALUES (%s, %s)", order)
            publish_later(OrderPlaced(order_id=order[0], cents=order[1]))


def place_and_give_up() -> None:
    """Write an order with its event, and roll both back."""
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO orders (id, cents) VALUES ('order-4', 400)")
        publish(connection, OrderPlaced(order_id="order-4", cents=400))
        connection.rollback()


@service.subscribe(OrderPlaced, ordered=True, executor=psycopg_executor(lambda: psycopg.connect(url)))
def charge(event: OrderPlaced, connection: psycopg.Connection[Any]) -> None:
    """Charge an order; the connection's commit settles the event too."""
    connection.execute("INSERT INTO charges (order_id, cents) VALUES (%s, %s)", (event.order_id, event.cents))
    publish(connection, OrderCharged(order_id=event.order_id))


@service.subscribe(OrderCharged)
async def tell(event: OrderCharged) -> None:
    """Say that the money is there."""
    charged.add(event.order_id)
    if len(charged) == 3:
        all_charged.set()


async def main() -> None:
    """Place three orders and give a fourth up; see what was charged."""
    async with service:
        await asyncio.to_thread(place_three)
        await asyncio.to_thread(place_and_give_up)
        async with asyncio.timeout(30):
            await all_charged.wait()
        row = await service.fetch_one("SELECT count(*), sum(cents) FROM charges")
    assert row is not None
    print(f"charged {row[0]} orders, {row[1]} cents; events: {', '.join(sorted(charged))}")


if __name__ == "__main__":
    asyncio.run(main())
