"""What must hold of every saga, checked over all that a simulation left behind."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from tidings.consuming.held import DIED_IN_IT
from tidings.rows import COMPENSATED, COMPLETED, FINISHED, STUCK, Failure, SagaRow
from tidings.statements import Statements
from tidings.testing.simulation.saga_workload import STEPS, UNDOABLE


class Told(Struct, frozen=True):
    """One event of a saga in the log."""

    position: int
    type: str
    data: dict[str, Any]


class Facts(Struct):
    """Everything the store holds at the end: sagas by name and id, the log by saga, what the parts are."""

    sagas: dict[tuple[str, str], SagaRow]
    log: dict[str, list[Told]]
    parts: dict[tuple[str, str], str]
    failures: list[Failure]
    resumed: Mapping[str, int]


async def collect(statements: Statements, resumed: Mapping[str, int]) -> Facts:
    """Read everything from the store. `resumed`: how often an operator has resumed each order."""
    rows = await statements.sagas(None, (*FINISHED, "running", "compensating", STUCK), ("", ""), 10_000)
    log: dict[str, list[Told]] = {}
    for position, kind, data in await _rows(
        statements, "SELECT position, type, data FROM tidings_log ORDER BY position"
    ):
        decoded = msgspec.json.decode(data)
        found = decoded.get("order_id") or decoded.get("quote_id") or decoded.get("saga_id")
        log.setdefault(found, []).append(Told(position, kind, decoded))
    parts = {(row[0], row[1]): row[2] for row in await _rows(statements, "SELECT order_id, step, state FROM parts")}
    kept = await _rows(statements, "SELECT failures FROM saga_failures")
    failures = [one for row in kept for one in msgspec.json.decode(row[0], type=list[Failure])]
    return Facts({(row.saga, row.id): row for row in rows}, log, parts, failures, resumed)


async def _rows(statements: Statements, sql: str) -> list[tuple[Any, ...]]:
    return (await statements.query(sql, ()))[1]


def check(facts: Facts, *, repaired: bool) -> Iterator[str]:
    """Return what is broken. `repaired`: nothing may be stuck any more."""
    for failure in facts.failures:
        if failure.error != DIED_IN_IT:
            yield f"a saga failed: {failure.error}: {failure.message}"
    for found, log in facts.log.items():
        begun = {"sim.ordered": "order", "sim.quote.wanted": "quote"}
        name = next((begun[told.type] for told in log if told.type in begun), None)
        if name is None:
            continue
        row = facts.sagas.get((name, found))
        if row is None:
            yield f"{name} {found} has no state"
            continue
        yield from _ended(row, log, repaired)
        yield from _order(row, log, facts) if name == "order" else _quote(row, log)


def _ended(row: SagaRow, log: list[Told], repaired: bool) -> Iterator[str]:
    what = f"{row.saga} {row.id}"
    if row.status not in FINISHED and (repaired or row.status != STUCK):
        yield f"{what} is still {row.status} at {row.needs}: {row.reason}"
    end = [told.position for told in log if told.type in ("sim.ended", "sim.quote.chosen")]
    if len(end) != (row.status in FINISHED):
        yield f"{what} is {row.status}, and told {len(end)} times how it ended"
    for told in log:
        if told.type.startswith("tidings.saga.") and end and told.position > end[0]:
            yield f"{what}: the signal {told.data['kind']} {told.data['name']} came after its end"
    if row.timers and row.status in (*FINISHED, STUCK):
        yield f"{what} is {row.status} and has the timers {list(row.timers)}"


def _quote(row: SagaRow, log: list[Told]) -> Iterator[str]:
    asked = next(told.data["offers"] for told in log if told.type == "sim.quote.wanted")
    for told in log:
        if told.type == "sim.quote.chosen" and told.data["offers"] > asked:
            yield f"quote {row.id} took {told.data['offers']} offers, and wanted {asked}"


def _order(row: SagaRow, log: list[Told], facts: Facts) -> Iterator[str]:
    what = f"order {row.id}"
    asked = [told.data["step"] for told in log if told.type == "sim.do"]
    undone = [told.data["step"] for told in log if told.type == "sim.undo"]
    if asked != list(STEPS[: len(asked)]):
        yield f"{what} asked for {asked}"
    once = list(dict.fromkeys(undone))
    if len(undone) > len(once) + facts.resumed.get(row.id, 0):
        yield f"{what} took back {undone}, and was resumed {facts.resumed.get(row.id, 0)} times"
    if once != [step for step in reversed(asked) if step in once]:
        yield f"{what} asked for {asked}, and took back {undone}"
    texts = [note.text for note in row.journal]
    for step in asked:
        late = row.reason == f"{step} was not answered in time"
        if late and any(f"{step} is done" in text for text in texts):
            yield f"{what}: {step} was done, and was late too"
    yield from _balance(row, asked, facts)


def _balance(row: SagaRow, asked: list[str], facts: Facts) -> Iterator[str]:
    parts = {step: facts.parts.get((row.id, step)) for step in STEPS}
    if row.status == COMPLETED and set(parts.values()) != {"done"}:
        yield f"order {row.id} is completed, and its parts are {parts}"
    if row.status == COMPENSATED:
        left = [step for step in UNDOABLE if parts[step] == "done"]
        if left:
            yield f"order {row.id} is compensated, asked for {asked}, and {left} were not taken back"
