"""What this service says: every event with its wire name and version. Never one event per file."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from tidings import Event

_NOTIFICATIONS_LAST = timedelta(days=7)


class CellOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One file to make: `row` is an index (from 0) into the snapshot's rows, `index` names the cell in its export.

    `key` is equal for equal files (design, fields, size, format, limit, engine): the name under which it is reused.
    """

    index: int
    key: str
    row: int
    width: int
    height: int
    format: str
    max_bytes: int | None = None
    quality: int | None = None


class GeneratedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One stored file. `url` is its address in the file store, `seconds` what drawing and encoding took.

    `quality` says how it was encoded; `reused` that an equal file was there already.
    """

    index: int
    key: str
    url: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    seconds: float
    quality: str
    reused: bool = False


class FailedCell(msgspec.Struct, frozen=True, kw_only=True):
    """One file that could not be made: `cause` is a short code, `reason` says what happened and what to do.

    `best_bytes` is the smallest size reached when the cause is cannot_fit.
    """

    index: int
    cause: str
    reason: str
    best_bytes: int | None = None


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What an export is about, as lists of exports show it; `rows` counts the rows of its feed."""

    title: str
    design: str
    design_title: str
    networks: list[str]
    sizes: list[str]
    formats: list[str]
    rows: int
    estimate_seconds: float


class Tally(msgspec.Struct, frozen=True):
    """A number of files and their weight in bytes."""

    files: int
    bytes: int


class AdExportRequested(Event, name="adexport.export.requested", version=1, key="export_id"):
    """Files were asked for: all of an export (round 1), or its failed ones again (later rounds).

    `snapshot` is the SHA-256 of the stored request: design, rows and images as they were at that moment. `about` comes
    with round 1. `started_at` is when it was asked for; a later round moves it, so that the time between an end and
    a retry does not count. Events from before exports had streams have none of these three.
    """

    export_id: str
    round: int
    snapshot: str
    files: int
    about: About | None = None
    started_at: datetime | None = None
    deadline: datetime | None = None


class ExportPlanned(Event, name="adexport.export.planned", version=1, key="export_id"):
    """The files of a round are cut into batches, and these are asked for."""

    export_id: str
    round: int
    files: int
    batches: int


class FilesMade(Event, name="adexport.files.made", version=1, key="export_id"):
    """Files of an export are ready: those of one AdGenerated that were not ready before.

    `files` are their indexes; `revived` says how many of them had failed in an earlier try; `formats` sums them up.
    """

    export_id: str
    round: int
    files: list[int]
    revived: int
    formats: dict[str, Tally]


class FilesFailed(Event, name="adexport.files.failed", version=1, key="export_id"):
    """Files of an export failed: those of one AdGenerationFailed that were awaited. `reason` is that of the first.

    `files` are their indexes, `causes` counts them by the code of their cause.
    """

    export_id: str
    round: int
    files: list[int]
    causes: dict[str, int]
    reason: str


class FilesAskedAgain(Event, name="adexport.files.asked-again", version=1, key="export_id"):
    """Nothing had arrived lately, so the files that are missing were asked for again, in the same round."""

    export_id: str
    round: int
    files: int


class SnapshotKeptBack(Event, name="adexport.snapshot.kept-back", version=1, key="export_id", keep=timedelta(days=30)):
    """The place of the files could not take a snapshot; the database holds it until it can."""

    export_id: str
    snapshot: str


class RenderBatchRequested(
    Event, name="adexport.batch.requested", version=1, key="export_id", fair_by="export_id", keep=timedelta(days=30)
):
    """About half a second of rendering was asked for. Exports share the workers fairly."""

    export_id: str
    round: int
    snapshot: str
    cells: list[CellOrder]


class AdGenerated(Event, name="adexport.ad.generated", version=1, key="export_id"):
    """The files of one batch are stored. `count` and `total_bytes` sum up `files`."""

    export_id: str
    round: int
    count: int
    total_bytes: int
    seconds: float
    files: list[GeneratedFile]


class AdGenerationFailed(Event, name="adexport.ad.generation-failed", version=1, key="export_id"):
    """Cells of one batch cannot be made, after the last try."""

    export_id: str
    round: int
    count: int
    cells: list[FailedCell]


class ExportCheckDue(Event, name="adexport.export.check-due", version="1.1", key="export_id", keep=timedelta(days=30)):
    """The durable timer of an export went off. `settled` is how many files were done or failed when it was set.

    `asked` is how often in a row the missing ones had been asked for again without any answer.
    """

    export_id: str
    round: int
    settled: int
    asked: int = 0


class CleaningDue(Event, name="adexport.cleaning.due", version=1, key="day", keep=timedelta(days=30)):
    """The daily timer of cleaning went off. `day` is its date in UTC, such as 2026-11-24."""

    day: str


class ExportCompleted(Event, name="adexport.export.completed", version=1, key="export_id"):
    """Every file is done or has failed, and at least one is done."""

    export_id: str
    round: int
    done: int
    failed: int
    total_bytes: int
    seconds: float
    ended_at: datetime | None = None


class ExportFailed(Event, name="adexport.export.failed", version=1, key="export_id"):
    """No file could be made, or the deadline came first; `overdue` files were missing then, and count as failed."""

    export_id: str
    round: int
    done: int
    failed: int
    reason: str
    overdue: int = 0
    ended_at: datetime | None = None


class ExportCancelled(Event, name="adexport.export.cancelled", version=1, key="export_id"):
    """A person stopped the export; the files that were ready stay."""

    export_id: str
    round: int
    done: int
    ended_at: datetime | None = None


class ExportExpired(Event, name="adexport.export.expired", version=1, key="export_id"):
    """The export was kept for as long as exports are kept after their end, and is removed."""

    export_id: str


class ExportAdopted(Event, name="adexport.export.adopted", version=1, key="export_id"):
    """Where an export stood when exports got streams: what was in the table of the release before.

    `made` and `lost` are the indexes of its files that were ready or had failed; `entries` how long its timeline was.
    """

    export_id: str
    about: About
    snapshot: str
    state: str
    round: int
    total: int
    made: list[int]
    lost: list[int]
    formats: dict[str, Tally]
    causes: dict[str, int]
    created_at: datetime
    started_at: datetime
    finished_at: datetime | None
    deadline: datetime
    failure: str | None
    entries: int


class ExportProgressed(Event, name="adexport.export.progressed", version=1, key="export_id", keep=_NOTIFICATIONS_LAST):
    """The read model of an export changed: a notification, the reader looks at entry `sequence` of its timeline."""

    export_id: str
    sequence: int
