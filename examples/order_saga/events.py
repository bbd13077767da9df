"""What the three services say to each other. Each asks and answers by the order's id."""

from tidings import Event


class OrderPlaced(Event, name="shop.order.placed", key="order_id"):
    """A customer has placed an order: the saga begins."""

    order_id: str
    customer: str
    item: str
    cents: int


class OrderCancelled(Event, name="shop.order.cancelled", key="order_id"):
    """The customer has changed their mind."""

    order_id: str


class OrderConfirmed(Event, name="shop.order.confirmed", key="order_id"):
    """The order is paid, and its goods are set aside."""

    order_id: str


class OrderRefused(Event, name="shop.order.refused", key="order_id"):
    """The order is off: what was done for it is taken back."""

    order_id: str


class TakePayment(Event, name="shop.payment.asked", key="order_id"):
    """Payments shall take the money of an order."""

    order_id: str
    customer: str
    cents: int


class PaymentTaken(Event, name="shop.payment.taken", key="order_id"):
    """The money was taken."""

    order_id: str


class PaymentDeclined(Event, name="shop.payment.declined", key="order_id"):
    """The money was not taken, and will not be."""

    order_id: str


class RefundPayment(Event, name="shop.refund.asked", key="order_id"):
    """Payments shall give the money back, or never take it."""

    order_id: str


class PaymentRefunded(Event, name="shop.refund.done", key="order_id"):
    """No money of this order is left with the shop."""

    order_id: str


class AllocateStock(Event, name="shop.stock.asked", key="order_id"):
    """Inventory shall set goods aside."""

    order_id: str
    item: str


class StockAllocated(Event, name="shop.stock.allocated", key="order_id"):
    """The goods are set aside."""

    order_id: str


class OutOfStock(Event, name="shop.stock.out", key="order_id"):
    """There are no such goods."""

    order_id: str


class ReleaseStock(Event, name="shop.stock.release-asked", key="order_id"):
    """Inventory shall put the goods back, or never set them aside."""

    order_id: str


class StockReleased(Event, name="shop.stock.released", key="order_id"):
    """No goods are set aside for this order."""

    order_id: str
