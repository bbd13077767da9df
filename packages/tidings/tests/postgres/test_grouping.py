"""Group commit: everyone who publishes is answered, however the turns of the loop fall."""

import asyncio
from collections.abc import Sequence

import pytest

from tidings.backends.postgres.grouping import MOST_IN_A_GROUP, Groups
from tidings.errors import ConstraintError


class Inserted:
    """Stands where the database would: counts turns of the loop instead of waiting for it."""

    def __init__(self, turns: int, refused: str = "") -> None:
        self.groups: list[list[str]] = []
        self._turns = turns
        self._refused = refused

    async def insert(self, ids: Sequence[str]) -> list[str]:
        for _ in range(self._turns):
            await asyncio.sleep(0)
        if self._refused in ids:
            raise ConstraintError("refused")
        self.groups.append(list(ids))
        return [f"done {one}" for one in ids]


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("callers", [1, 2, 3, 50])
async def test_everyone_is_answered(callers: int, turns: int) -> None:
    """A flush that has ended looks no more at what waits: who comes then must begin the next one."""
    inserted = Inserted(turns)
    groups = Groups(inserted.insert)

    async def publish(caller: int) -> None:
        for number in range(20 if caller else 60):
            assert await groups.submit(f"{caller}-{number}") == f"done {caller}-{number}"
            for _ in range(number % 4):
                await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await asyncio.gather(*(publish(caller) for caller in range(callers)))
    await groups.drain()
    assert sum(len(group) for group in inserted.groups) == 20 * (callers - 1) + 60


async def test_a_refused_event_fails_alone_and_groups_have_a_limit() -> None:
    inserted = Inserted(3, refused="7")
    groups = Groups(inserted.insert)
    wanted = [groups.submit(str(number)) for number in range(MOST_IN_A_GROUP + 50)]
    outcomes = await asyncio.gather(*wanted, return_exceptions=True)
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [7]
    assert isinstance(outcomes[7], ConstraintError)
    assert max(len(group) for group in inserted.groups) <= MOST_IN_A_GROUP


async def test_what_shares_a_place_waits_for_the_next_group_in_its_order() -> None:
    inserted = Inserted(3)
    groups = Groups(inserted.insert, place=lambda item: item[0])
    await asyncio.gather(*(groups.submit(item) for item in ("a1", "b1", "a2", "c1", "a3", "b2")))
    assert all(len({item[0] for item in group}) == len(group) for group in inserted.groups)
    order = [item for group in inserted.groups for item in group]
    assert [item for item in order if item[0] == "a"] == ["a1", "a2", "a3"]
