"""An export's life, given what happened, when something is asked of it, then what comes of it."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given as generate
from hypothesis import strategies as st

from adexport.deciding import (
    EXPORT,
    Adopt,
    Ask,
    Cancel,
    CheckUp,
    Expire,
    Plan,
    Retry,
    TakeFailures,
    TakeFiles,
)
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
    Tally,
)
from adexport.export import NotNowError, State
from adexport.life import Export
from tidings.testing import given

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=8)
ABOUT = About(
    title="Autumn", design="plain", design_title="Plain", networks=[], sizes=["300x250"], formats=["jpeg"], rows=3,
    estimate_seconds=1.0,
)  # fmt: skip
ASKED = AdExportRequested(
    export_id="x", round=1, snapshot="s", files=3, about=ABOUT, started_at=NOW, deadline=NOW + timedelta(minutes=10)
)
PLANNED = ExportPlanned(export_id="x", round=1, files=3, batches=2)


def file(index: int) -> GeneratedFile:
    return GeneratedFile(
        index=index, key="k", url="u", format="jpeg", width=300, height=250, bytes=10, sha256="0",
        seconds=0.1, quality="q",
    )  # fmt: skip


def failure(index: int, cause: str = "render") -> FailedCell:
    return FailedCell(index=index, cause=cause, reason="No.")


def take(*indexes: int) -> TakeFiles:
    return TakeFiles(export_id="x", files=[file(index) for index in indexes], now=LATER)


def refuse(*indexes: int, round: int = 1) -> TakeFailures:
    return TakeFailures(export_id="x", round=round, cells=[failure(index) for index in indexes], now=LATER)


def made(*indexes: int, revived: int = 0, round: int = 1) -> FilesMade:
    tally = Tally(len(indexes), 10 * len(indexes))
    return FilesMade(export_id="x", round=round, files=list(indexes), revived=revived, formats={"jpeg": tally})


def failed(*indexes: int, round: int = 1) -> FilesFailed:
    return FilesFailed(export_id="x", round=round, files=list(indexes), causes={"render": len(indexes)}, reason="No.")


def completed(done: int, failed: int, round: int = 1) -> ExportCompleted:
    return ExportCompleted(
        export_id="x", round=round, done=done, failed=failed, total_bytes=10 * done, seconds=8, ended_at=LATER
    )


CANCELLED = ExportCancelled(export_id="x", round=1, done=1, ended_at=LATER)
RUNNING = given(EXPORT, ASKED, PLANNED)


def test_an_export_is_asked_for_once():
    ask = Ask(export_id="x", about=ABOUT, snapshot="s", files=3, now=NOW)
    given(EXPORT).when(ask).then(ASKED)
    given(EXPORT, ASKED).when(ask).then_nothing_happened()


def test_it_is_planned_once_a_round_and_not_when_it_is_over():
    plan = Plan(export_id="x", round=1, files=3, batches=2)
    given(EXPORT, ASKED).when(plan).then(PLANNED)
    RUNNING.when(plan).then_nothing_happened()
    given(EXPORT, ASKED, CANCELLED).when(plan).then_nothing_happened()
    given(EXPORT, ASKED).when(Plan(export_id="x", round=2, files=3, batches=2)).then_nothing_happened()


def test_files_count_once_and_the_last_one_completes_it():
    RUNNING.when(take(0, 1)).then(made(0, 1))
    given(EXPORT, ASKED, PLANNED, made(0, 1)).when(take(1, 0)).then_nothing_happened()
    given(EXPORT, ASKED, PLANNED, made(0, 1)).when(take(1, 2)).then(made(2), completed(3, 0))
    given(EXPORT, ASKED, PLANNED, failed(0), made(1)).when(take(2)).then(made(2), completed(2, 1))


def test_what_is_no_file_of_it_does_not_count():
    RUNNING.when(take(3, -1)).then_nothing_happened()
    RUNNING.when(refuse(3, -1)).then_nothing_happened()
    given(EXPORT).when(take(0)).then_nothing_happened()


def test_a_file_beats_a_failure_and_a_failure_no_file():
    given(EXPORT, ASKED, PLANNED, failed(0)).when(take(0)).then(made(0, revived=1))
    given(EXPORT, ASKED, PLANNED, made(0)).when(refuse(0, 1)).then(failed(1))
    RUNNING.when(refuse(0, round=2)).then_nothing_happened()


def test_without_any_file_it_has_failed():
    ended = ExportFailed(export_id="x", round=1, done=0, failed=3, reason="No file could be made. No.", ended_at=LATER)
    given(EXPORT, ASKED, PLANNED, failed(0, 1)).when(refuse(2)).then(failed(2), ended)


def test_the_timer_asks_again_and_gives_up_at_the_deadline():
    check = CheckUp(export_id="x", round=1, settled=1, now=LATER)
    one = given(EXPORT, ASKED, PLANNED, made(0))
    one.when(check).then(FilesAskedAgain(export_id="x", round=1, files=2))
    one.when(msgspec.structs.replace(check, may_ask=False)).then_nothing_happened()
    one.when(msgspec.structs.replace(check, settled=0)).then_nothing_happened()
    late = ASKED.deadline
    one.when(msgspec.structs.replace(check, now=late)).then(
        ExportFailed(
            export_id="x",
            round=1,
            done=1,
            failed=2,
            reason="2 files not ready by the deadline.",
            overdue=2,
            ended_at=late,
        )
    )
    given(EXPORT, ASKED, PLANNED, CANCELLED).when(check).then_nothing_happened()


def test_it_is_cancelled_only_while_it_runs():
    cancel = Cancel(export_id="x", now=LATER)
    given(EXPORT, ASKED, PLANNED, made(0)).when(cancel).then(CANCELLED)
    given(EXPORT, ASKED, CANCELLED).when(cancel).then_raises(NotNowError, match="nothing left to cancel")
    given(EXPORT, ASKED, CANCELLED).when(take(0)).then_nothing_happened()
    given(EXPORT).when(cancel).then_nothing_happened()


def test_a_retry_asks_for_what_is_not_done_and_does_not_count_the_time_between():
    hour = NOW + timedelta(hours=1)
    again = AdExportRequested(
        export_id="x", round=2, snapshot="s", files=2, started_at=hour - timedelta(seconds=8),
        deadline=hour + timedelta(minutes=10),
    )  # fmt: skip
    retry = Retry(export_id="x", now=hour)
    cancelled = given(EXPORT, ASKED, PLANNED, made(0), CANCELLED)
    cancelled.when(retry).then(again)
    RUNNING.when(retry).then_raises(NotNowError, match="still running")
    given(EXPORT, ASKED, PLANNED, made(0, 1, 2), completed(3, 0)).when(retry).then_raises(NotNowError, match="nothing")
    second = given(EXPORT, ASKED, PLANNED, failed(2), made(0), CANCELLED, again)
    second.when(refuse(2)).then_nothing_happened()  # of the round before
    second.when(refuse(2, round=2)).then(failed(2, round=2))


def test_it_expires_when_it_is_over_and_then_nothing_is_left_of_it():
    expire, expired = Expire(export_id="x", round=1), ExportExpired(export_id="x")
    RUNNING.when(expire).then_nothing_happened()
    given(EXPORT, ASKED, CANCELLED).when(expire).then(expired)
    given(EXPORT, ASKED, CANCELLED).when(Expire(export_id="x", round=2)).then_nothing_happened()
    given(EXPORT, ASKED, CANCELLED, expired).when(expire).then_nothing_happened()
    given(EXPORT, ASKED, CANCELLED, expired).when(Retry(export_id="x", now=LATER)).then_nothing_happened()


def test_an_adopted_export_goes_on_where_it_stood():
    found = ExportAdopted(
        export_id="x", about=ABOUT, snapshot="s", state="running", round=2, total=3, made=[0], lost=[1],
        formats={"jpeg": Tally(1, 10)}, causes={"render": 1}, created_at=NOW, started_at=NOW, finished_at=None,
        deadline=ASKED.deadline, failure=None, entries=7,
    )  # fmt: skip
    given(EXPORT).when(Adopt(export_id="x", found=found)).then(found)
    given(EXPORT, found).when(Adopt(export_id="x", found=found)).then_nothing_happened()
    given(EXPORT, found).when(take(0, 2)).then(made(2, round=2), completed(2, 1, round=2))
    assert EXPORT.after(Export(), [found, made(2, round=2)]).entries == 8


def test_facts_from_before_streams_change_nothing():
    old = AdExportRequested(export_id="x", round=1, snapshot="s", files=3)
    assert EXPORT.after(Export(), [old, ExportCancelled(export_id="x", round=1, done=0)]) == Export()


@generate(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 11), max_size=6)), max_size=12))
def test_results_in_any_order_count_every_file_once(results):
    """And what a snapshot keeps of the state says the same as its events."""
    export = EXPORT.after(Export(), [msgspec.structs.replace(ASKED, files=12), PLANNED])
    done, lost = set[int](), set[int]()
    for is_file, indexes in results:
        if len(done | lost) == 12:
            break
        export = EXPORT.after(export, EXPORT.decide(take(*indexes) if is_file else refuse(*indexes), export))
        if is_file:
            done |= set(indexes)
            lost -= set(indexes)
        else:
            lost |= set(indexes) - done
    assert export.standing is not None
    assert (export.standing.done, export.standing.failed, export.weight) == (len(done), len(lost), 10 * len(done))
    over = len(done | lost) == 12
    assert export.standing.state is ((State.DONE if done else State.DEAD) if over else State.RUNNING)
    assert msgspec.json.decode(msgspec.json.encode(export), type=Export) == export


@pytest.mark.parametrize("files", [20_000])
def test_a_snapshot_of_the_largest_export_stays_small(files):
    export = EXPORT.after(Export(), [msgspec.structs.replace(ASKED, files=files), PLANNED, made(*range(0, files, 2))])
    assert len(msgspec.json.encode(export)) < 10_000
