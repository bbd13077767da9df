"""User code about events that must pass `mypy --strict`; lines marked ignore must fail without the mark."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

import msgspec

from tidings.events import (
    Envelope,
    Event,
    EventType,
    Registry,
    decode_event,
    encode_event,
    event_type,
    key_of,
    parse_json,
)


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """A customer's order was accepted for payment."""

    order_id: str
    amount_cents: int
    notes: list[str] = msgspec.field(default_factory=list)
    currency: str = "EUR"


class ShopEvent(Event, abstract=True):
    """Fields that several events share."""

    shop_id: UUID


class ShopOpened(ShopEvent, name="shop.opened", version="1.2", keep=timedelta(days=30), fair_by="shop_id"):
    """A shop opened its doors."""

    opened_at: datetime


event = OrderPlaced(order_id="o-1", amount_cents=500)
opened = ShopOpened(shop_id=UUID(int=0), opened_at=datetime(2026, 1, 1, tzinfo=UTC))
assert_type(event.amount_cents, int)
assert_type(event.currency, str)
assert_type(opened.shop_id, UUID)
assert_type(OrderPlaced.__event_type__, EventType)
assert_type(event_type(event), EventType)
assert_type(key_of(event), str | None)
assert_type(encode_event(event), bytes)

OrderPlaced("o-1", 500)  # type: ignore[call-arg]
OrderPlaced(order_id="o-1")  # type: ignore[call-arg]
OrderPlaced(order_id="o-1", amount_cents="500")  # type: ignore[arg-type]
OrderPlaced(order_id="o-1", amount_cents=500, colour="red")  # type: ignore[call-arg]
event.amount_cents = 5  # type: ignore[misc]
print(event.colour)  # type: ignore[attr-defined]

registry = Registry()
registry.register(OrderPlaced)
registry.register(Envelope)  # type: ignore[arg-type]


@registry.upcaster("shop.order.placed", 1)
def to_cents(document: dict[str, Any]) -> dict[str, Any]:
    """Turn version 1 into version 2."""
    return document | {"amount_cents": document["euros"] * 100}


assert_type(to_cents({}), dict[str, Any])


def read(envelope: Envelope) -> None:
    """Read an event, and JSON from outside."""
    assert_type(decode_event(envelope, registry), Event)
    assert_type(parse_json(b"{}"), object)
