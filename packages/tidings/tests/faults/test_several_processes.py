"""Several processes on one file: they hear of each other's commits at once, and share the lanes as they come and go."""

from collections import Counter
from pathlib import Path
from statistics import median

from processes import Processes, rows, wait_for

EVENTS = 40
HEARD_SECONDS = 0.3
LANES = 16
OWNERS = (
    "SELECT pid FROM (SELECT lane, max(step), owner FROM tidings_progress WHERE subscription = 'hear' GROUP BY lane) "
    "LEFT JOIN tidings_worker ON id = owner"
)


def shares(file: Path) -> list[int]:
    """Return how many lanes each living owner has, the most first; a lane that nobody living owns is left out."""
    return sorted(Counter(row[0] for row in rows(file, OWNERS) if row[0] is not None).values(), reverse=True)


def test_an_event_of_another_process_is_handled_at_once(tmp_path: Path, processes: Processes) -> None:
    file = tmp_path / "peer.db"
    processes.start("peer_service.py", tmp_path, "consume")
    wait_for(lambda: shares(file) == [LANES], 20, processes.output)
    processes.start("peer_service.py", tmp_path, "publish")
    wait_for(lambda: len(rows(file, "SELECT * FROM heard")) == EVENTS, 20, processes.output)
    seconds = [row[0] / 1e9 for row in rows(file, "SELECT nanoseconds FROM heard")]
    print(f"published there, handled here: p50 {1000 * median(seconds):.1f} ms, most {1000 * max(seconds):.1f} ms")
    assert max(seconds) < HEARD_SECONDS


def test_lanes_are_shared_as_processes_come_and_go(tmp_path: Path, processes: Processes) -> None:
    file = tmp_path / "peer.db"

    def settle_at(expected: list[int]) -> None:
        seconds = wait_for(lambda: shares(file) == expected, 15, lambda: f"{shares(file)} {processes.output()}")
        print(f"{expected} after {seconds:.2f} s")

    first = processes.start("peer_service.py", tmp_path, "consume")
    settle_at([16])
    processes.start("peer_service.py", tmp_path, "consume")
    settle_at([8, 8])
    processes.start("peer_service.py", tmp_path, "consume")
    settle_at([6, 6, 4])
    first.kill()
    settle_at([8, 8])
    processes.start("peer_service.py", tmp_path, "publish")
    wait_for(lambda: len(rows(file, "SELECT * FROM heard")) == EVENTS, 20, processes.output)
    (tmp_path / "stop").touch()
    wait_for(processes.all_ended, 15, processes.output)
    owners = rows(
        file, "SELECT DISTINCT owner FROM (SELECT lane, max(step), owner FROM tidings_progress GROUP BY lane)"
    )
    assert owners == [(None,)]
    assert rows(file, "SELECT * FROM tidings_worker") == []
