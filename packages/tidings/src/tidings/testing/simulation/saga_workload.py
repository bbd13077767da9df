"""The simulated services of a saga: an order of three steps and a quote, with troubles written into the events."""

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

from msgspec import Struct

from tidings.consuming.retry import RetryPolicy
from tidings.events import Event
from tidings.publishing.transaction import Transaction
from tidings.sagas.saga import Saga, on, on_timer, starts
from tidings.sagas.steps import Facts, Step, steps
from tidings.service import Service

SOURCE = "sim"
STEPS = ("pay", "stock", "ship")
UNDOABLE = ("pay", "stock")

LIMIT = 5.0
"""Seconds in which a step, or its compensation, must be answered."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS parts (order_id TEXT, step TEXT, state TEXT, PRIMARY KEY (order_id, step));
CREATE TABLE IF NOT EXISTS saga_failures (failures BLOB);
CREATE TRIGGER IF NOT EXISTS saga_failed AFTER INSERT ON tidings_held
WHEN new.subscription IN ('order', 'quote') AND new.failures IS NOT NULL BEGIN
  INSERT INTO saga_failures VALUES (new.failures);
END;
"""
"""What the services keep (one row for each part that was done or taken back), and every failure of a saga."""


class Trouble(Struct, frozen=True):
    """How one request goes: `how` it is answered, after `delay` seconds, and how many attempts raise before.

    `how`: ok | twice | fail (nothing was done) | silent (it was done) | deaf (nothing was done, and no answer).
    """

    how: str = "ok"
    delay: float = 0.0
    raises: int = 0


class Ordered(Event, name="sim.ordered", key="order_id"):
    """Begins a saga. `troubles`: of each step, and of "undo " and each step."""

    order_id: str
    troubles: dict[str, Trouble]


class Do(Event, name="sim.do", key="order_id"):
    """Asks for a step."""

    order_id: str
    step: str
    trouble: Trouble


class Undo(Event, name="sim.undo", key="order_id"):
    """Asks to take a step back."""

    order_id: str
    step: str
    trouble: Trouble


class Ended(Event, name="sim.ended", key="order_id"):
    """Tells how an order ended."""

    order_id: str
    how: str


class Reply(Event, abstract=True):
    """An answer; its key is not the order's, so it comes on another lane."""

    order_id: str
    answer_key: str


def _reply(step: str, what: str) -> type[Reply]:
    make: Any = type(Event)
    fields = {"__module__": __name__, "__doc__": f"The answer {what} of {step}."}
    made: type[Reply] = make("SimReply", (Reply,), fields, name=f"sim.{step}.{what}", version=1, key="answer_key")
    return made


REPLIES = {(step, what): _reply(step, what) for step in STEPS for what in ("done", "failed", "undone", "undo-failed")}


class Wanted(Event, name="sim.quote.wanted", key="quote_id"):
    """Begins a quote, which waits for so many offers."""

    quote_id: str
    offers: int


class Offered(Event, name="sim.quote.offered", key="supplier"):
    """One offer; its key is not the quote's."""

    quote_id: str
    supplier: str


class Chosen(Event, name="sim.quote.chosen", key="quote_id"):
    """A quote has ended."""

    quote_id: str
    offers: int


class Offers(Struct):
    """The state of a quote."""

    wanted: int = 0
    suppliers: list[str] = []


class Quote(Saga[Offers], name="quote", by="quote_id"):
    """Waits for offers, and for a while after each."""

    @starts(Wanted)
    def begin(self, event: Wanted) -> None:
        """Wait."""
        self.state.wanted = event.offers
        self.start_timer("patience", timedelta(seconds=LIMIT))

    @on(Offered)
    def collect(self, event: Offered) -> None:
        """Take an offer, and wait on, or choose."""
        self.state.suppliers.append(event.supplier)
        self.start_timer("patience", timedelta(seconds=LIMIT))
        if len(self.state.suppliers) >= self.state.wanted:
            self.choose()

    @on_timer("patience")
    def choose(self) -> None:
        """End."""
        self.publish(Chosen(quote_id=self.id, offers=len(self.state.suppliers)))
        self.complete()


def _ask(step: str, cls: type[Do] | type[Undo], prefix: str) -> Callable[[Facts], Event]:
    def ask(facts: Facts) -> Event:
        ordered = facts[Ordered]
        return cls(order_id=ordered.order_id, step=step, trouble=ordered.troubles.get(prefix + step, Trouble()))

    return ask


def _step(name: str) -> Step:
    undoable = name in UNDOABLE
    return Step(
        name=name,
        ask=_ask(name, Do, ""),
        confirmed_by=REPLIES[name, "done"],
        failed_by=REPLIES[name, "failed"],
        within=timedelta(seconds=LIMIT),
        compensate=_ask(name, Undo, "undo ") if undoable else None,
        compensated_by=REPLIES[name, "undone"] if undoable else None,
        compensation_failed_by=REPLIES[name, "undo-failed"] if undoable else None,
    )


def _ended(how: str) -> Callable[[Facts], Event]:
    return lambda facts: Ended(order_id=facts[Ordered].order_id, how=how)


def declare(service: Service, mended: Callable[[], bool], random: Random) -> None:
    """Declare the sagas and the service that answers them. `mended`: from then on nothing fails."""
    service.schema(SCHEMA)
    service.register(Ended, Chosen, *REPLIES.values())
    options: dict[str, Any] = {"start": "beginning", "retry": RetryPolicy(attempts=3, backoff=timedelta(seconds=0.5))}
    order = steps(
        "order", starts=Ordered, by="order_id", steps=[_step(name) for name in STEPS],
        completed=_ended("completed"), compensated=_ended("compensated"),
    )  # fmt: skip
    service.saga(order, **options)
    service.saga(Quote, **options)

    def answer(tx: Transaction, event: Do | Undo, what: str, trouble: Trouble) -> None:
        for _ in range(2 if trouble.how == "twice" else 1):
            key = f"{random.randrange(1000)}"
            reply = REPLIES[event.step, what](order_id=event.order_id, answer_key=key)
            tx.publish(reply, delay=timedelta(seconds=trouble.delay))

    @service.subscribe(Do, Undo, name="parts", ordered=True, after_dead="continue", pause_after=None, **options)
    async def parts(event: Do | Undo, tx: Transaction) -> None:
        undo, trouble = isinstance(event, Undo), event.trouble
        if mended():
            trouble = Trouble()
        if trouble.how not in ("fail", "deaf"):
            await _apply(tx, event, undo)
        if trouble.how not in ("silent", "deaf"):
            failed = trouble.how == "fail"
            what = ("undo-failed" if failed else "undone") if undo else ("failed" if failed else "done")
            answer(tx, event, what, trouble)
        if tx.attempt <= trouble.raises:
            raise RuntimeError(f"attempt {tx.attempt}")


async def _apply(tx: Transaction, event: Do | Undo, undo: bool) -> None:
    """Do a part unless it was taken back before, or take it back for good."""
    if undo:
        await tx.execute("INSERT OR REPLACE INTO parts VALUES ($1, $2, 'undone')", event.order_id, event.step)
    else:
        await tx.execute("INSERT OR IGNORE INTO parts VALUES ($1, $2, 'done')", event.order_id, event.step)
