"""What an event class may declare, and what its instances are."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tidings.errors import EventDefinitionError, EventEncodeError, TidingsError
from tidings.events import Event, EventType, Registry, event_type, key_of, reader, share_of


class Money(msgspec.Struct, frozen=True):
    """An amount inside an event."""

    cents: int
    currency: str = "EUR"


class OrderPlaced(Event, name="shop.order.placed", version="1.2", key="order_id", fair_by="tenant"):
    """An event with everything declared."""

    order_id: UUID
    tenant: int
    total: Money
    notes: list[str] = msgspec.field(default_factory=list)


class ShopEvent(Event, abstract=True):
    """Fields that several events share."""

    shop: str


class ShopOpened(ShopEvent, name="shop.opened", keep=timedelta(days=30)):
    """A concrete event of an abstract one."""


ORDER = UUID("018f0000-0000-7000-8000-000000000001")


def order(**changes: Any) -> OrderPlaced:
    return OrderPlaced(**{"order_id": ORDER, "tenant": 7, "total": Money(cents=5)} | changes)


def define(**keywords: Any) -> type[Event]:
    """Make a class as a class statement would."""
    return type(Event)("Made", (Event,), {"__annotations__": {"id": str}, "__module__": __name__}, **keywords)


def test_the_class_carries_its_declaration():
    assert OrderPlaced.__event_type__ == EventType(
        name="shop.order.placed", major=1, minor=2, key="order_id", keep="forever", fair_by="tenant"
    )
    assert event_type(order()).version == "1.2"
    assert event_type(ShopOpened).keep == str(30 * 86_400)
    assert event_type(define(name="a.b", version="3.0")).version == "3"


def test_instances_are_frozen_keyword_only_values():
    event = order()
    with pytest.raises(AttributeError):
        event.tenant = 8  # type: ignore[misc]
    with pytest.raises(TypeError):
        OrderPlaced(ORDER, 7, Money(cents=5))  # type: ignore[misc]
    with pytest.raises(TypeError, match="tenant"):
        OrderPlaced(order_id=ORDER, total=Money(cents=5))  # type: ignore[call-arg]
    assert event == order()
    assert event != order(tenant=8)
    assert ShopOpened(shop="x").shop == "x"


def test_instances_survive_pickle_and_copy():
    event = order(notes=["a"])
    assert pickle.loads(pickle.dumps(event)) == event
    assert copy.deepcopy(event) == event
    assert msgspec.structs.replace(event, tenant=9).tenant == 9


def test_routing_values_are_text():
    assert key_of(order()) == str(ORDER)
    assert share_of(order()) == "7"
    assert key_of(ShopOpened(shop="x")) is None
    assert share_of(ShopOpened(shop="x")) is None


class Keyed(Event, name="a.keyed", key="id", fair_by="id"):
    """An event whose key is text."""

    id: str


@pytest.mark.parametrize("bad", ["x" * 513, "a\nb", "a\x00", "\ud800", "\ufffe"])
def test_a_key_that_no_envelope_may_carry_is_refused(bad):
    with pytest.raises(EventEncodeError, match="id is"):
        key_of(Keyed(id=bad))


@pytest.mark.parametrize("good", ["x" * 512, "", "größe 大", "\u3000", "\U0001f600"])
def test_any_other_key_is_taken_as_it_is(good):
    assert key_of(Keyed(id=good)) == good


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, 'add one: class Made(Event, name="shop.order.placed"'),
        ({"name": "Shop.Order"}, "two or more lower-case words"),
        ({"name": "orders"}, "two or more lower-case words"),
        ({"name": "a..b"}, "two or more lower-case words"),
        ({"name": "a.b\n"}, "two or more lower-case words"),
        ({"name": "a.b c"}, "two or more lower-case words"),
        ({"name": "a." + "b" * 254}, "at most 255"),
        ({"name": 5}, "two or more lower-case words"),
        ({"name": "a.b", "version": 0}, "whole number from 1"),
        ({"name": "a.b", "version": -1}, "whole number from 1"),
        ({"name": "a.b", "version": True}, "whole number from 1"),
        ({"name": "a.b", "version": 1.2}, "whole number from 1"),
        ({"name": "a.b", "version": "1.02"}, "whole number from 1"),
        ({"name": "a.b", "version": "v1"}, "whole number from 1"),
        ({"name": "a.b", "version": "1.2.3"}, "whole number from 1"),
        ({"name": "a.b", "version": "\u0661"}, "whole number from 1"),
        ({"name": "a.b", "key": "order"}, "key='order' is not a field; name one of id"),
        ({"name": "a.b", "fair_by": "tenant"}, "fair_by='tenant' is not a field"),
        ({"name": "a.b", "keep": "30d"}, "timedelta"),
        ({"name": "a.b", "keep": timedelta(0)}, "timedelta"),
        ({"name": "a.b", "keep": timedelta(seconds=1.5)}, "whole seconds"),
        ({"name": "a.b", "nmae": "x"}, "unknown class keyword nmae"),
        ({"name": "a.b", "tag": "x"}, "unknown class keyword tag"),
        ({"name": "a.b", "frozen": False}, "remove frozen=False"),
        ({"name": "a.b", "abstract": True}, "remove abstract=True"),
    ],
)
def test_a_wrong_declaration_says_how_to_fix_it(keywords, message):
    with pytest.raises(EventDefinitionError) as caught:
        define(**keywords)
    assert message in str(caught.value)
    assert "Made" in str(caught.value)


def test_an_abstract_class_has_no_wire_name():
    with pytest.raises(EventDefinitionError, match="abstract"):
        event_type(ShopEvent(shop="x"))
    with pytest.raises(EventDefinitionError, match="Event is abstract"):
        reader(Event)
    with pytest.raises(EventDefinitionError, match="cannot extend"):
        type(Event)("Late", (ShopOpened,), {}, abstract=True)


class Widget:
    """A type that JSON cannot carry."""


class BadNested(Event, name="bad.nested"):
    """Hides a bad type deep inside."""

    rows: dict[str, list[Widget | None]]


class BadKeyOptional(Event, name="bad.key.optional", key="id"):
    """Has a key that may be missing."""

    id: str | None


class BadKeyFloat(Event, name="bad.key.float", fair_by="id"):
    """Takes turns by a number that is not whole."""

    id: float


class BadKeyBool(Event, name="bad.key.bool", key="id"):
    """Has a key of two values."""

    id: bool


class Unresolvable(Event, name="bad.unresolvable"):
    """Has a type that exists for type checkers only."""

    when: Missing  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (BadNested, "Widget cannot be read from JSON"),
        (BadKeyOptional, "key='id' must be a field of type str, int or UUID"),
        (BadKeyFloat, "fair_by='id' must be a field of type str, int or UUID"),
        (BadKeyBool, "key='id' must be a field of type str, int or UUID"),
        (Unresolvable, "Import it at module level"),
    ],
)
def test_types_are_checked_when_a_class_is_first_used(cls, message):
    with pytest.raises(EventDefinitionError) as caught:
        Registry().register(cls)
    assert message in str(caught.value)


class Tree(Event, name="a.tree"):
    """Refers to itself and holds anything."""

    children: list[Tree] = msgspec.field(default_factory=list)
    value: Any = None


def test_recursive_and_untyped_fields_are_allowed():
    assert reader(Tree).decode(b'{"children":[{"value":[1,{}]}]}') == Tree(children=[Tree(value=[1, {}])])


def test_declarations_work_without_docstrings_and_asserts():
    code = (
        "from tidings.events import *\n"
        "class E(Event, name='a.b', key='k'):\n    'Doc.'\n    k: str\n"
        "r = Registry(); r.register(E)\n"
        "print(E.__doc__, key_of(E(k='x')), encode_event(E(k='x')))"
    )
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == 'None x b\'{"k":"x"}\'\n', done.stderr


def test_every_error_has_the_root_and_says_if_a_retry_helps():
    assert issubclass(EventDefinitionError, TidingsError)
    assert EventDefinitionError.retryable is False
