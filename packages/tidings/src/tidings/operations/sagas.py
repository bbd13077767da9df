"""Sagas: list them, look at one with all that it went through, let a stuck one go on, call a running one off."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from tidings.errors import OperationError
from tidings.events import Envelope, derive_id
from tidings.rows import COMPENSATING, FINISHED, RUNNING, STUCK, SagaRow
from tidings.sagas.definition import CANCEL, RESUME, SIGNALS, SKIP
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import moment

UNFINISHED = (RUNNING, COMPENSATING, STUCK)
"""States of sagas that have not ended."""

_FITS = {RESUME: (STUCK,), SKIP: (STUCK,), CANCEL: (RUNNING,)}


class SagaDetail(Struct, frozen=True):
    """One saga. `due`: when each of its timers fires (microseconds); one that is missing there is an event already."""

    row: SagaRow
    due: dict[str, int]


async def sagas(
    store: Store, *, name: str | None = None, statuses: Sequence[str] = UNFINISHED, limit: int = 100
) -> list[SagaRow]:
    """Return sagas in some states, of one name or of all, in order of name and id."""
    return await store.reading.sagas(name, statuses, ("", ""), limit)


async def saga(store: Store, name: str, saga_id: str) -> SagaDetail:
    """Return everything of one saga; raises OperationError for one that is not known."""
    row = await _known(store.reading, name, saga_id)
    due: dict[str, int] = {}
    for timer, signal_id in row.timers.items():
        for scheduled in await store.reading.scheduled(signal_id):
            due[timer] = scheduled.due
    return SagaDetail(row, due)


async def resume_saga(store: Store, name: str, saga_id: str, *, actor: str, reason: str, now: int) -> None:
    """Let a stuck saga try again what it is stuck on. Raises OperationError where it is not stuck, or not known."""
    await _signal(store, RESUME, name, saga_id, actor, reason, now)


async def skip_compensation(store: Store, name: str, saga_id: str, *, actor: str, reason: str, now: int) -> None:
    """Let a stuck saga go on with what follows: what it is stuck on was done by hand. Raises OperationError."""
    await _signal(store, SKIP, name, saga_id, actor, reason, now)


async def cancel_saga(store: Store, name: str, saga_id: str, *, actor: str, reason: str, now: int) -> None:
    """Let a running saga take back what it has done. Raises OperationError where it does not run, or is not known."""
    await _signal(store, CANCEL, name, saga_id, actor, reason, now)


async def _signal(store: Store, kind: str, name: str, saga_id: str, actor: str, reason: str, now: int) -> None:
    """Publish what an operator asks: the saga's own subscription does it, like everything that happens to a saga."""
    if not actor.strip() or not reason.strip():
        raise OperationError("A saga is changed in somebody's name and for a reason: give both.")

    async def unit(statements: Statements) -> None:
        row = await _known(statements, name, saga_id)
        if row.status not in _FITS[kind]:
            raise OperationError(f"Saga {name} {saga_id} is {row.status}: {_advice(kind, row.status)}")
        source = await _service(statements, name)
        # Of two who ask the same at once, one is heard.
        event_id = derive_id(source, saga_id, f"{name}\n{kind}\n{row.started}", row.version)
        data = {"saga_id": saga_id, "kind": kind, "actor": actor, "reason": reason}
        envelope = Envelope(
            id=event_id, source=source, type=SIGNALS + name, time=moment(now), correlation=event_id, key=saga_id,
            data=msgspec.json.encode(data),
        )  # fmt: skip
        new = await statements.admit([envelope], undated_at=now)
        if not new:
            raise OperationError(
                f"Saga {name} {saga_id} was asked to {kind} already: wait until its service has done it."
            )
        await statements.append(new)

    await store.run(unit)


def _advice(kind: str, status: str) -> str:
    if status in FINISHED:
        return "it has ended, and nothing can be asked of it any more."
    if kind == CANCEL:
        return "only one that runs is cancelled; it takes back what it did already."
    return f"only a stuck one can {kind}; look at it with `tidings saga show`."


async def _known(statements: Statements, name: str, saga_id: str) -> SagaRow:
    row = await statements.load_saga(name, saga_id)
    if row is None:
        names = sorted({saga for saga, _ in await statements.saga_counts()})
        known = ", ".join(names) or "none yet"
        raise OperationError(
            f"The store knows no saga {name} with the id {saga_id}. Check both (it has sagas named: {known}), or it "
            "ended so long ago that it was forgotten."
        )
    return row


async def _service(statements: Statements, name: str) -> str:
    for row in await statements.subscriptions():
        if row.name == name:
            return row.service
    raise OperationError(f"No service on this store runs sagas {name} any more: start one that does.")
