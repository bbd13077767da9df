"""Reading streams: pages of rows from the store, turned into typed events of today's classes."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from tidings.errors import StreamArchivedError
from tidings.events import Envelope, Event, Registry, decode_event, event_type, parse_version, reader
from tidings.statements import RecordedRow, StreamStatements
from tidings.world import moment

PAGE = 1000
"""Events that one statement reads at most: on SQLite the loop waits some 2 ms for them."""

NO_END = 2**62
"""A version after every other."""


class Recorded(Struct, frozen=True, gc=False):
    """An event as it was recorded: `version` counts from 1 in its stream, `position` is global.

    `event` is of the newest class, whatever version was written. `microseconds` is its time since 1970 UTC.
    """

    event: Event
    position: int
    stream: str
    version: int
    id: str
    source: str
    microseconds: int
    correlation: str
    causation: str | None

    @property
    def time(self) -> datetime:
        """When it was recorded, in UTC."""
        return moment(self.microseconds)


class Reader:
    """Turns rows (columns.RECORDED_COLUMNS) into events, upcast to the newest registered class."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._decoders: dict[tuple[str, str], Callable[[bytes], Event] | None] = {}

    def events(self, rows: Iterable[RecordedRow]) -> list[Event]:
        """Return the events of rows; raises ParkedEventError, EventDecodeError."""
        found: list[Event] = []
        name = version = decode = None
        for row in rows:
            # Most follow one of their own kind: to look each one's up by name would take a third of the time.
            if row[3] != name or row[4] != version:
                name, version = row[3], row[4]
                decode = self._known_decoder(name, version)
            try:
                event = decode(row[10]) if decode is not None else None
            except Exception:
                event = None
            found.append(event if event is not None else self._any(row))
        return found

    def recorded(self, rows: Sequence[RecordedRow]) -> list[Recorded]:
        """Return the events of rows, each with its place; raises as `events` does."""
        return [
            Recorded(event, position, stream, number, id, source, time, correlation, causation)
            for event, (position, stream, number, _, _, id, source, time, correlation, causation, _) in zip(
                self.events(rows), rows, strict=True
            )
        ]

    def _any(self, row: RecordedRow) -> Event:
        """Return the event of any row, or say why it cannot be read."""
        return decode_event(_envelope(row), self._registry)

    def _known_decoder(self, name: str, version: str) -> Callable[[bytes], Event] | None:
        kind = name, version
        if kind not in self._decoders:
            self._decoders[kind] = self._decoder(name, version)
        return self._decoders[kind]

    def _decoder(self, name: str, version: str) -> Callable[[bytes], Event] | None:
        """Return what reads the bytes as they are; None where upcasters must come between."""
        cls, parsed = self._registry.newest(name), parse_version(version)
        if cls is None or parsed is None or parsed[0] != event_type(cls).major:
            return None
        return reader(cls).decode


def _envelope(row: RecordedRow) -> Envelope:
    return Envelope(
        id=row[5],
        source=row[6],
        type=row[3],
        time=moment(row[7]),
        correlation=row[8],
        data=row[10],
        causation=row[9],
        version=row[4],
        stream=row[1],
        stream_version=row[2],
    )


async def pages_of_stream(
    statements: StreamStatements,
    stream: str,
    *,
    after: int = 0,
    before: int = NO_END,
    since: int = 0,
    backward: bool = False,
    archived: bool = False,
) -> AsyncIterator[Sequence[Any]]:
    """Yield the rows of a stream, page by page; raises StreamArchivedError unless archived ones are asked for."""
    first = True
    while True:
        rows = await statements.stream_events(stream, after, before, since, PAGE, backward=backward, archived=archived)
        if rows:
            yield rows
        elif first and not archived:
            await _check_not_archived(statements, stream)
        if len(rows) < PAGE:
            return
        first = False
        after, before = (after, rows[-1][2]) if backward else (rows[-1][2], before)


async def _check_not_archived(statements: StreamStatements, stream: str) -> None:
    head = await statements.stream_head(stream)
    if head is not None and head.archived is not None:
        raise StreamArchivedError(
            f"Stream {stream!r} has been archived since {moment(head.archived):%Y-%m-%d}: read it with archived=True, "
            "or bring it back with restore_stream()."
        )


async def pages_of_all(
    statements: StreamStatements, *, after: int, prefix: str, archived: bool
) -> AsyncIterator[Sequence[Any]]:
    """Yield the rows of all streams after a position, in global order, up to the newest."""
    while True:
        rows, scanned = await statements.events_of_streams(after, prefix, PAGE, archived=archived)
        if rows:
            yield rows
        if scanned <= after:
            return
        after = scanned


async def pages_of_all_back(
    statements: StreamStatements, *, before: int | None, down_to: int, prefix: str, archived: bool
) -> AsyncIterator[Sequence[Any]]:
    """Yield the rows of all streams before a position (None: the newest on) and after another, the last one first."""
    while before is None or before > down_to + 1:
        rows, before = await statements.events_of_streams_back(before, prefix, PAGE, archived=archived)
        rows = [row for row in rows if row[0] > down_to]
        if rows:
            yield rows
