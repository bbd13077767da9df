"""Sagas as classes: irregular flows, free timers, states that change with their version, and wrong declarations."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace
from saga_shop import Asked, Chosen, Offer, OrderPlaced, PaymentTaken, Quote

from tidings import CORRELATION, Saga, SagaDefinitionError, SagaNotReadableError, on, on_timer, starts, upcasts
from tidings.testing import SagaTest


def offer(supplier: str, cents: int) -> Offer:
    return Offer(reference="q", supplier=supplier, cents=cents)


def test_it_ends_when_all_is_there() -> None:
    saga = SagaTest(Quote).given(Asked(quote_id="q"), offer("a", 30)).when(offer("b", 20))
    assert saga.published == [Chosen(quote_id="q", supplier="b")]
    assert (saga.status, saga.timers) == ("completed", {})
    assert saga.wait(timedelta(days=1)).published == []


def test_a_timer_that_is_started_anew_fires_once_and_later() -> None:
    saga = SagaTest(Quote).given(Asked(quote_id="q")).wait(timedelta(seconds=50))
    assert saga.when(offer("a", 30)).timers == {"patience": timedelta(minutes=1)}
    assert saga.wait(timedelta(seconds=59)).published == []
    assert saga.wait(timedelta(seconds=1)).published == [Chosen(quote_id="q", supplier="a")]
    assert saga.journal[-1] == "timer 'patience' was due"


class Two(Struct):
    cents: int
    currency: str


class Account(Saga[Two], name="account", by="order_id", version=3):
    @starts(OrderPlaced)
    def begin(self, event: OrderPlaced) -> None:
        self.state = Two(event.cents, "EUR")

    @on(PaymentTaken)
    def go_on(self, event: PaymentTaken) -> None:
        self.note(f"{self.state.cents} {self.state.currency}")

    @upcasts(1)
    @staticmethod
    def _cents(state: dict[str, Any]) -> dict[str, Any]:
        return {"cents": state["euro"] * 100}

    @upcasts(2)
    @staticmethod
    def _currency(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "currency": "EUR"}


def test_an_old_state_is_upcast_and_saved_in_its_new_version() -> None:
    saga = SagaTest(Account).given(OrderPlaced(order_id="o"))
    assert saga._row is not None
    saga._row = replace(saga._row, state_version=1, state=b'{"euro": 7}')
    saga.when(PaymentTaken(order_id="o"))
    assert saga.journal[-1] == "700 EUR"
    assert (saga.state, saga._row.state_version) == (Two(700, "EUR"), 3)


def test_a_state_of_a_newer_release_waits_for_it_and_a_broken_one_is_told() -> None:
    saga = SagaTest(Account).given(OrderPlaced(order_id="o"))
    assert saga._row is not None
    row = saga._row
    saga._row = replace(row, state_version=4)
    with pytest.raises(SagaNotReadableError, match="reads up to 3"):
        saga.when(PaymentTaken(order_id="o"))
    saga._row = replace(row, state=b'{"sum": 7}')
    with pytest.raises(SagaDefinitionError, match="does not fit Two"):
        saga.when(PaymentTaken(order_id="o"))


class Chain(Saga[Two], name="chain", by=CORRELATION):
    @starts(OrderPlaced)
    def begin(self, event: OrderPlaced) -> None:
        self.state = Two(event.cents, self.id)

    @on(PaymentTaken)
    def end(self, event: PaymentTaken) -> None:
        self.complete()


def test_it_is_found_by_the_correlation() -> None:
    saga = SagaTest(Chain).given(OrderPlaced(order_id="o"), correlation="c-1")
    assert saga.state.currency == "c-1"
    assert saga.when(PaymentTaken(order_id="other"), correlation="c-1").status == "completed"


def test_a_state_that_was_not_set_and_a_timer_that_nobody_hears_are_told() -> None:
    class Unset(Saga[Two], name="unset", by="order_id"):
        @starts(OrderPlaced)
        def begin(self, event: OrderPlaced) -> None:
            pass

        @on(PaymentTaken)
        def deaf(self, event: PaymentTaken) -> None:
            self.start_timer("deaf", timedelta(1))

    with pytest.raises(SagaDefinitionError, match="cannot be saved"):
        SagaTest(Unset).when(OrderPlaced(order_id="o"))
    saga = SagaTest(Account).given(OrderPlaced(order_id="o"))
    unset = SagaTest(Unset)
    assert saga._row is not None
    unset._row = replace(saga._row, state_version=1)
    with pytest.raises(SagaDefinitionError, match="nothing reacts to it"):
        unset.when(PaymentTaken(order_id="o"))


def test_wrong_declarations_say_what_to_do() -> None:
    def begin(self: Any, event: OrderPlaced) -> None: ...

    def declare(bases: tuple[Any, ...] = (Saga[Two],), methods: Any = None, **options: Any) -> None:
        methods = methods if methods is not None else {"begin": starts(OrderPlaced)(begin)}
        from types import new_class

        new_class("X", bases, {"name": "x", "by": "order_id", **options}, lambda body: body.update(methods))

    declare()
    with pytest.raises(SagaDefinitionError, match="cannot be named 'Not So'"):
        declare(name="Not So")
    with pytest.raises(SagaDefinitionError, match="what its state is"):
        declare(bases=(Saga,))
    with pytest.raises(SagaDefinitionError, match="never begins"):
        declare(methods={})
    with pytest.raises(SagaDefinitionError, match="which saga an event is for"):
        declare(by=None)
    with pytest.raises(SagaDefinitionError, match="version 1 cannot be read"):
        declare(version=2)
    with pytest.raises(SagaDefinitionError, match="does not have"):
        declare(by="nothing")
    timers = {"a": on_timer("t")(lambda self: None), "b": on_timer("t")(lambda self: None)}
    with pytest.raises(SagaDefinitionError, match="react to timer 't'"):
        declare(methods={**timers, "begin": starts(OrderPlaced)(begin)})
