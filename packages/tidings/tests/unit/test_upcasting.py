"""Which class reads which version, and how old versions become new ones."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tidings.errors import (
    EventDecodeError,
    EventDefinitionError,
    NoUpcasterError,
    ParkedEventError,
    UnknownEventTypeError,
    UnknownEventVersionError,
)
from tidings.events import Envelope, Event, Registry, decode_event


class PlacedV1(Event, name="shop.order.placed", version=1, key="order_id"):
    """The first version: an amount in euros."""

    order_id: str
    euros: int


class PlacedV2(Event, name="shop.order.placed", version=2, key="order_id"):
    """The second: cents."""

    order_id: str
    cents: int


class PlacedV3(Event, name="shop.order.placed", version="3.1", key="order_id"):
    """The third: cents and a currency."""

    order_id: str
    amount: dict[str, int]


def envelope(version: str, data: bytes, type_: str = "shop.order.placed") -> Envelope:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Envelope(id="e-1", source="s", type=type_, time=moment, correlation="e-1", version=version, data=data)


def registry(*classes: type[Event]) -> Registry:
    made = Registry()
    for cls in classes:
        made.register(cls)

    @made.upcaster("shop.order.placed", 1)
    def to_cents(document: dict[str, Any]) -> dict[str, Any]:
        document["cents"] = document.pop("euros") * 100  # mutates its copy on purpose
        return document

    @made.upcaster("shop.order.placed", 2)
    def to_currency(document: dict[str, Any]) -> dict[str, Any]:
        return {"order_id": document["order_id"], "amount": {"EUR": document["cents"]}}

    return made


def test_old_versions_pass_the_whole_chain_and_leave_the_bytes_alone():
    old = envelope("1", b'{"order_id":"o","euros":3}')
    expected = PlacedV3(order_id="o", amount={"EUR": 300})
    known = registry(PlacedV3)
    assert decode_event(old, known) == expected
    assert decode_event(old, known) == expected
    assert old.data == b'{"order_id":"o","euros":3}'
    assert decode_event(envelope("2.7", b'{"order_id":"o","cents":5}'), known) == PlacedV3(
        order_id="o", amount={"EUR": 5}
    )


def test_a_handler_of_an_older_class_gets_that_class():
    known = registry(PlacedV1, PlacedV2, PlacedV3)
    old = envelope("1", b'{"order_id":"o","euros":3}')
    assert decode_event(old, known, PlacedV1) == PlacedV1(order_id="o", euros=3)
    assert decode_event(old, known, PlacedV2) == PlacedV2(order_id="o", cents=300)
    with pytest.raises(UnknownEventVersionError, match="reads up to 1"):
        decode_event(envelope("2", b'{"order_id":"o","cents":3}'), known, PlacedV1)


def test_any_minor_of_the_major_is_read_and_unknown_fields_ignored():
    known = registry(PlacedV1)
    for version in ("1", "1.0", "1.9"):
        assert decode_event(envelope(version, b'{"order_id":"o","euros":3,"new":[]}'), known) == PlacedV1(
            order_id="o", euros=3
        )


@pytest.mark.parametrize(
    ("version", "type_", "error", "message"),
    [
        ("1", "shop.order.lost", UnknownEventTypeError, "shop.order.lost, which no registered class reads"),
        ("4", "shop.order.placed", UnknownEventVersionError, "reads up to 3"),
        ("4.2", "shop.order.placed", UnknownEventVersionError, "deploy the release"),
        ("banana", "shop.order.placed", UnknownEventVersionError, "version banana"),
        ("0", "shop.order.placed", UnknownEventVersionError, "version 0"),
    ],
)
def test_what_a_later_release_may_read_is_parked(version, type_, error, message):
    with pytest.raises(error, match=message) as caught:
        decode_event(envelope(version, b"{}", type_), registry(PlacedV3))
    assert isinstance(caught.value, ParkedEventError)
    assert not isinstance(caught.value, EventDecodeError)


def test_a_gap_in_the_chain_is_parked_and_named():
    known = Registry()
    known.register(PlacedV3)
    known.upcaster("shop.order.placed", 1)(lambda document: document)
    with pytest.raises(NoUpcasterError, match="no upcaster from 2 to 3"):
        decode_event(envelope("1", b"{}"), known)


def broken(document: dict[str, Any]) -> Any:
    """Fail in the way that the document asks for."""
    if "missing" in document:
        return document["nothing"]
    return {"set": {1, object()}} if "odd" in document else None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"missing":1}', "upcaster broken of shop.order.placed from 1 to 2 failed with KeyError"),
        (b'{"odd":1}', "upcaster broken .* failed with TypeError"),
        (b"{}", "it returned NoneType, not a dict"),
        (b"[1]", "reading shop.order.placed version 1 failed with ValidationError"),
        (b"{", "reading shop.order.placed version 1 failed with DecodeError"),
    ],
)
def test_a_failing_upcaster_makes_the_event_dead_and_is_named(data, message):
    known = Registry()
    known.register(PlacedV2)
    known.upcaster("shop.order.placed", 1)(broken)
    with pytest.raises(EventDecodeError, match=message):
        decode_event(envelope("1", data), known)


def test_an_upcast_that_does_not_fit_the_class_names_the_field():
    known = Registry()
    known.register(PlacedV2)
    known.upcaster("shop.order.placed", 1)(lambda document: document | {"cents": "many"})
    with pytest.raises(EventDecodeError, match=r"Expected `int`, got `str` - at `\$\.cents`"):
        decode_event(envelope("1", b'{"order_id":"o"}'), known)


def test_the_registry_lists_what_it_knows():
    known = registry(PlacedV3, PlacedV1, PlacedV1)
    assert known.names() == ("shop.order.placed",)
    assert known.classes() == (PlacedV1, PlacedV3)
    assert known.lookup("shop.order.placed", 1) is PlacedV1
    assert known.lookup("shop.order.placed", 2) is None
    assert known.lookup("shop.order.lost", 1) is None
    assert known.newest("shop.order.placed") is PlacedV3
    assert known.newest("shop.order.lost") is None
    assert [(step.name, step.from_major) for step in known.upcasters()] == [
        ("shop.order.placed", 1),
        ("shop.order.placed", 2),
    ]


class Twin(Event, name="shop.order.placed", version="1.5", key="order_id"):
    """Takes a name and major version that is taken."""

    order_id: str


class OtherKey(Event, name="shop.order.placed", version=4, key="customer"):
    """Would break the order that the earlier versions keep."""

    customer: str


def test_contradictions_are_refused_at_registration():
    known = registry(PlacedV1)
    with pytest.raises(EventDefinitionError, match=r"Twin and .*PlacedV1 are both shop.order.placed version 1"):
        known.register(Twin)
    with pytest.raises(EventDefinitionError, match=r"OtherKey has key 'customer', but .*PlacedV1"):
        known.register(OtherKey)
    with pytest.raises(EventDefinitionError, match=r"upcaster .*to_cents .* already"):
        known.upcaster("shop.order.placed", 1)(broken)
    assert known.classes() == (PlacedV1,)
    Registry().register(Twin)  # another service may
