"""What a storm must have left behind: nothing lost, nothing doubled, order kept. The same on every store."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
from storm_service import PREFIX, kind_of

from tidings.events import derive_id
from tidings.points import POINTS

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


def rows_in(store: str, *queries: str) -> list[list[tuple[Any, ...]]]:
    """Return the rows of some queries over what is committed in a store."""
    if kind_of(store) == "sqlite":
        with closing(sqlite3.connect(store.partition(":///")[2])) as database:
            return [database.execute(sql).fetchall() for sql in queries]

    async def fetch() -> list[list[tuple[Any, ...]]]:
        connection = await asyncpg.connect(store)
        try:
            return [[tuple(row) for row in await connection.fetch(sql)] for sql in queries]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def weather(
    folder: Path, store: str, processes: int, hits: int, *admin: str, kills: int = 0, cuts: int = 0
) -> "Aftermath":
    """Let a storm blow over a store until it has had so many of each, and return what it left."""
    numbers = (processes, hits, kills, cuts, SEED)
    command = [sys.executable, Path(__file__).with_name("storm.py"), folder, store, *numbers, *admin]
    with (folder / "stderr.txt").open("w") as stderr:
        run = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=stderr, text=True, check=True)
    report = json.loads(run.stdout)
    print(report)
    return Aftermath(folder, store, report, hits)


class Aftermath:
    """What the storm left: the report, the log, the effects, what was acknowledged, what was sent."""

    def __init__(self, folder: Path, store: str, report: dict[str, Any], wanted: int) -> None:
        self.report = report
        self.store = store
        self.wanted = wanted
        self.stderr = (folder / "stderr.txt").read_text()
        prefix = PREFIX[kind_of(store)]
        rows, effects, intents, workers = rows_in(
            store,
            f"SELECT position, type, id, key, causation, source, data FROM {prefix}log",
            "SELECT subscription, id FROM effect ORDER BY seq",
            "SELECT number FROM intent",
            f"SELECT id FROM {prefix}worker",
        )
        self.rows = rows
        self.log = {row[2]: row for row in rows}
        self.effects = effects
        self.intents = {row[0] for row in intents}
        self.published_with_intent = sum(
            row[1] == "storm.placed" and json.loads(row[6])["number"] in self.intents for row in rows
        )
        self.owners = len(workers)
        self.acknowledged = (folder / "acked.txt").read_text().split()
        self.sent = ids_in(folder / "out.jsonl")
        self.from_outside = ids_in(folder / "in.jsonl")

    def order(self, ids: list[str]) -> list[str]:
        """Return ids in the order of the log, by key: what must be equal for two lists that keep order by key."""
        return sorted(ids, key=lambda event_id: (self.log[event_id][3], self.log[event_id][0]))

    def by_key(self, ids: list[str]) -> list[str]:
        """Return ids grouped by key, each group in the order given."""
        return sorted(ids, key=lambda event_id: str(self.log[event_id][3]))


class StormSuite:
    """The tests of an aftermath; a subclass says which storm by its fixture `aftermath`."""

    acknowledged = 100
    """More than so many publishes were acknowledged."""

    def test_no_event_is_there_twice(self, aftermath: Aftermath) -> None:
        assert len(aftermath.rows) == len(aftermath.log)

    def test_every_point_was_hit(self, aftermath: Aftermath) -> None:
        missed = {point: aftermath.report["hits"].get(point, 0) for point in POINTS}
        assert {point: hits for point, hits in missed.items() if hits < aftermath.wanted} == {}

    def test_nothing_ended_by_itself_and_all_drained(self, aftermath: Aftermath) -> None:
        assert aftermath.report["crashed"] == [], aftermath.stderr[-4000:]
        assert aftermath.report["drained"], aftermath.stderr[-4000:]
        assert aftermath.owners == 0

    def test_nothing_acknowledged_is_lost(self, aftermath: Aftermath) -> None:
        assert len(aftermath.acknowledged) > self.acknowledged
        assert set(aftermath.acknowledged) - aftermath.log.keys() == set()

    def test_publish_and_write_are_all_or_nothing(self, aftermath: Aftermath) -> None:
        assert aftermath.intents
        assert aftermath.published_with_intent == len(aftermath.intents)

    def test_every_event_has_its_effects_once(self, aftermath: Aftermath) -> None:
        expected = {(subscription, row[2]) for row in aftermath.rows for subscription in HANDLED_BY.get(row[1], ())}
        seen = Counter(aftermath.effects)
        assert expected - seen.keys() == set()
        assert seen.keys() - expected == set()
        assert {effect: times for effect, times in seen.items() if times > 1} == {}

    def test_order_by_key_was_kept(self, aftermath: Aftermath) -> None:
        for subscription in ORDERED:
            handled = [event_id for name, event_id in aftermath.effects if name == subscription]
            assert aftermath.by_key(handled) == aftermath.order(handled), subscription

    def test_outgoing_events_are_exact(self, aftermath: Aftermath) -> None:
        placed = [row[2] for row in aftermath.rows if row[1] == "storm.placed"]
        expected = {
            (derive_id("storm", event_id, subscription, ordinal), kind, event_id)
            for event_id in placed
            for kind, (subscription, ordinal) in OUTGOING.items()
        }
        assert {(row[2], row[1], row[4]) for row in aftermath.rows if row[4] is not None} == expected

    def test_everything_sent_from_outside_landed_once(self, aftermath: Aftermath) -> None:
        landed = Counter(row[2] for row in aftermath.rows if row[5] == "other")
        assert len(aftermath.from_outside) > len(landed)  # copies were sent too
        assert landed == Counter(dict.fromkeys(aftermath.from_outside, 1))

    def test_everything_was_sent_in_order_by_key(self, aftermath: Aftermath) -> None:
        own = [row[2] for row in aftermath.rows if row[5] == "storm"]
        first_sent = list(dict.fromkeys(aftermath.sent))
        assert set(first_sent) == set(own)
        assert aftermath.by_key(first_sent) == aftermath.order(first_sent)
