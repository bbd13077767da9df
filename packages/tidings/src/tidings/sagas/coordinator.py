"""Runs a saga in the settling transaction of its event: load, react, save, publish."""

from datetime import timedelta
from typing import Any

from tidings.errors import SagaDefinitionError
from tidings.events import Event, Registry
from tidings.publishing.transaction import Transaction
from tidings.rows import SagaRow
from tidings.sagas.definition import TIMER
from tidings.sagas.reacting import Happening, Reaction, react, saga_id
from tidings.sagas.saga import Saga
from tidings.statements import Statements


class Coordinator:
    """The handler of a saga's subscription. `keep`: how long a finished saga is kept, so that late replies find it."""

    def __init__(self, saga: type[Saga[Any]], registry: Registry, source: str, keep: timedelta) -> None:
        self._saga = saga
        self._definition = saga.__saga__
        self._registry = registry
        self._source = source
        self._keep = keep

    async def __call__(self, event: Event, tx: Transaction) -> None:
        """Handle one event. Where another process has changed the saga meanwhile, begin again: that is no failure."""
        assert tx.envelope is not None  # it is a handler's transaction
        found = saga_id(self._definition, event, tx.envelope)
        happening = Happening(event, tx.envelope, tx.now(), self._source, tx.stable_id)
        while True:
            row = await self._load(tx, found)
            reaction = react(self._saga, row, happening, self._registry, self._keep)
            if reaction is None:
                return
            if await self._save(tx, reaction.row):
                break
        await self._publish(tx, reaction)

    async def _load(self, tx: Transaction, found: str) -> SagaRow | None:
        async with tx.speaking() as statements:
            return await statements.load_saga(self._definition.name, found)

    async def _save(self, tx: Transaction, row: SagaRow) -> bool:
        async with tx.speaking() as statements:
            return await statements.save_saga(row)

    async def _publish(self, tx: Transaction, reaction: Reaction) -> None:
        for event, at in reaction.published:
            tx.publish(event, at=at)
        for signal_id in reaction.cancelled:
            await tx.cancel(signal_id)
        for timer in reaction.timers:
            signal = self._definition.signal(saga_id=reaction.row.id, kind=TIMER, name=timer.name)
            tx.publish(signal, id=timer.id, at=timer.due)


async def check_running(statements: Statements, saga: type[Saga[Any]]) -> None:
    """Raise SagaDefinitionError if sagas under way need a step that this release does not have."""
    name = saga.__saga__.name
    for needs, number in await statements.saga_needs(name):
        if lacking := saga.lacks(needs):
            raise SagaDefinitionError(
                f"{number} running sagas {name} have come to {', '.join(lacking)}, which this release does not have: "
                "keep the step with retired=True until they have ended (`tidings saga list`)."
            )
