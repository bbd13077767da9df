"""An event that kills the process of its handler becomes a dead letter after its attempts, while the others flow."""

import json
from pathlib import Path

import pytest
from poison_service import Placed, make_service
from processes import Processes, rows, wait_for

POISONED = {"plain": 3, "ordered": 4, "work": 5, "ordered_work": 6}
"""Subscription -> number of the event of account a0 that kills it."""

ACCOUNTS, EACH = 6, 8
MOST_STARTS = 40
HELD = "SELECT subscription, state, attempts, position FROM tidings_held ORDER BY position"


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A store with events of six accounts; four of the first kill a handler, in each subscription another."""
    service = make_service(f"sqlite:///{tmp_path}/poison.db")
    async with service.running(consumers=False):
        for number in range(EACH):
            for account in range(ACCOUNTS):
                kills = [name for name, at in POISONED.items() if account == 0 and at == number]
                await service.publish(Placed(account=f"a{account}", number=number, kills="".join(kills)))
    return tmp_path / "poison.db"


def expected_effects() -> set[tuple[str, str, int]]:
    """Everything but the poison and, where order is kept, what comes after it under its key."""
    return {
        (name, f"a{account}", number)
        for name, poison in POISONED.items()
        for account in range(ACCOUNTS)
        for number in range(EACH)
        if account > 0 or number < poison or (number > poison and not name.startswith("ordered"))
    }


def test_poison_becomes_a_dead_letter_and_the_others_flow(file: Path, processes: Processes) -> None:
    starts = 0

    def drained() -> bool:
        nonlocal starts
        if processes.all_ended():
            starts += 1
            assert starts <= MOST_STARTS, f"{rows(file, HELD)}\n{processes.output()}"
            processes.start("poison_service.py", f"sqlite:///{file}")
        effects = rows(file, "SELECT * FROM effect")
        states = [row[1] for row in rows(file, HELD)]
        return set(effects) == expected_effects() and states.count("dead") == len(POISONED)

    rows_now = lambda: f"{rows(file, HELD)}\n{processes.output()}"  # noqa: E731
    wait_for(drained, 60, rows_now)
    effects = rows(file, "SELECT * FROM effect")
    assert len(effects) == len(set(effects))
    dead = rows(file, "SELECT subscription, attempts, failures FROM tidings_held WHERE state = 'dead'")
    assert {row[0]: row[1] for row in dead} == dict.fromkeys(POISONED, 3)
    for _, _, failures in dead:
        assert [failure["error"] for failure in json.loads(failures)] == ["ProcessDied"] * 3
    behind = rows(file, "SELECT subscription, count(*) FROM tidings_held WHERE state = 'behind' GROUP BY subscription")
    assert dict(behind) == {name: EACH - 1 - POISONED[name] for name in ("ordered", "ordered_work")}
