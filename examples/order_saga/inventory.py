"""The service that has the goods. A release that comes before its allocation lets that never be made."""

import os

from events import AllocateStock, OutOfStock, ReleaseStock, StockAllocated, StockReleased

from tidings import Service, Transaction

service = Service("inventory", store=os.environ.get("STORE", "sqlite+apsw:///shop.db"))
service.schema("""
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, number INTEGER NOT NULL CHECK (number >= 0));
CREATE TABLE IF NOT EXISTS allocations (order_id TEXT PRIMARY KEY, item TEXT, state TEXT NOT NULL);
""")


@service.subscribe(AllocateStock, ReleaseStock, ordered=True, after_dead="continue")
async def move_goods(event: AllocateStock | ReleaseStock, tx: Transaction) -> None:
    """Set aside or put back the goods of an order."""
    if isinstance(event, AllocateStock):
        await allocate(event, tx)
    else:
        await release(event, tx)


async def allocate(event: AllocateStock, tx: Transaction) -> None:
    """Set one aside if there is one, and if it was not put back already."""
    state = await tx.fetch_value("SELECT state FROM allocations WHERE order_id = $1", event.order_id)
    taken = state is None and await tx.execute(
        "UPDATE stock SET number = number - 1 WHERE item = $1 AND number > 0", event.item
    )
    if not taken:
        tx.publish(OutOfStock(order_id=event.order_id))
        return
    values = (event.order_id, event.item)
    await tx.execute("INSERT INTO allocations (order_id, item, state) VALUES ($1, $2, 'allocated')", *values)
    tx.publish(StockAllocated(order_id=event.order_id))


async def release(event: ReleaseStock, tx: Transaction) -> None:
    """Put back what was set aside; where nothing was, remember that nothing may be."""
    item = await tx.fetch_value(
        "SELECT item FROM allocations WHERE order_id = $1 AND state = 'allocated'", event.order_id
    )
    if item is not None:
        await tx.execute("UPDATE stock SET number = number + 1 WHERE item = $1", item)
    await tx.execute(
        "INSERT INTO allocations (order_id, state) VALUES ($1, 'released') "
        "ON CONFLICT (order_id) DO UPDATE SET state = 'released'",
        event.order_id,
    )
    tx.publish(StockReleased(order_id=event.order_id))
