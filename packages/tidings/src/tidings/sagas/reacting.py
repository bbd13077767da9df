"""One step of a saga as a pure function: its row and an event in; the next row, and what shall happen, out."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tidings.errors import SagaDefinitionError, SagaNotReadableError
from tidings.events import Envelope, Event, Registry
from tidings.rows import COMPENSATING, FINISHED, RUNNING, STUCK, SagaNote, SagaRow
from tidings.sagas.definition import CANCEL, CORRELATION, RESUME, SKIP, TIMER, Definition, Signal
from tidings.sagas.saga import Saga, as_json, fresh_state
from tidings.world import microseconds, moment

FIRST_NOTES, LAST_NOTES = 10, 40
"""Lines of a saga's journal that are kept: from its beginning, and the newest."""


class Timer(Struct, frozen=True):
    """A timer that was started: the id of its signal, its name, and when it is due."""

    id: str
    name: str
    due: datetime


class Reaction(Struct, frozen=True):
    """What one event brings: the next row, and what leaves the saga with it. `cancelled`: ids of signals."""

    row: SagaRow
    published: tuple[tuple[Event, datetime | None], ...] = ()
    timers: tuple[Timer, ...] = ()
    cancelled: tuple[str, ...] = ()


class Happening(Struct, frozen=True):
    """An event on its way to a saga. `signal_id` makes the id of a timer's signal, the same on every attempt."""

    event: Event
    envelope: Envelope
    now: datetime
    source: str
    signal_id: Callable[[str], str]


def saga_id(definition: Definition, event: Event, envelope: Envelope) -> str:
    """Return the id of the saga that an event is for."""
    if isinstance(event, Signal):
        return event.saga_id
    by = definition.routes[envelope.type].by
    return envelope.correlation if by == CORRELATION else str(getattr(event, by))


def react(
    cls: type[Saga[Any]], row: SagaRow | None, happening: Happening, registry: Registry, keep: timedelta
) -> Reaction | None:
    """Return what an event does to a saga; None if it is for none that has begun.

    Raises SagaNotReadableError when this release cannot go on with the saga, and whatever its methods raise.
    """
    definition = cls.__saga__
    if row is None:
        row = _begun(definition, happening)
        if row is None:
            return None
    elif why := _unwanted(definition, row, happening):
        return Reaction(_written(row, happening, f"ignored: {why}"))
    saga = _alive(cls, row, happening.now, registry)
    _call(definition, saga, happening)
    return _reaction(saga, row, happening, keep)


def _begun(definition: Definition, happening: Happening) -> SagaRow | None:
    route = definition.routes.get(happening.envelope.type)
    if route is None or not route.starts:
        return None
    now = microseconds(happening.now)
    found = saga_id(definition, happening.event, happening.envelope)
    return SagaRow(definition.name, found, RUNNING, 0, definition.version, b"", started=now, updated=now)


def _unwanted(definition: Definition, row: SagaRow, happening: Happening) -> str | None:
    """Say why an event is not for this saga in its state; None if it is."""
    event = happening.event
    if isinstance(event, Signal) and happening.envelope.source != happening.source:
        return f"a signal of {happening.envelope.source}, which is not this service"
    if row.status in FINISHED:
        return f"the saga is {row.status}"
    if isinstance(event, Signal):
        return _unwanted_signal(row, event, happening.envelope)
    if definition.routes[happening.envelope.type].starts:
        return "the saga has begun already"
    return None


def _unwanted_signal(row: SagaRow, event: Signal, envelope: Envelope) -> str | None:
    if event.kind == TIMER and row.timers.get(event.name) != envelope.id:
        return f"the timer {event.name!r} was cancelled, or started anew"
    if event.kind in (RESUME, SKIP) and row.status != STUCK:
        return f"the saga is {row.status}, not stuck"
    return None


def _alive(cls: type[Saga[Any]], row: SagaRow, now: datetime, registry: Registry) -> Saga[Any]:
    if lacking := cls.lacks(row.needs):
        raise SagaNotReadableError(
            f"Saga {row.saga} {row.id} stands at {', '.join(lacking)}, which this release does not have: deploy one "
            "that has, or bring the step back with retired=True."
        )
    saga = cls(row.id, now, row.status, dict(row.timers), registry)
    saga.state = _state(cls.__saga__, row)
    saga.reason = row.reason
    return saga


def _state(definition: Definition, row: SagaRow) -> Any:
    if row.version == 0:
        return fresh_state(definition)
    if row.state_version > definition.version:
        raise SagaNotReadableError(
            f"Saga {row.saga} {row.id} has a state of version {row.state_version}, but this release reads up to "
            f"{definition.version}; deploy the release that knows it."
        )
    data = row.state
    try:
        if row.state_version < definition.version:
            document = msgspec.json.decode(data)
            for version in range(row.state_version, definition.version):
                document = definition.upcasts[version](document)
            data = msgspec.json.encode(document)
        return definition.reader.decode(data)
    except Exception as error:  # whatever an upcaster raises
        raise SagaDefinitionError(
            f"The state of saga {row.saga} {row.id}, version {row.state_version}, does not fit "
            f"{definition.state.__name__}: {type(error).__name__}: {error}. Raise the saga's version with every change "
            "of its state, and write the upcaster."
        ) from error


def _call(definition: Definition, saga: Saga[Any], happening: Happening) -> None:
    event = happening.event
    if not isinstance(event, Signal):
        getattr(saga, definition.routes[happening.envelope.type].method)(event)
    elif event.kind == TIMER:
        del saga.timers[event.name]
        saga.note(f"timer {event.name!r} was due")
        getattr(saga, definition.timers[event.name])()
    else:
        saga.note(f"{event.kind} by {event.actor}: {event.reason}")
        asked: dict[str, Callable[[], None]] = {
            RESUME: saga.resumed,
            SKIP: saga.skipped,
            CANCEL: lambda: saga.cancelled(event.reason),
        }
        asked[event.kind]()


def _reaction(saga: Saga[Any], row: SagaRow, happening: Happening, keep: timedelta) -> Reaction:
    ended = saga.status in FINISHED
    wanted = {} if ended else saga.timers
    started = {name: due for name, due in wanted.items() if isinstance(due, int)}
    ids = {name: happening.signal_id(name) for name in started}
    kept = {name: due for name, due in wanted.items() if isinstance(due, str)}
    now = microseconds(happening.now)
    after = replace(
        row,
        status=saga.status,
        state_version=saga.__saga__.version,
        state=as_json(saga.__saga__, saga.state),
        needs=saga.needs() if not ended else (),
        timers={**kept, **ids},
        reason=saga.reason if saga.status in (COMPENSATING, STUCK) or ended else None,
        expires=now + keep // timedelta(microseconds=1) if ended else None,
    )
    return Reaction(
        _written(after, happening, "; ".join(saga.notes)),
        tuple(saga.published),
        tuple(Timer(ids[name], name, moment(due)) for name, due in started.items()),
        tuple(one for name, one in row.timers.items() if kept.get(name) != one and one != happening.envelope.id),
    )


def _written(row: SagaRow, happening: Happening, text: str) -> SagaRow:
    """Return the row in its next version, with a line in its journal."""
    now = microseconds(happening.now)
    note = SagaNote(now, happening.envelope.type, happening.envelope.id, row.status, text)
    journal = (*row.journal, note)
    if len(journal) > FIRST_NOTES + LAST_NOTES:
        journal = (*journal[:FIRST_NOTES], *journal[-LAST_NOTES:])
    return replace(row, version=row.version + 1, journal=journal, updated=now)
