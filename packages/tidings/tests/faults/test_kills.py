"""SIGKILL of real processes at every named point, one process and four on one file: nothing is lost or doubled.

The storm itself is in storm.py, the service under it in storm_service.py. Each point is hit at least eight times in
each configuration; the test fails if one was not reached.
"""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tidings.events import derive_id
from tidings.points import POINTS

pytestmark = pytest.mark.timeout(400)  # the storm is in the first test of each configuration

HITS = 8
SEED = 20261124
HANDLED_BY = {
    "storm.placed": ("ledger", "deliver", "notify"),
    "storm.reminder": ("remind",),
    "other.arrived": ("arrive",),
}
ORDERED = ("ledger", "notify", "arrive")
OUTGOING = {"storm.booked": ("ledger", 0), "storm.reminder": ("ledger", 1), "storm.delivered": ("deliver", 0)}
"""Type of what follows from each placed event -> which subscription publishes it, and as which of its publishes."""


def ids_in(file: Path) -> list[str]:
    """Return the ids of the events in a file of the transport."""
    return [json.loads(line)["id"] for line in file.read_bytes().splitlines()]


class Aftermath:
    """What the storm left: the report, the log, the effects, what was acknowledged, what was sent."""

    def __init__(self, folder: Path, report: dict[str, Any]) -> None:
        self.report = report
        self.stderr = (folder / "stderr.txt").read_text()
        with closing(sqlite3.connect(folder / "storm.db")) as database:
            rows = database.execute("SELECT position, type, id, key, causation, source FROM tidings_log")
            self.log = {row[2]: row for row in rows.fetchall()}
            self.effects = database.execute("SELECT subscription, id FROM effect ORDER BY seq").fetchall()
            self.intents = {row[0] for row in database.execute("SELECT number FROM intent")}
            self.published_with_intent = database.execute(
                "SELECT count(*) FROM tidings_log JOIN intent ON number = json_extract(CAST(data AS TEXT), '$.number') "
                "WHERE type = 'storm.placed'"
            ).fetchone()[0]
            self.owners = database.execute("SELECT count(*) FROM tidings_worker").fetchone()[0]
            self.integrity = database.execute("PRAGMA integrity_check").fetchone()[0]
        self.acknowledged = (folder / "acked.txt").read_text().split()
        self.sent = ids_in(folder / "out.jsonl")
        self.from_outside = ids_in(folder / "in.jsonl")

    def order(self, ids: list[str]) -> list[str]:
        """Return ids in the order of the log, by key: what must be equal for two lists that keep order by key."""
        return sorted(ids, key=lambda event_id: (self.log[event_id][3], self.log[event_id][0]))

    def by_key(self, ids: list[str]) -> list[str]:
        """Return ids grouped by key, each group in the order given."""
        return sorted(ids, key=lambda event_id: str(self.log[event_id][3]))


@pytest.fixture(scope="module", params=[("sqlite", 1), ("sqlite+apsw", 4)], ids=["1-process", "4-processes"])
def aftermath(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    scheme, processes = request.param
    folder = tmp_path_factory.mktemp("storm")
    command = [sys.executable, Path(__file__).with_name("storm.py"), folder, scheme, processes, HITS, SEED]
    with (folder / "stderr.txt").open("w") as stderr:
        run = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=stderr, text=True, check=True)
    report = json.loads(run.stdout)
    print(report)
    return Aftermath(folder, report)


def test_every_point_was_hit(aftermath: Aftermath) -> None:
    missed = {point: aftermath.report["hits"].get(point, 0) for point in POINTS}
    assert {point: hits for point, hits in missed.items() if hits < HITS} == {}


def test_nothing_ended_by_itself_and_all_drained(aftermath: Aftermath) -> None:
    assert aftermath.report["crashed"] == [], aftermath.stderr[-4000:]
    assert aftermath.report["drained"], aftermath.stderr[-4000:]
    assert aftermath.integrity == "ok"
    assert aftermath.owners == 0


def test_nothing_acknowledged_is_lost(aftermath: Aftermath) -> None:
    assert len(aftermath.acknowledged) > 200
    assert set(aftermath.acknowledged) - aftermath.log.keys() == set()


def test_publish_and_write_are_all_or_nothing(aftermath: Aftermath) -> None:
    assert aftermath.intents
    assert aftermath.published_with_intent == len(aftermath.intents)


def test_every_event_has_its_effects_once(aftermath: Aftermath) -> None:
    expected = {(subscription, row[2]) for row in aftermath.log.values() for subscription in HANDLED_BY.get(row[1], ())}
    seen = Counter(aftermath.effects)
    assert expected - seen.keys() == set()
    assert seen.keys() - expected == set()
    assert {effect: times for effect, times in seen.items() if times > 1} == {}


def test_order_by_key_was_kept(aftermath: Aftermath) -> None:
    for subscription in ORDERED:
        handled = [event_id for name, event_id in aftermath.effects if name == subscription]
        assert aftermath.by_key(handled) == aftermath.order(handled), subscription


def test_outgoing_events_are_exact(aftermath: Aftermath) -> None:
    placed = [row[2] for row in aftermath.log.values() if row[1] == "storm.placed"]
    expected = {
        (derive_id("storm", event_id, subscription, ordinal), kind, event_id)
        for event_id in placed
        for kind, (subscription, ordinal) in OUTGOING.items()
    }
    assert {(row[2], row[1], row[4]) for row in aftermath.log.values() if row[4] is not None} == expected


def test_everything_sent_from_outside_landed_once(aftermath: Aftermath) -> None:
    landed = Counter(row[2] for row in aftermath.log.values() if row[5] == "other")
    assert len(aftermath.from_outside) > len(landed)  # copies were sent too
    assert landed == Counter(dict.fromkeys(aftermath.from_outside, 1))


def test_everything_was_sent_in_order_by_key(aftermath: Aftermath) -> None:
    own = [row[2] for row in aftermath.log.values() if row[5] == "storm"]
    first_sent = list(dict.fromkeys(aftermath.sent))
    assert set(first_sent) == set(own)
    assert aftermath.by_key(first_sent) == aftermath.order(first_sent)
