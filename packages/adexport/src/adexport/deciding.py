"""What is asked of an export, and what becomes of it: the decider, pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec

from adexport.events import (
    About,
    AdExportRequested,
    ExportAdopted,
    ExportCancelled,
    ExportCompleted,
    ExportExpired,
    ExportFailed,
    ExportPlanned,
    FailedCell,
    FilesAskedAgain,
    FilesFailed,
    FilesMade,
    GeneratedFile,
)
from adexport.export import Check, Standing, State, check, deadline, ending, require_cancellable, require_retryable
from adexport.life import Export, ExportEvent, bits, evolve, is_set, number, tallies
from tidings import Decider, Snapshots


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is asked of an export."""

    export_id: str


class Ask(Command, frozen=True, kw_only=True):
    """Make these files."""

    about: About
    snapshot: str
    files: int
    now: datetime


class Plan(Command, frozen=True, kw_only=True):
    """The files that are missing in this round fit into so many batches: begin with them."""

    round: int
    files: int
    batches: int


class TakeFiles(Command, frozen=True, kw_only=True):
    """These files are stored."""

    files: Sequence[GeneratedFile]
    now: datetime


class TakeFailures(Command, frozen=True, kw_only=True):
    """These files cannot be made, in this round."""

    round: int
    cells: Sequence[FailedCell]
    now: datetime


class CheckUp(Command, frozen=True, kw_only=True):
    """The timer went off that was set when `settled` files were. With `may_ask` what is missing can be asked for."""

    round: int
    settled: int
    now: datetime
    may_ask: bool = True


class Cancel(Command, frozen=True, kw_only=True):
    """Make no more files."""

    now: datetime


class Retry(Command, frozen=True, kw_only=True):
    """Make what is not done, after all."""

    now: datetime


class Expire(Command, frozen=True, kw_only=True):
    """It has been kept for long enough since the end of this round."""

    round: int


class Adopt(Command, frozen=True, kw_only=True):
    """It is in the table of the release before."""

    found: ExportAdopted


def decide(command: Command, export: Export) -> list[ExportEvent]:
    """What is asked of an export becomes facts, or nothing. Raises NotNowError."""
    match command:
        case Ask():
            return _ask(command, export)
        case Adopt():
            return [] if export.standing is not None else [command.found]
        case TakeFiles():
            return _take_files(command, export)
        case TakeFailures():
            return _take_failures(command, export)
        case CheckUp():
            return _check_up(command, export)
        case _:
            return _steer(command, export)


def _steer(command: Command, export: Export) -> list[ExportEvent]:
    """What people and planning ask for."""
    if export.standing is None or export.expired:
        return []
    match command:
        case Plan(export_id=name, round=round, files=files, batches=batches):
            new = export.standing.state is State.PENDING and export.standing.round == round
            return [ExportPlanned(export_id=name, round=round, files=files, batches=batches)] if new else []
        case Cancel(export_id=name, now=now):
            require_cancellable(export.standing)
            standing = export.standing
            return [ExportCancelled(export_id=name, round=standing.round, done=standing.done, ended_at=now)]
        case Retry():
            return _retry(command, export, export.standing)
        case Expire(export_id=name, round=round):
            over = not export.standing.active and export.standing.round == round
            return [ExportExpired(export_id=name)] if over else []
    raise TypeError(command)


def _ask(command: Ask, export: Export) -> list[ExportEvent]:
    if export.standing is not None:
        return []
    return [
        AdExportRequested(
            export_id=command.export_id,
            round=1,
            snapshot=command.snapshot,
            files=command.files,
            about=command.about,
            started_at=command.now,
            deadline=deadline(command.now, command.about.estimate_seconds),
        )
    ]


def _retry(command: Retry, export: Export, standing: Standing) -> list[ExportEvent]:
    require_retryable(standing)
    assert export.about is not None  # it was asked for
    return [
        AdExportRequested(
            export_id=command.export_id,
            round=standing.round + 1,
            snapshot=export.snapshot,
            files=standing.total - standing.done,
            started_at=command.now - export.awaited(export.ended_at),
            deadline=deadline(command.now, export.about.estimate_seconds),
        )
    ]


def _take_files(command: TakeFiles, export: Export) -> list[ExportEvent]:
    """A file beats a failure: the late success of an earlier try counts while the export is active."""
    standing = export.active
    if standing is None:
        return []
    awaited = standing.every & ~number(export.made)
    fresh = {file.index: file for file in command.files if is_set(awaited, file.index)}
    if not fresh:
        return []
    made = FilesMade(
        export_id=command.export_id,
        round=standing.round,
        files=list(fresh),
        revived=(bits(fresh) & number(export.lost)).bit_count(),
        formats=tallies((file.format, file.bytes) for file in fresh.values()),
    )
    return [made, *_end(command.export_id, evolve(export, made), command.now)]


def _take_failures(command: TakeFailures, export: Export) -> list[ExportEvent]:
    standing = export.active
    if standing is None or standing.round != command.round:
        return []
    awaited = standing.every & ~(number(export.made) | number(export.lost))
    fresh = {cell.index: cell for cell in command.cells if is_set(awaited, cell.index)}
    if not fresh:
        return []
    failed = FilesFailed(
        export_id=command.export_id,
        round=standing.round,
        files=list(fresh),
        causes=dict(Counter(cell.cause for cell in fresh.values())),
        reason=next(iter(fresh.values())).reason,
    )
    return [failed, *_end(command.export_id, evolve(export, failed), command.now, failed.reason)]


def _check_up(command: CheckUp, export: Export) -> list[ExportEvent]:
    name, standing = command.export_id, export.active
    if standing is None:
        return []
    verdict = check(standing, round=command.round, settled_before=command.settled, now=command.now)
    if verdict is Check.ASK_AGAIN and command.may_ask:
        return [FilesAskedAgain(export_id=name, round=standing.round, files=standing.missing)]
    if verdict is not Check.GIVE_UP:
        return []
    plural = "" if standing.missing == 1 else "s"
    ended = ExportFailed(
        export_id=name,
        round=standing.round,
        done=standing.done,
        failed=standing.failed + standing.missing,
        reason=f"{standing.missing} file{plural} not ready by the deadline.",
        overdue=standing.missing,
        ended_at=command.now,
    )
    return [ended]


def _end(name: str, export: Export, now: datetime, why: str = "") -> list[ExportEvent]:
    """How an export ends after its newest results, if it does; `why` the last of them failed."""
    standing = export.standing
    end = ending(standing) if standing is not None else None
    if standing is None or end is None:
        return []
    round, done, failed = standing.round, standing.done, standing.failed
    if end is State.DEAD:
        reason = f"No file could be made. {why}"
        return [ExportFailed(export_id=name, round=round, done=done, failed=failed, reason=reason, ended_at=now)]
    ended = ExportCompleted(
        export_id=name,
        round=round,
        done=done,
        failed=failed,
        total_bytes=export.weight,
        seconds=export.awaited(now).total_seconds(),
        ended_at=now,
    )
    return [ended]


def stream_of(export_id: str) -> str:
    """The name of an export's stream."""
    return f"export-{export_id}"


EXPORT: Decider[Command, Export, ExportEvent] = Decider(
    name="adexport.export",
    initial=Export,
    decide=decide,
    evolve=evolve,
    events=(
        AdExportRequested,
        ExportPlanned,
        FilesMade,
        FilesFailed,
        FilesAskedAgain,
        ExportCompleted,
        ExportFailed,
        ExportCancelled,
        ExportExpired,
        ExportAdopted,
    ),
    stream=lambda command: stream_of(command.export_id),
    snapshots=Snapshots(Export, every=50),
)
