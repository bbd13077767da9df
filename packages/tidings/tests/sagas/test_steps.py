"""What a saga of steps decides: forward, back in reverse, when time is up, when answers come late."""

from datetime import timedelta

import pytest
from saga_shop import (
    PAYMENT,
    SHIPPING,
    STOCK,
    Confirmed,
    NotShipped,
    OrderCalledOff,
    OrderPlaced,
    OutOfStock,
    PaymentDeclined,
    PaymentTaken,
    Refund,
    Refunded,
    RefundFailed,
    Refused,
    Release,
    Reserve,
    Reserved,
    Ship,
    Shipped,
    TakePayment,
    order_saga,
)

from tidings import Event, SagaDefinitionError, SagaNotReadableError, Step, steps
from tidings.testing import SagaTest

O1 = "o-1"
PLACED, PAID, RESERVED = OrderPlaced(order_id=O1), PaymentTaken(order_id=O1), Reserved(order_id=O1)


def test_the_way_forward() -> None:
    saga = SagaTest(order_saga())
    assert saga.when(PLACED).published == [TakePayment(order_id=O1, cents=100)]
    assert saga.timers == {"payment": timedelta(minutes=5)}
    assert saga.when(PAID).published == [Reserve(order_id=O1)]
    assert saga.timers == {"stock": timedelta(minutes=1)}
    assert saga.when(RESERVED).published == [Ship(order_id=O1)]
    assert (saga.timers, saga.state.done, saga.state.asked) == ({}, ["payment", "stock"], "shipping")
    assert saga.when(Shipped(order_id=O1)).published == [Confirmed(order_id=O1)]
    assert saga.status == "completed"


def test_the_first_step_fails_and_nothing_is_taken_back() -> None:
    saga = SagaTest(order_saga()).given(PLACED).when(PaymentDeclined(order_id=O1))
    assert (saga.published, saga.status, saga.timers) == ([Refused(order_id=O1)], "compensated", {})
    assert saga.reason == "payment failed: t.payment.declined"


def test_the_last_step_fails_and_all_is_taken_back_in_reverse() -> None:
    saga = SagaTest(order_saga()).given(PLACED, PAID, RESERVED).when(NotShipped(order_id=O1))
    assert saga.published == [Release(order_id=O1), Refund(order_id=O1)]
    assert (saga.status, saga.timers) == ("compensating", {"undo payment": timedelta(minutes=5)})
    assert saga.when(Refunded(order_id=O1)).published == [Refused(order_id=O1)]
    assert (saga.status, saga.timers) == ("compensated", {})


def test_a_step_that_fails_is_not_taken_back_but_one_in_doubt_is() -> None:
    failed = SagaTest(order_saga()).given(PLACED, PAID).when(OutOfStock(order_id=O1))
    assert failed.published == [Refund(order_id=O1)]
    late = SagaTest(order_saga()).given(PLACED, PAID).wait(timedelta(minutes=1))
    assert late.published == [Release(order_id=O1), Refund(order_id=O1)]
    assert late.reason == "stock was not answered in time"


def test_a_late_answer_is_noted_and_ignored() -> None:
    saga = SagaTest(order_saga()).given(PLACED).wait(timedelta(minutes=5))
    assert saga.published == [Refund(order_id=O1)]
    assert saga.when(PAID).published == []
    assert "nobody waits" in saga.journal[-1]
    assert saga.when(Refunded(order_id=O1)).status == "compensated"
    assert saga.when(PAID).published == []
    assert saga.journal[-1] == "ignored: the saga is compensated"


def test_an_answer_twice_asks_for_nothing_twice() -> None:
    saga = SagaTest(order_saga()).given(PLACED, PAID).when(PAID)
    assert (saga.published, saga.state.done) == ([], ["payment"])
    assert saga.when(PLACED).published == []
    assert saga.journal[-1] == "ignored: the saga has begun already"


def test_an_answer_to_no_saga_is_nothing() -> None:
    assert SagaTest(order_saga()).when(PAID).status is None


@pytest.mark.parametrize("by", ["an event", "an operator"])
def test_it_is_called_off(by: str) -> None:
    saga = SagaTest(order_saga()).given(PLACED, PAID)
    saga = saga.when(OrderCalledOff(order_id=O1)) if by == "an event" else saga.cancelled("a mistake")
    assert saga.published == [Release(order_id=O1), Refund(order_id=O1)]
    assert saga.when(OrderCalledOff(order_id=O1)).published == []
    assert saga.cancelled().published == []


@pytest.mark.parametrize("how", ["failed", "late"])
def test_a_compensation_that_fails_for_good_leaves_it_stuck(how: str) -> None:
    saga = SagaTest(order_saga()).given(PLACED, PAID, OutOfStock(order_id=O1))
    saga = saga.when(RefundFailed(order_id=O1)) if how == "failed" else saga.wait(timedelta(minutes=5))
    assert (saga.status, saga.published, saga.timers) == ("stuck", [], {})
    assert saga.reason is not None
    assert "compensation of payment" in saga.reason
    assert saga.resumed().published == [Refund(order_id=O1)]
    assert (saga.status, saga.timers) == ("compensating", {"undo payment": timedelta(minutes=5)})
    assert saga.when(Refunded(order_id=O1)).status == "compensated"


def test_a_stuck_saga_goes_on_by_hand_or_by_a_late_answer() -> None:
    by_hand = SagaTest(order_saga()).given(PLACED, PAID, OutOfStock(order_id=O1), RefundFailed(order_id=O1)).skipped()
    assert (by_hand.published, by_hand.status) == ([Refused(order_id=O1)], "compensated")
    late = SagaTest(order_saga()).given(PLACED, PAID, OutOfStock(order_id=O1), RefundFailed(order_id=O1))
    assert late.when(Refunded(order_id=O1)).status == "compensated"
    assert SagaTest(order_saga()).given(PLACED).resumed().published == []


def test_running_sagas_do_a_step_that_a_deploy_adds() -> None:
    old = SagaTest(order_saga(PAYMENT, SHIPPING)).given(PLACED)
    new = SagaTest(order_saga(PAYMENT, STOCK, SHIPPING))
    new._row = old._row
    assert new.when(PAID).published == [Reserve(order_id=O1)]
    first = SagaTest(order_saga(STOCK, PAYMENT, SHIPPING))
    first._row = old._row
    assert first.when(PAID).published == [Reserve(order_id=O1)]
    assert first.when(RESERVED).published == [Ship(order_id=O1)]
    assert first.when(NotShipped(order_id=O1)).published == [Release(order_id=O1), Refund(order_id=O1)]


def test_a_step_that_is_gone_parks_and_one_retired_is_taken_back() -> None:
    old = SagaTest(order_saga()).given(PLACED, PAID, RESERVED)
    gone = SagaTest(order_saga(STOCK, SHIPPING))
    gone._row = old._row
    with pytest.raises(SagaNotReadableError, match="stands at payment"):
        gone.when(NotShipped(order_id=O1))
    from msgspec.structs import replace

    retired = SagaTest(order_saga(replace(PAYMENT, retired=True), STOCK, SHIPPING))
    retired._row = old._row
    assert retired.when(NotShipped(order_id=O1)).published == [Release(order_id=O1), Refund(order_id=O1)]
    fresh = SagaTest(order_saga(replace(PAYMENT, retired=True), STOCK, SHIPPING))
    assert fresh.when(PLACED).published == [Reserve(order_id=O1)]


class Nameless(Event, name="t.nameless"):
    other: str


ASKS = {"ask": lambda facts: PLACED, "confirmed_by": Shipped}


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ([], "has no steps"),
        ([SHIPPING, SHIPPING], "two are"),
        ([Step(name="a", ask=ASKS["ask"], confirmed_by=Nameless)], "field 'order_id'"),
        ([Step(name="a", **ASKS, failed_by=Shipped)], "two uses for Shipped"),
        ([Step(name="a", **ASKS, compensated_by=Refunded)], "never taken back"),
        ([Step(name="a", **ASKS, compensate=ASKS["ask"], compensation_failed_by=Refunded)], "compensated_by"),
        ([Step(name="a", **ASKS, within=timedelta(0))], "positive length"),
    ],
)
def test_a_wrong_declaration_says_what_to_do(broken: list[Step], says: str) -> None:
    with pytest.raises(SagaDefinitionError, match=says):
        steps("order", starts=OrderPlaced, by="order_id", steps=broken)
