"""Subscriptions: the shape that a handler's parameters tell, and what is refused with a way out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tidings import Event, HandlerError, Service, ServiceError, SyncTransaction, SyncWork, Transaction, Work

if TYPE_CHECKING:
    from decimal import Decimal


class Placed(Event, name="unit.placed", version=1, key="order"):
    order: str


class Paid(Event, name="unit.paid", version=1, key="order"):
    order: str


def service() -> Service:
    return Service("unit", store="sqlite:///:memory:")


def kind_of(handler: Callable[..., Any], *events: type[Event]) -> tuple[str, bool, bool]:
    made = service()
    made.subscribe(*(events or (Placed,)), name="s")(handler)
    made.resolve()
    (subscription,) = made.subscriptions
    return subscription.kind, subscription.is_async, subscription.takes_second


async def with_transaction(event: Placed, tx: Transaction) -> None: ...
def with_sync_transaction(event: Placed, tx: SyncTransaction) -> None: ...
async def with_work(event: Placed, work: Work) -> None: ...
def with_sync_work(event: Placed, work: SyncWork) -> None: ...
async def with_event_only(event: Placed) -> None: ...
def sync_with_event_only(event: Placed) -> None: ...
async def for_both(event: Placed | Paid, tx: Transaction) -> None: ...


@pytest.mark.parametrize(
    ("handler", "shape"),
    [
        (with_transaction, ("transaction", True, True)),
        (with_sync_transaction, ("transaction", False, True)),
        (with_work, ("work", True, True)),
        (with_sync_work, ("work", False, True)),
        (with_event_only, ("work", True, False)),
        (sync_with_event_only, ("work", False, False)),
    ],
)
def test_the_shape_is_told_by_the_parameter(handler: Callable[..., Any], shape: tuple[str, bool, bool]) -> None:
    assert kind_of(handler) == shape


def test_several_events_per_handler_and_methods() -> None:
    class Desk:
        async def take(self, event: Placed, tx: Transaction) -> None: ...

    assert kind_of(for_both, Placed, Paid)[0] == "transaction"
    assert kind_of(Desk().take)[0] == "transaction"


async def hidden_hint(event: Placed, tx: "Decimal") -> None: ...
async def wrong_hint(event: Placed, tx: int) -> None: ...
async def no_hint(event: Placed, tx) -> None: ...  # type: ignore[no-untyped-def]
async def sync_hand(event: Placed, tx: SyncTransaction) -> None: ...
def async_hand(event: Placed, tx: Transaction) -> None: ...
async def three(event: Placed, tx: Transaction, more: int) -> None: ...
async def other_event(event: Paid, tx: Transaction) -> None: ...


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (hidden_hint, "TYPE_CHECKING"),
        (wrong_hint, "annotate it with Transaction"),
        (no_hint, "annotate it with Transaction"),
        (sync_hand, "is a Transaction, not a SyncTransaction"),
        (async_hand, "is a SyncTransaction, not a Transaction"),
        (three, "takes 3 parameters"),
        (other_event, "hinted as Paid"),
    ],
)
def test_a_handler_that_does_not_fit_is_refused_with_the_way_out(handler: Callable[..., Any], message: str) -> None:
    with pytest.raises(HandlerError, match=message):
        kind_of(handler)


def test_decorators_return_the_function_unchanged() -> None:
    assert service().subscribe(Placed)(with_transaction) is with_transaction


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"start": "yesterday"},
        {"after_dead": "ignore"},
        {"pause_after": 0},
        {"name": "*"},
        {"name": "a\nb"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ServiceError):
        service().subscribe(Placed, **options)(with_work)


def test_two_subscriptions_need_two_names() -> None:
    made = service()
    made.subscribe(Placed)(with_work)
    with pytest.raises(ServiceError, match="Two subscriptions"):
        made.subscribe(Paid, name="with_work")(with_event_only)


@pytest.mark.parametrize("url", ["", "redis://x", "sqlite://x.db", "sqlite:///"])
def test_a_store_that_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(ServiceError):
        Service("unit", store=url)
