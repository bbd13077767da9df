"""A process that is frozen past its lease, and then goes on: whatever it does next is fenced, nothing happens twice."""

import json
import os
import signal
from pathlib import Path

import pytest
from processes import Processes, rows, wait_for

EVENTS = 60
EFFECTS = "SELECT subscription, id, pid FROM effect ORDER BY seq"


class Scene:
    """The store of two processes, of which one freezes."""

    def __init__(self, folder: Path, processes: Processes, place: str) -> None:
        self.folder = folder
        self.file = folder / "zombie.db"
        self._processes = processes
        self._place = place

    def start(self, events: int) -> int:
        return self._processes.start("zombie_service.py", self.folder, self._place, events).pid

    def all_done(self) -> bool:
        """Say whether every event was handled by both subscriptions and sent."""
        events = rows(self.file, "SELECT count(*) FROM tidings_log")[0][0]
        handled = {row[:2] for row in rows(self.file, EFFECTS)}
        return len(handled) == 2 * events and len(set(self.sent())) == events

    def sent(self) -> list[str]:
        file = self.folder / "out.jsonl"
        lines = file.read_bytes().splitlines() if file.exists() else []
        return [json.loads(line)["id"] for line in lines]

    def story(self) -> str:
        held = rows(self.file, "SELECT subscription, state, reason, position FROM tidings_held")
        ready = rows(self.file, "SELECT subscription, position, owner, attempt FROM tidings_ready")
        return f"held {held}\nready {ready}\nsent {len(set(self.sent()))}\n{self._processes.output()}"


@pytest.mark.parametrize(
    ("place", "fenced"),
    [
        ("lane.before_handlers", "has another owner now"),
        ("relay.sent", "has another owner now"),
        ("ready.claimed", "has taken event"),
        ("in work", "has taken event"),
    ],
)
def test_zombie_is_fenced(tmp_path: Path, processes: Processes, place: str, fenced: str) -> None:
    scene = Scene(tmp_path, processes, place)
    zombie = scene.start(EVENTS)
    wait_for((tmp_path / "frozen").exists, 20, processes.output)
    survivor = scene.start(EVENTS)
    wait_for(scene.all_done, 30, scene.story)
    before = rows(scene.file, EFFECTS)
    assert survivor in {row[2] for row in before}
    os.kill(zombie, signal.SIGCONT)
    wait_for(lambda: fenced in processes.output(), 20, scene.story)
    (tmp_path / "stop").touch()
    wait_for(processes.all_ended, 20, scene.story)
    after = rows(scene.file, EFFECTS)
    assert after[: len(before)] == before  # the zombie may have had a publish of its own under way
    assert len(after) == len({row[:2] for row in after}) >= 4 * EVENTS
    assert rows(scene.file, "SELECT * FROM tidings_held") == []
    assert rows(scene.file, "SELECT * FROM tidings_ready") == []
