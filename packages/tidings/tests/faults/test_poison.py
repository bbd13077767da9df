"""An event that kills the process of its handler becomes a dead letter after its attempts, while the others flow."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from poison_service import Placed, make_service
from processes import Processes, rows, wait_for

POISONED = {"plain": 3, "ordered": 4, "work": 5, "ordered_work": 6}
"""Subscription -> number of the event of account a0 that kills it."""

ACCOUNTS, EACH = 6, 8
MOST_STARTS = 40
HELD = "SELECT subscription, state, attempts, position FROM tidings_held ORDER BY position"

Effect = tuple[str, str, int]


def expected_effects(names: Sequence[str]) -> set[Effect]:
    """Everything but the poison and, where order is kept, what comes after it under its key."""
    return {
        (name, f"a{account}", number)
        for name in names
        for account in range(ACCOUNTS)
        for number in range(EACH)
        if account > 0 or number < POISONED[name] or (number > POISONED[name] and not name.startswith("ordered"))
    }


class Scene:
    """A store with events of six accounts, some of which kill a handler; and the process that is started over."""

    def __init__(self, folder: Path, processes: Processes, concurrency: int, names: Sequence[str]) -> None:
        self.file = folder / "poison.db"
        self._arguments = (f"sqlite:///{self.file}", concurrency, *names)
        self._processes = processes
        self._names = names
        self._starts = 0

    async def publish(self) -> None:
        service = make_service(*self._arguments[:2], self._names)
        async with service.running(consumers=False):
            for number in range(EACH):
                for account in range(ACCOUNTS):
                    kills = [name for name in self._names if account == 0 and POISONED[name] == number]
                    await service.publish(Placed(account=f"a{account}", number=number, kills="".join(kills)))

    def story(self) -> str:
        return f"{rows(self.file, HELD)}\n{self._processes.output()}"

    def is_drained(self) -> bool:
        """Say whether all is settled; start the process again if something killed it."""
        if self._processes.all_ended():
            self._starts += 1
            assert self._starts <= MOST_STARTS, self.story()
            self._processes.start("poison_service.py", *self._arguments)
        effects = set(rows(self.file, "SELECT * FROM effect"))
        states = [row[1] for row in rows(self.file, HELD)]
        return effects == expected_effects(self._names) and states.count("dead") == len(self._names)

    def check(self) -> None:
        """Check that the dead are the poison, each after three deaths, and that only its own key waits behind it."""
        effects = rows(self.file, "SELECT * FROM effect")
        assert len(effects) == len(set(effects))
        dead = rows(self.file, "SELECT subscription, attempts, failures FROM tidings_held WHERE state = 'dead'")
        assert {row[0]: row[1] for row in dead} == dict.fromkeys(self._names, 3)
        assert {failure["error"] for row in dead for failure in json.loads(row[2])} == {"ProcessDied"}
        behind = rows(
            self.file, "SELECT subscription, count(*) FROM tidings_held WHERE state = 'behind' GROUP BY subscription"
        )
        ordered = [name for name in self._names if name.startswith("ordered")]
        assert dict(behind) == {name: EACH - 1 - POISONED[name] for name in ordered}


@pytest.mark.parametrize("name", list(POISONED))
async def test_poison_becomes_a_dead_letter(tmp_path: Path, processes: Processes, name: str) -> None:
    scene = Scene(tmp_path, processes, 1, [name])
    await scene.publish()
    wait_for(scene.is_drained, 60, scene.story)
    scene.check()


async def test_what_runs_beside_the_poison_is_not_blamed(tmp_path: Path, processes: Processes) -> None:
    scene = Scene(tmp_path, processes, 4, list(POISONED))
    await scene.publish()
    wait_for(scene.is_drained, 30, scene.story)
    scene.check()
