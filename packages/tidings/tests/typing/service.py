"""User-style code that passes mypy --strict: declaring, handling, publishing, reading."""

from datetime import UTC, datetime, timedelta

from tidings import Envelope, Event, RetryPolicy, Row, Service, SyncTransaction, SyncWork, Transaction, Work


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """A customer's order was accepted for payment."""

    order_id: str
    amount_cents: int


class OrderCharged(Event, name="shop.order.charged", version="1.1", key="order_id", keep=timedelta(days=30)):
    """The money of an order has arrived."""

    order_id: str


service = Service("billing", store="sqlite:///billing.db")


@service.subscribe(OrderPlaced, ordered=True, retry=RetryPolicy(attempts=5, never=(ValueError,)))
async def charge(event: OrderPlaced, tx: Transaction) -> None:
    """Charge an order."""
    changed: int = await tx.execute("INSERT INTO charges VALUES ($1, $2)", event.order_id, event.amount_cents)
    row: Row | None = await tx.fetch_one("SELECT count(*) AS n FROM charges WHERE order_id = $1", event.order_id)
    if changed and row is not None and row["n"] == 1:
        later: Envelope = tx.publish(OrderCharged(order_id=event.order_id), delay=timedelta(minutes=1))
        await tx.cancel(later.id)


@service.subscribe(OrderCharged, concurrency=5, time_limit=timedelta(seconds=30))
async def send_receipt(event: OrderCharged, work: Work) -> None:
    """Send a receipt."""
    key: str = work.idempotency_key
    async with work.finish() as tx:
        tx.publish(OrderPlaced(order_id=key, amount_cents=work.attempt))


@service.subscribe(OrderPlaced, OrderCharged, name="audit", start="beginning")
def audit(event: OrderPlaced | OrderCharged, tx: SyncTransaction) -> None:
    """Write everything down."""
    tx.execute("INSERT INTO audit VALUES ($1)", event.order_id)


@service.subscribe(OrderCharged, name="print", start=datetime(2026, 1, 1, tzinfo=UTC))
def print_label(event: OrderCharged, work: SyncWork) -> None:
    """Print a label."""
    with work.finish() as tx:
        tx.execute("INSERT INTO labels VALUES ($1)", event.order_id)


async def place(order_id: str) -> str:
    """Publish from a web handler."""
    async with service.transaction() as tx:
        await tx.execute("INSERT INTO orders VALUES ($1)", order_id)
        tx.publish(OrderPlaced(order_id=order_id, amount_cents=100))
    envelope = await service.publish(OrderCharged(order_id=order_id), id="chosen")
    rows: list[Row] = await service.fetch_all("SELECT * FROM orders")
    return f"{envelope.id} {len(rows)}"
