"""A saga of steps and a class of sagas for the tests, with the services that answer them."""

from datetime import timedelta

from msgspec import Struct

from tidings import Event, Facts, Saga, Step, on, on_timer, starts, steps


class OrderPlaced(Event, name="t.order.placed", key="order_id"):
    order_id: str
    cents: int = 100


class OrderCalledOff(Event, name="t.order.called-off", key="order_id"):
    order_id: str


class TakePayment(Event, name="t.payment.asked", key="order_id"):
    order_id: str
    cents: int


class PaymentTaken(Event, name="t.payment.taken", key="payment_id"):
    order_id: str
    payment_id: str = "p-1"


class PaymentDeclined(Event, name="t.payment.declined", key="order_id"):
    order_id: str


class Refund(Event, name="t.refund.asked", key="order_id"):
    order_id: str


class Refunded(Event, name="t.refund.done", key="order_id"):
    order_id: str


class RefundFailed(Event, name="t.refund.failed", key="order_id"):
    order_id: str


class Reserve(Event, name="t.stock.asked", key="order_id"):
    order_id: str


class Reserved(Event, name="t.stock.reserved", key="order_id"):
    order_id: str


class OutOfStock(Event, name="t.stock.out", key="order_id"):
    order_id: str


class Release(Event, name="t.stock.release", key="order_id"):
    order_id: str


class Ship(Event, name="t.shipping.asked", key="order_id"):
    order_id: str


class Shipped(Event, name="t.shipping.done", key="order_id"):
    order_id: str


class NotShipped(Event, name="t.shipping.failed", key="order_id"):
    order_id: str


class Confirmed(Event, name="t.order.confirmed", key="order_id"):
    order_id: str


class Refused(Event, name="t.order.refused", key="order_id"):
    order_id: str


def order_id(facts: Facts) -> str:
    return facts[OrderPlaced].order_id


PAYMENT = Step(
    name="payment",
    ask=lambda facts: TakePayment(order_id=order_id(facts), cents=facts[OrderPlaced].cents),
    confirmed_by=PaymentTaken,
    failed_by=PaymentDeclined,
    within=timedelta(minutes=5),
    compensate=lambda facts: Refund(order_id=order_id(facts)),
    compensated_by=Refunded,
    compensation_failed_by=RefundFailed,
)
STOCK = Step(
    name="stock",
    ask=lambda facts: Reserve(order_id=order_id(facts)),
    confirmed_by=Reserved,
    failed_by=OutOfStock,
    within=timedelta(minutes=1),
    compensate=lambda facts: Release(order_id=order_id(facts)),
)
SHIPPING = Step(
    name="shipping",
    ask=lambda facts: Ship(order_id=order_id(facts)),
    confirmed_by=Shipped,
    failed_by=NotShipped,
)


def order_saga(*with_steps: Step, name: str = "order"):
    return steps(
        name,
        starts=OrderPlaced,
        by="order_id",
        steps=with_steps or (PAYMENT, STOCK, SHIPPING),
        called_off_by=[OrderCalledOff],
        completed=lambda facts: Confirmed(order_id=order_id(facts)),
        compensated=lambda facts: Refused(order_id=order_id(facts)),
    )


class Asked(Event, name="t.quote.asked", key="quote_id"):
    quote_id: str
    suppliers: int = 2


class Offer(Event, name="t.quote.offer", key="supplier"):
    reference: str
    supplier: str
    cents: int


class Chosen(Event, name="t.quote.chosen", key="quote_id"):
    quote_id: str
    supplier: str | None


class Offers(Struct):
    wanted: int = 0
    cents: dict[str, int] = {}


class Quote(Saga[Offers], name="quote", by="quote_id"):
    """Collects offers until all are there, or time is up; each offer gives the others another minute."""

    @starts(Asked)
    def begin(self, event: Asked) -> None:
        self.state.wanted = event.suppliers
        self.start_timer("patience", timedelta(minutes=1))

    @on(Offer, by="reference")
    def collect(self, event: Offer) -> None:
        self.state.cents[event.supplier] = event.cents
        self.start_timer("patience", timedelta(minutes=1))
        if len(self.state.cents) == self.state.wanted:
            self.choose()

    @on_timer("patience")
    def choose(self) -> None:
        cents = self.state.cents
        self.publish(Chosen(quote_id=self.id, supplier=min(cents, key=lambda one: cents[one]) if cents else None))
        self.complete()
