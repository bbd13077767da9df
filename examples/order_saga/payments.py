"""The service that has the customers' money. A refund that comes before its payment lets that never be taken."""

import os

from events import PaymentDeclined, PaymentRefunded, PaymentTaken, RefundPayment, TakePayment

from tidings import Service, Transaction

service = Service("payments", store=os.environ.get("STORE", "sqlite+apsw:///shop.db"))
service.schema("""
CREATE TABLE IF NOT EXISTS accounts (customer TEXT PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0));
CREATE TABLE IF NOT EXISTS payments (
  order_id TEXT PRIMARY KEY, customer TEXT, cents INTEGER NOT NULL, state TEXT NOT NULL);
""")


# One subscription for both: the requests for one order are handled in their order, also when one is tried again.
@service.subscribe(TakePayment, RefundPayment, ordered=True, after_dead="continue")
async def move_money(event: TakePayment | RefundPayment, tx: Transaction) -> None:
    """Take or give back the money of an order."""
    if isinstance(event, TakePayment):
        await take(event, tx)
    else:
        await refund(event, tx)


async def take(event: TakePayment, tx: Transaction) -> None:
    """Take the money if it is there, and if it was not given back already."""
    state = await tx.fetch_value("SELECT state FROM payments WHERE order_id = $1", event.order_id)
    balance = await tx.fetch_value("SELECT cents FROM accounts WHERE customer = $1", event.customer)
    if state is not None or balance is None or balance < event.cents:
        tx.publish(PaymentDeclined(order_id=event.order_id))
        return
    await tx.execute("UPDATE accounts SET cents = cents - $2 WHERE customer = $1", event.customer, event.cents)
    values = (event.order_id, event.customer, event.cents)
    await tx.execute("INSERT INTO payments (order_id, customer, cents, state) VALUES ($1, $2, $3, 'taken')", *values)
    tx.publish(PaymentTaken(order_id=event.order_id))


async def refund(event: RefundPayment, tx: Transaction) -> None:
    """Give back what was taken; where nothing was, remember that nothing may be."""
    taken = await tx.fetch_one(
        "SELECT customer, cents FROM payments WHERE order_id = $1 AND state = 'taken'", event.order_id
    )
    if taken is not None:
        await tx.execute(
            "UPDATE accounts SET cents = cents + $2 WHERE customer = $1", taken["customer"], taken["cents"]
        )
    await tx.execute(
        "INSERT INTO payments (order_id, cents, state) VALUES ($1, 0, 'refunded') "
        "ON CONFLICT (order_id) DO UPDATE SET state = 'refunded'",
        event.order_id,
    )
    tx.publish(PaymentRefunded(order_id=event.order_id))
