"""The example's own event classes fit what Ad Export declares, and its projection counts as Ad Export does."""

import importlib
import sys
from collections.abc import Iterator
from inspect import isclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.inspect import ListType, StructType, Type, type_info

from adexport import events as adexport_events
from tidings import Event, Service
from tidings.events import event_type
from tidings.testing import harness

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "export_analytics"
MODULES = ("events", "projection", "analytics")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The example's modules, whose names others have too."""
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name, module in before.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


def declared(module: Any) -> dict[str, type[Event]]:
    found = [one for one in vars(module).values() if isclass(one) and issubclass(one, Event) and one is not Event]
    return {event_type(cls).name: cls for cls in found}


def misfits(ours: Type, theirs: Type, place: str) -> list[str]:
    """What one side reads and the other does not say, or says in another form."""
    if isinstance(ours, StructType) and isinstance(theirs, StructType):
        said = {field.encode_name: field.type for field in theirs.fields}
        return [
            wrong
            for field in ours.fields
            for wrong in (
                misfits(field.type, said[field.encode_name], f"{place}.{field.name}")
                if field.encode_name in said
                else [f"{place}.{field.name} is not said"]
            )
        ]
    if isinstance(ours, ListType) and isinstance(theirs, ListType):
        return misfits(ours.item_type, theirs.item_type, f"{place}[]")
    return [] if ours == theirs else [f"{place} is {theirs}, and is read as {ours}"]


def test_what_it_reads_is_what_ad_export_says(example):
    said = declared(adexport_events)
    for name, cls in declared(example.events).items():
        other = said[name]
        ours, theirs = event_type(cls), event_type(other)
        assert (ours.version, ours.key) == (theirs.version, theirs.key), name
        assert misfits(type_info(cls), type_info(other), name) == []


def test_a_field_that_goes_or_changes_is_found():
    class Now(msgspec.Struct):
        files: list[int]
        count: int

    class Later(msgspec.Struct):
        files: list[str]

    found = misfits(type_info(Now), type_info(Later), "export")
    assert [line.split()[0] for line in found] == ["export.files[]", "export.count"]


def test_it_imports_nothing_of_ad_export():
    for file in EXAMPLE.glob("*.py"):
        assert "adexport" not in [line.split()[1].split(".")[0] for line in imports(file)]


def imports(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]


@pytest.fixture
def figures_of(example: SimpleNamespace, tmp_path: Path) -> Any:
    """Let events arrive in some order, and return the figures."""
    said = example.events

    async def counted(*events: Event) -> dict[str, dict[str, float]]:
        service, figures = example.analytics.service_of(f"sqlite+apsw:///{tmp_path}/log.db", "sqlite:///:memory:")
        assert isinstance(service, Service)
        async with harness(service) as h:
            for event in events:
                h.arrive(event, source="adexport")
            await h.settled()
            return dict(await figures.now())

    return SimpleNamespace(said=said, counted=counted)


async def test_what_is_not_ready_by_the_deadline_failed_for_that(figures_of):
    said = figures_of.said
    figures = await figures_of.counted(
        said.Requested(export_id="x", round=1),
        said.Generated(export_id="x", files=[said.File(index=0, format="png")]),
        said.GenerationFailed(export_id="x", round=1, cells=[said.Failure(index=1, cause="cannot_fit")]),
        said.Failed(export_id="x", failed=3),
    )
    assert figures["failures_by_cause"] == {"cannot_fit": 1, "deadline": 2}
    assert figures["files_by_format"] == {"png": 1}
    assert figures["seconds_to_ready"] == {}


async def test_a_retry_begins_anew_and_a_file_beats_a_failure_and_is_counted_once(figures_of):
    said = figures_of.said
    failure = [said.Failure(index=1, cause="cannot_fit")]
    made = said.Generated(export_id="x", files=[said.File(index=1, format="webp")])
    figures = await figures_of.counted(
        said.Requested(export_id="x", round=1),
        said.GenerationFailed(export_id="x", round=1, cells=failure),
        said.Failed(export_id="x", failed=4),
        made,  # too late: the export is over
        said.Requested(export_id="x", round=2),
        said.GenerationFailed(export_id="x", round=1, cells=failure),  # of the round before
        said.GenerationFailed(export_id="x", round=2, cells=failure),
        made,
        made,
        said.Completed(export_id="x", seconds=3.5),
    )
    assert figures["exports_by_end"] == {"completed": 1}
    assert figures["failures_by_cause"] == {}
    assert figures["files_by_format"] == {"webp": 1}
    assert figures["seconds_to_ready"] == {"median": 3.5, "longest": 3.5}


PLANTED = {
    "MADE": lambda sql: sql.replace(" WHERE EXISTS", " WHERE 1 = 1 OR EXISTS"),
    "NOT_MADE": lambda sql: sql.replace("DO NOTHING", "DO UPDATE SET cause = excluded.cause, format = NULL"),
    "ENDED": lambda sql: sql.partition(" WHERE ")[0] + " WHERE 1 = 1",
}
"""Results after the end count; a failure beats a file; what is not over counts."""


@pytest.mark.parametrize("name", sorted(PLANTED))
async def test_a_planted_bug_shows(name, figures_of, example, monkeypatch):
    said = figures_of.said
    failure = said.GenerationFailed(export_id="x", round=1, cells=[said.Failure(index=0, cause="cannot_fit")])
    made = [said.Generated(export_id="x", files=[said.File(index=index, format="png")]) for index in (0, 1)]
    other = said.Generated(export_id="y", files=[said.File(index=0, format="jpeg")])
    history = (
        said.Requested(export_id="x", round=1),
        made[0],
        failure,
        said.Completed(export_id="x", seconds=1.0),
        made[1],
        said.Requested(export_id="y", round=1),
        other,
    )
    right = await figures_of.counted(*history)
    assert (right["files_by_format"], right["failures_by_cause"]) == ({"png": 1}, {})
    monkeypatch.setattr(example.projection, name, PLANTED[name](getattr(example.projection, name)))
    assert await figures_of.counted(*history) != right


async def test_a_cancelled_export_counts_as_one_and_its_files_do_not(figures_of):
    said = figures_of.said
    figures = await figures_of.counted(
        said.Requested(export_id="x", round=1),
        said.Generated(export_id="x", files=[said.File(index=0, format="png")]),
        said.Cancelled(export_id="x"),
    )
    assert figures["exports_by_end"] == {"cancelled": 1}
    assert figures["files_by_format"] == {}
