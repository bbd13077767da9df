"""The life of an export: what is known of it, event by event. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from adexport.events import (
    About,
    AdExportRequested,
    ExportAdopted,
    ExportCancelled,
    ExportCompleted,
    ExportExpired,
    ExportFailed,
    ExportPlanned,
    FilesAskedAgain,
    FilesFailed,
    FilesMade,
    Tally,
)
from adexport.export import Standing, State

ExportEvent = (
    AdExportRequested
    | ExportPlanned
    | FilesMade
    | FilesFailed
    | FilesAskedAgain
    | ExportCompleted
    | ExportFailed
    | ExportCancelled
    | ExportExpired
    | ExportAdopted
)


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be known of an export as a whole.

    Bit n of `made` is set when file n is ready, bit n of `lost` when it failed in this round; both as bytes, the lowest
    first. `entries` is the length of its timeline. `standing` and `about` are None before it is asked for.
    """

    standing: Standing | None = None
    about: About | None = None
    made: bytes = b""
    lost: bytes = b""
    weight: int = 0
    snapshot: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure: str | None = None
    entries: int = 0
    expired: bool = False

    @property
    def active(self) -> Standing | None:
        """Its standing while results are awaited."""
        return self.standing if self.standing is not None and self.standing.active else None

    def awaited(self, until: datetime | None) -> timedelta:
        """How long it was awaited until then, without the time between an end and a retry."""
        return until - self.started_at if self.started_at is not None and until is not None else timedelta()


def evolve(export: Export, event: ExportEvent) -> Export:
    """The export after an event. Facts from before exports had streams, and unknown ones, change nothing."""
    match event:
        case ExportAdopted():
            return _adopted(event)
        case AdExportRequested():
            return _asked(export, event)
        case ExportExpired():
            return replace(export, expired=True)
    standing = export.standing
    if standing is None:
        return export
    return replace(_progressed(export, standing, event), entries=export.entries + 1)


def _progressed(export: Export, standing: Standing, event: ExportEvent) -> Export:
    made, lost = number(export.made), number(export.lost)
    match event:
        case ExportPlanned():
            return replace(export, standing=replace(standing, state=State.RUNNING))
        case FilesMade(files=files, formats=formats):
            gained = bits(files)
            weight = export.weight + sum(each.bytes for each in formats.values())
            return replace(_counted(export, standing, made | gained, lost & ~gained), weight=weight)
        case FilesFailed(files=files):
            return _counted(export, standing, made, lost | bits(files))
        case ExportFailed(overdue=overdue, reason=reason) if overdue:
            counted = _counted(export, standing, made, standing.every & ~made)
            return _over(counted, State.DEAD, event.ended_at, failure=reason)
        case ExportFailed(reason=reason):
            return _over(export, State.DEAD, event.ended_at, failure=reason)
        case ExportCompleted():
            return _over(export, State.DONE, event.ended_at)
        case ExportCancelled():
            return _over(export, State.CANCELLED, event.ended_at)
    return export


def _asked(export: Export, event: AdExportRequested) -> Export:
    about = event.about or export.about
    if event.deadline is None or about is None:
        return export
    done = number(export.made).bit_count()
    standing = Standing(
        state=State.PENDING,
        round=event.round,
        total=event.files + done,
        done=done,
        failed=0,
        deadline=event.deadline,
    )
    return replace(
        export,
        standing=standing,
        about=about,
        lost=b"",
        snapshot=event.snapshot,
        created_at=export.created_at or event.started_at,
        started_at=event.started_at,
        ended_at=None,
        failure=None,
        entries=export.entries + 1,
    )


def _adopted(event: ExportAdopted) -> Export:
    standing = Standing(
        state=State(event.state),
        round=event.round,
        total=event.total,
        done=len(event.made),
        failed=len(event.lost),
        deadline=event.deadline,
    )
    return Export(
        standing=standing,
        about=event.about,
        made=packed(bits(event.made)),
        lost=packed(bits(event.lost)),
        weight=sum(each.bytes for each in event.formats.values()),
        snapshot=event.snapshot,
        created_at=event.created_at,
        started_at=event.started_at,
        ended_at=event.finished_at,
        failure=event.failure,
        entries=event.entries,
    )


def _counted(export: Export, standing: Standing, made: int, lost: int) -> Export:
    counts = replace(standing, done=made.bit_count(), failed=lost.bit_count())
    return replace(export, standing=counts, made=packed(made), lost=packed(lost))


def _over(export: Export, state: State, ended_at: datetime | None, failure: str | None = None) -> Export:
    assert export.standing is not None  # of an export that was asked for
    standing = replace(export.standing, state=state)
    return replace(export, standing=standing, ended_at=ended_at, failure=failure)


def bits(indexes: Iterable[int]) -> int:
    """A number with these bits set."""
    value = 0
    for index in indexes:
        value |= 1 << index
    return value


def number(content: bytes) -> int:
    """What `packed` made bytes of."""
    return int.from_bytes(content, "little")


def packed(value: int) -> bytes:
    """A number as bytes, the lowest first."""
    return value.to_bytes((value.bit_length() + 7) // 8, "little")


def is_set(value: int, index: int) -> bool:
    """Whether a bit of a number is set."""
    return index >= 0 and bool(value >> index & 1)


def tallies(files: Iterable[tuple[str, int]]) -> dict[str, Tally]:
    """Files given as (name of the group, bytes), counted by group."""
    counts, weights = Counter[str](), Counter[str]()
    for name, weight in files:
        counts[name] += 1
        weights[name] += weight
    return {name: Tally(count, weights[name]) for name, count in counts.items()}
