"""Bugs of projections, planted into the real code on purpose: the simulation must find every one of them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tidings.backends.sqlite.statements import SqliteStatements
from tidings.consuming.effects import Effects
from tidings.consuming.inline import InlineProjections
from tidings.consuming.lanes import Lanes
from tidings.consuming.projecting import Projecting
from tidings.events import Envelope
from tidings.rows import BarePage, LaneStep, ProjectionRow, Record
from tidings.sourcing import replay, tables
from tidings.statements import Statements
from tidings.testing.simulation.planting import Patch

MUTANTS: dict[str, Callable[[], list[Patch]]] = {}
"""Name -> the patches of one planted bug."""


def _mutant(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    MUTANTS[make.__name__.removeprefix("_")] = make
    return make


@_mutant
def _progress_outside_the_transaction() -> list[Patch]:
    """A page's read model commits first, its progress in a second transaction."""
    settle = Projecting._settle_page

    async def settle_in_two(self: Projecting, page: BarePage, lanes: Lanes) -> None:
        late: list[LaneStep] = []

        class Later:
            moves, confirm = lanes.moves, staticmethod(lambda steps, seen=0: None)

            @staticmethod
            async def insert(statements: Statements, steps: Sequence[LaneStep]) -> None:
                late.extend(steps)

        await settle(self, page, Later)  # type: ignore[arg-type]
        await self._store.run(lambda statements: lanes.insert(statements, late))
        lanes.confirm(late, page.scanned)

    return [(Projecting, "_settle_page", settle_in_two)]


@_mutant
def _swap_before_caught_up() -> list[Patch]:
    """A version is swapped in, however far it is."""

    async def look_away(*args: Any) -> None:
        return

    return [(replay, "_check_caught_up", look_away)]


@_mutant
def _inline_outside_the_transaction() -> list[Patch]:
    """What is published is handled inline after its transaction has committed, in one of its own."""
    handle = InlineProjections.handle

    async def handle_later(self: InlineProjections, statements: Statements, envelopes: Sequence[Envelope]) -> None:
        async def later() -> None:
            await self._store.run(lambda said: handle(self, said, envelopes))

        asyncio.get_running_loop().create_task(later())

    return [(InlineProjections, "handle", handle_later)]


@_mutant
def _versions_share_a_table() -> list[Patch]:
    """Both versions write one table."""
    return [(tables, "_versioned", lambda name, version: f"{name}_v1")]


@_mutant
def _inline_overtakes() -> list[Patch]:
    """What is published is handled inline, also where its lane has something to handle before."""

    async def every_lane(self: Any, subscription: str, lanes: Sequence[int]) -> set[int]:
        return set(lanes)

    return [(_owner("lanes_without_backlog"), "lanes_without_backlog", every_lane)]


@_mutant
def _inline_overtakes_its_key() -> list[Patch]:
    """What is published is handled inline, though an earlier event of its key is held."""

    async def in_turn(self: InlineProjections, statements: Any, name: str, envelopes: Sequence[Envelope]) -> Any:
        closed_keys = type(statements).closed_keys
        try:
            type(statements).closed_keys = _none_closed
            return await original(self, statements, name, envelopes)
        finally:
            type(statements).closed_keys = closed_keys

    original = InlineProjections._in_turn
    return [(InlineProjections, "_in_turn", in_turn)]


async def _none_closed(self: Any, subscription: str, keys: Sequence[str], *, by_work: bool = False) -> set[str]:
    return set()


@_mutant
def _lanes_repeat_what_was_inline() -> list[Patch]:
    """A lane handles what was handled inline already."""

    async def nothing(self: Effects, statements: Statements, records: Sequence[Record]) -> set[int]:
        return set()

    return [(Projecting, "_passed", nothing)]


@_mutant
def _rebuild_leaves_the_lanes() -> list[Patch]:
    """A rebuild empties the tables, and leaves the lanes where they are."""

    async def rewind(self: Any, row: ProjectionRow) -> None:
        for table in row.tables:
            self._db.run(f"DELETE FROM {table}")

    return [(_owner("rewind"), "rewind", rewind)]


def _owner(method: str) -> Any:
    """Return the class among the store's statements that defines a method."""
    return next(cls for cls in SqliteStatements.__mro__ if method in vars(cls))
