"""The service that has the saga: create the order, take the payment, allocate the stock, confirm; or take all back."""

import os
from datetime import timedelta

from events import (
    AllocateStock,
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    OrderRefused,
    OutOfStock,
    PaymentDeclined,
    PaymentRefunded,
    PaymentTaken,
    RefundPayment,
    ReleaseStock,
    StockAllocated,
    StockReleased,
    TakePayment,
)

from tidings import Event, Facts, Service, Step, Transaction, steps

PATIENCE = timedelta(seconds=float(os.environ.get("PATIENCE", "30")))

service = Service("orders", store=os.environ.get("STORE", "sqlite+apsw:///shop.db"))
service.schema("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, status TEXT NOT NULL)")


def take_payment(facts: Facts) -> Event:
    """Ask for the money."""
    order = facts[OrderPlaced]
    return TakePayment(order_id=order.order_id, customer=order.customer, cents=order.cents)


def allocate_stock(facts: Facts) -> Event:
    """Ask for the goods."""
    order = facts[OrderPlaced]
    return AllocateStock(order_id=order.order_id, item=order.item)


order_saga = steps(
    "shop.order",
    starts=OrderPlaced,
    by="order_id",
    steps=[
        Step(
            name="payment",
            ask=take_payment,
            confirmed_by=PaymentTaken,
            failed_by=PaymentDeclined,
            within=PATIENCE,
            compensate=lambda facts: RefundPayment(order_id=facts[OrderPlaced].order_id),
            compensated_by=PaymentRefunded,
        ),
        Step(
            name="stock",
            ask=allocate_stock,
            confirmed_by=StockAllocated,
            failed_by=OutOfStock,
            within=PATIENCE,
            compensate=lambda facts: ReleaseStock(order_id=facts[OrderPlaced].order_id),
            compensated_by=StockReleased,
        ),
    ],
    called_off_by=[OrderCancelled],
    completed=lambda facts: OrderConfirmed(order_id=facts[OrderPlaced].order_id),
    compensated=lambda facts: OrderRefused(order_id=facts[OrderPlaced].order_id),
)
service.saga(order_saga)


async def place(order_id: str, customer: str, item: str, cents: int) -> None:
    """Write an order, and begin its saga: both, or neither."""
    async with service.transaction() as tx:
        await tx.execute("INSERT INTO orders (id, status) VALUES ($1, 'placed')", order_id)
        tx.publish(OrderPlaced(order_id=order_id, customer=customer, item=item, cents=cents))


@service.subscribe(OrderConfirmed, OrderRefused, ordered=True)
async def end_order(event: OrderConfirmed | OrderRefused, tx: Transaction) -> None:
    """Write down how the order ended."""
    status = "confirmed" if isinstance(event, OrderConfirmed) else "refused"
    await tx.execute("UPDATE orders SET status = $2 WHERE id = $1", event.order_id, status)
