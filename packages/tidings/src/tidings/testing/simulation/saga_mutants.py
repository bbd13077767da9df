"""Bugs of sagas that others have shipped, planted into the real code: the simulation must find every one of them."""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from tidings.publishing.transaction import Transaction
from tidings.rows import SagaRow
from tidings.sagas import reacting
from tidings.sagas.coordinator import Coordinator
from tidings.sagas.reacting import Reaction
from tidings.sagas.steps import StepSaga
from tidings.testing.simulation.planting import Patch

SAGA_MUTANTS: dict[str, Callable[[], list[Patch]]] = {}
"""Name -> the patches of one planted bug."""


def _mutant(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    SAGA_MUTANTS[make.__name__.removeprefix("_")] = make
    return make


@_mutant
def _timer_after_completion() -> list[Patch]:
    """Timers go on when their saga has ended."""
    reaction = reacting._reaction

    def left(*args: Any) -> Reaction:
        made = reaction(*args)
        return replace(made, cancelled=()) if made.row.expires is not None else made

    return [(reacting, "_reaction", left)]


@_mutant
def _cancelled_timer_still_counts() -> list[Patch]:
    """A timer that is an event already when it is cancelled is taken for one that runs."""

    def call(definition: Any, saga: Any, happening: Any) -> None:
        saga.timers.setdefault(getattr(happening.event, "name", ""), "")
        before(definition, saga, happening)
        saga.timers.pop("", None)

    before = reacting._call
    return [(reacting, "_unwanted_signal", lambda row, event, envelope: None), (reacting, "_call", call)]


@_mutant
def _double_compensation() -> list[Patch]:
    """An answer that comes twice asks for what follows twice: nobody looks what it answers."""
    answered = StepSaga.answered

    def again(self: StepSaga, event: Any) -> None:
        waiting = list(self.state.undo)
        answered(self, event)
        if waiting and waiting == self.state.undo and self.status == "compensating":
            self._ask_to_undo()

    return [(StepSaga, "answered", again)]


@_mutant
def _compensation_in_the_order_of_the_steps() -> list[Patch]:
    """The oldest step is taken back first."""
    ask = StepSaga._ask_to_undo

    def forward(self: StepSaga) -> None:
        self.state.undo.sort(key=list(self.plan.steps).index)
        ask(self)

    return [(StepSaga, "_ask_to_undo", forward)]


@_mutant
def _step_in_doubt_forgotten() -> list[Patch]:
    """A step that was not answered in time counts as not done."""
    take_back = StepSaga._take_back

    def without(self: StepSaga, reason: str, *, in_doubt: bool) -> None:
        take_back(self, reason, in_doubt=False)

    return [(StepSaga, "_take_back", without)]


@_mutant
def _state_saved_outside_the_transaction() -> list[Patch]:
    """The state is saved in a second transaction, after the first has committed."""

    async def save(self: Coordinator, tx: Transaction, row: SagaRow) -> bool:
        store: Any = tx._store
        asyncio.ensure_future(store.run(lambda statements: statements.save_saga(row)))  # noqa: RUF006 - that is the bug
        return True

    return [(Coordinator, "_save", save)]


@_mutant
def _events_published_outside_the_transaction() -> list[Patch]:
    """What a saga asks for is published in a second transaction: a crash between the two loses it."""
    publish = Coordinator._publish

    async def later(self: Coordinator, tx: Transaction, reaction: Reaction) -> None:
        await publish(self, tx, replace(reaction, published=()))
        store: Any = tx._store
        envelopes = [tx._producer.wrap(event, tx._cause) for event, _ in reaction.published]
        if envelopes:
            asyncio.ensure_future(store.publish(envelopes))  # noqa: RUF006 - that is the bug

    return [(Coordinator, "_publish", later)]


class _ConflictError(Exception):
    """Somebody else was faster."""


@_mutant
def _conflict_counted_as_failure() -> list[Patch]:
    """A saga that another transaction has changed meanwhile raises."""
    save = Coordinator._save

    async def raising(self: Coordinator, tx: Transaction, row: SagaRow) -> bool:
        if not await save(self, tx, row):
            raise _ConflictError(f"{row.saga} {row.id} was changed")
        return True

    return [(Coordinator, "_save", raising)]


@_mutant
def _conflict_taken_for_saved() -> list[Patch]:
    """Nobody looks whether the state was saved."""
    save = Coordinator._save

    async def blind(self: Coordinator, tx: Transaction, row: SagaRow) -> bool:
        await save(self, tx, row)
        return True

    return [(Coordinator, "_save", blind)]


@_mutant
def _answer_to_a_finished_saga() -> list[Patch]:
    """An answer that comes after the end goes on with the saga."""
    return [(reacting, "FINISHED", ())]


@_mutant
def _first_event_twice() -> list[Patch]:
    """A second first event begins the saga anew."""
    unwanted = reacting._unwanted

    def again(*args: Any) -> str | None:
        why = unwanted(*args)
        return None if why == "the saga has begun already" else why

    return [(reacting, "_unwanted", again)]
