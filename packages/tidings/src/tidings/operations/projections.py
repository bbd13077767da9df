"""What an operator asks of projections and does to them: how far each version is, swap, rebuild, drop, replay."""

from msgspec import Struct

from tidings.consuming.worker import handles
from tidings.errors import OperationError
from tidings.operations.overview import SubscriptionStatus, status
from tidings.operations.subscriptions import pause, resume
from tidings.rows import ProjectionRow, SubscriptionRow
from tidings.sourcing import replay as reading_again
from tidings.sourcing.replay import rebuild, swap, versions
from tidings.store import Store
from tidings.world import moment

__all__ = ["ProjectionStatus", "Replay", "drop", "pause_projection", "plan_replay", "projections", "rebuild",
           "replay", "resume_projection", "swap"]  # fmt: skip


class ProjectionStatus(Struct, frozen=True):
    """One version of a projection, and how far its subscription is; `live`: it is the one that queries read."""

    name: str
    version: int
    live: bool
    inline: bool
    tables: tuple[str, ...]
    subscription: SubscriptionStatus


class Replay(Struct, frozen=True):
    """What a replay would do: the subscription, the position after which it begins, and how many events that are."""

    subscription: SubscriptionRow
    after: int
    events: int


async def projections(store: Store, *, now: int, name: str | None = None) -> list[ProjectionStatus]:
    """Return the versions of a projection, or of all; raises OperationError for a name that is not known."""
    reading = store.reading
    rows = await reading.projections() if name is None else await versions(reading, name)
    known = {one.name: one for one in (await status(store, now=now)).subscriptions}
    return [
        ProjectionStatus(row.name, row.version, row.live, row.inline, row.tables, known[row.subscription])
        for row in rows
        if row.subscription in known
    ]


async def pause_projection(store: Store, name: str, version: int | None, *, actor: str, reason: str) -> ProjectionRow:
    """Stop a version everywhere, by default the live one; raises OperationError."""
    row = await _version(store, name, version)
    await pause(store, row.subscription, actor=actor, reason=reason)
    return row


async def resume_projection(store: Store, name: str, version: int | None) -> ProjectionRow:
    """Let a paused version go on, by default the live one; raises OperationError."""
    row = await _version(store, name, version)
    await resume(store, row.subscription)
    return row


async def _version(store: Store, name: str, version: int | None) -> ProjectionRow:
    rows = await versions(store.reading, name)
    found = next((row for row in rows if (row.live if version is None else row.version == version)), None)
    if found is None:
        wanted = "live version" if version is None else f"version {version}"
        known = ", ".join(str(row.version) for row in rows)
        raise OperationError(f"The projection {name} has no {wanted}: the store knows {known}.")
    return found


async def drop(store: Store, name: str, version: int, *, now: int, even_live: bool = False) -> ProjectionRow:
    """Remove a version with its tables. Raises OperationError for the live one unless so said, and while a worker
    still keeps it."""
    row = await _version(store, name, version)
    keeping = [one for one in await store.reading.workers() if store.is_alive(one, now)]
    busy = [one.id for one in keeping if handles(row.subscription) in one.roles]
    if busy:
        raise OperationError(
            f"Version {version} of the projection {name} is still kept by {', '.join(busy)}: stop them, or deploy a "
            "release that does not declare it."
        )
    return await reading_again.drop(store, name, version, even_live=even_live)


async def plan_replay(store: Store, name: str, *, position: int | None = None, time: int | None = None) -> Replay:
    """Count what a replay after a position, or from a time (microseconds), would handle; raises OperationError."""
    reading = store.reading
    row = await reading_again.replayable(reading, name)
    after = await reading.position_at(time) if time is not None else position or 0
    head = await reading.head()
    if after > head:
        when = f" at {moment(time).isoformat()}" if time is not None else ""
        raise OperationError(f"The log ends at position {head}{when}: there is nothing after {after} to replay.")
    return Replay(row, after, await reading.count(row.types, after))


async def replay(store: Store, plan: Replay) -> None:
    """Do what was planned; see sourcing.replay."""
    await reading_again.replay(store, plan.subscription.name, plan.after)
