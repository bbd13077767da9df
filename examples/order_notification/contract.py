"""What the two services agree on: an event that says no more than which order, and the question that it leads to."""

from msgspec import Struct

from tidings import Event, Query


class OrderPlaced(Event, name="shop.order.placed", key="order"):
    """An order was placed. What is in it, and who lives where, is asked for: `version` is how old it was then."""

    order: str
    version: int


class Order(Struct, frozen=True):
    """An order as it is now; its version counts what has happened to it."""

    version: int
    item: str
    address: str


class OrderById(Query[Order | None]):
    """Which order is that? None: not known, or not yet. One that was removed raises ReferenceGoneError."""

    order: str
