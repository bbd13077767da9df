"""Reading the log again: building a version of a projection anew, swapping it in, and replaying a subscription."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from tidings.errors import OperationError, ProjectionLagError, StoreError
from tidings.points import SWAP, reach
from tidings.rows import BEHIND, DEAD, PARKED, RETRY, ProjectionRow, SubscriptionRow
from tidings.statements import Statements
from tidings.store import Store

log = logging.getLogger("tidings")

SWAP_PAUSE = 0.05
"""Seconds between tries to swap a version in."""

BUILT_PAUSE = 0.25
"""Seconds between looks whether a version is built that goes live by itself."""

UNSETTLED = (RETRY, BEHIND, PARKED, DEAD)
"""States of exceptions that keep a version from going live: what the other one has handled it may lack."""


async def swap(store: Store, name: str, version: int | None = None, *, patience: float = 0.0) -> tuple[int, int]:
    """Let queries read another version, once it has handled all that the live one has; return both, the old first.

    Without a version: the highest. Tries for so many seconds. Raises ProjectionLagError while it is behind, and
    OperationError for a version that is not known, or is live.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        try:
            return await store.run(lambda statements: _swap(statements, name, version))
        except ProjectionLagError:
            if loop.time() >= until:
                raise
        await asyncio.sleep(SWAP_PAUSE)


async def swap_when_built(store: Store, name: str, version: int) -> None:
    """Let queries read a version once it has handled all that an older live one has; returns then, or if none is older.

    What it could not handle keeps it from going live, until somebody redrives or discards that. Tries again while the
    store is away.
    """
    while True:
        try:
            rows = await versions(store.reading, name)
            live = next((row for row in rows if row.live), None)
            if live is None or live.version >= version:
                return
            await _check_caught_up(store.reading, _version(rows, version), live)  # without keeping anybody waiting
            await swap(store, name, version)
            log.info("Queries of %s read version %d now; version %d still follows.", name, version, live.version)
            return
        except ProjectionLagError:
            pass
        except OperationError as error:
            if await store.reading.live_version(name) != version:  # else another process has swapped it in
                log.warning("Version %d of the projection %s does not go live by itself: %s", version, name, error)
            return
        except StoreError as error:
            log.warning("Whether %s is built could not be seen, and is looked at again: %s", name, error)
        await asyncio.sleep(BUILT_PAUSE)


@asynccontextmanager
async def swapping(store: Store, built: Iterable[tuple[str, int]]) -> AsyncIterator[None]:
    """Within this block, swap versions of projections in once they are built."""
    tasks = [asyncio.create_task(swap_when_built(store, name, version)) for name, version in built]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _swap(statements: Statements, name: str, version: int | None) -> tuple[int, int]:
    await statements.registering()
    rows = await versions(statements, name)
    live = next((row for row in rows if row.live), None)
    new = rows[-1] if version is None else _version(rows, version)
    if live is not None and live.version == new.version:
        raise OperationError(f"Version {new.version} of the projection {name} is live already.")
    if live is not None:
        # The live one stands still until this has committed: nobody's query goes back in time.
        await statements.fence(live.subscription)
        await _check_caught_up(statements, new, live)
    await statements.go_live(name, new.version)
    reach(SWAP)
    return live.version if live is not None else 0, new.version


async def _check_caught_up(statements: Statements, new: ProjectionRow, live: ProjectionRow) -> None:
    behind = await statements.behind(new.subscription, live.subscription)
    counts = await statements.counts()
    held = {state: counts.get((new.subscription, state), 0) for state in UNSETTLED}
    if behind or any(held.values()):
        said = ", ".join(f"{number} {state}" for state, number in held.items() if number)
        raise ProjectionLagError(
            f"Version {new.version} of the projection {new.name} has not handled {behind} events that version "
            f"{live.version} has{f', and holds {said}' if said else ''}: let it catch up, and redrive or discard what "
            f"it could not handle (`tidings dlq list --subscription {new.subscription}`)."
        )


async def rebuild(store: Store, name: str, version: int, *, in_place: bool = False) -> ProjectionRow:
    """Empty a version's tables, and let it handle every event again from where it started.

    Raises OperationError for one that is live unless it shall be rebuilt in place: queries see it grow again.
    """

    async def unit(statements: Statements) -> ProjectionRow:
        await statements.registering()
        row = _version(await versions(statements, name), version)
        if row.live and not in_place:
            raise OperationError(
                f"Version {version} of the projection {name} is live, and queries would see it empty: declare the next "
                "version, which is built beside it; or say that it shall be rebuilt in place."
            )
        await statements.rewind(row)
        return row

    return await store.run(unit)


async def drop(store: Store, name: str, version: int, *, even_live: bool = False) -> ProjectionRow:
    """Remove a version: its tables, its progress, its exceptions. Raises OperationError for the live one, unless so
    said."""

    async def unit(statements: Statements) -> ProjectionRow:
        await statements.registering()
        row = _version(await versions(statements, name), version)
        if row.live and not even_live:
            raise OperationError(
                f"Version {version} of the projection {name} is live: swap another one in first, or say that the whole "
                "projection shall go."
            )
        await statements.forget_projection(row)
        return row

    return await store.run(unit)


async def versions(statements: Statements, name: str) -> list[ProjectionRow]:
    """Return the versions of a projection, in order; raises OperationError if there are none."""
    rows = await statements.projections()
    found = [row for row in rows if row.name == name]
    if not found:
        known = ", ".join(sorted({row.name for row in rows})) or "none, until a service has started on it"
        raise OperationError(f"The store knows no projection {name!r}: it knows {known}.")
    return found


def _version(rows: Sequence[ProjectionRow], version: int) -> ProjectionRow:
    for row in rows:
        if row.version == version:
            return row
    known = ", ".join(str(row.version) for row in rows)
    raise OperationError(f"The projection {rows[0].name} has no version {version}: the store knows {known}.")


async def replay(store: Store, name: str, after: int) -> SubscriptionRow:
    """Let a subscription handle every event after a position once more, as if it were declared anew from there.

    Its exceptions and its work are forgotten; what it publishes has other ids than before (decision 15), and whoever
    runs it must be started again. Raises OperationError for a relay, a projection, or a name that is not known.
    """

    async def unit(statements: Statements) -> SubscriptionRow:
        await statements.registering()
        row = await replayable(statements, name)
        await statements.forget(name)
        await statements.register(replace(row, start=after))
        return row

    return await store.run(unit)


async def replayable(statements: Statements, name: str) -> SubscriptionRow:
    """Return a subscription that can be replayed; raises OperationError."""
    rows = await statements.subscriptions()
    row = next((one for one in rows if one.name == name), None)
    if row is None:
        known = ", ".join(one.name for one in rows) or "none, until a service has started on it"
        raise OperationError(f"The store knows no subscription {name!r}: it knows {known}.")
    if row.kind == "relay":
        raise OperationError(f"{name} is a relay: what it has sent is sent, and a copy would be the same event.")
    if row.kind == "projection":
        raise OperationError(
            f"{name} keeps a projection, whose tables hold what it has handled: `tidings projection rebuild` empties "
            "them first."
        )
    return row
