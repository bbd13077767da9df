"""What the shop says."""

from tidings import Event


class OrderPlaced(Event, name="shop.order.placed", key="order_id"):
    """A customer's order was accepted for payment."""

    order_id: str
    cents: int


class OrderCharged(Event, name="shop.order.charged", key="order_id"):
    """The money of an order has arrived."""

    order_id: str
