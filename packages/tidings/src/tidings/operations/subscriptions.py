"""What an operator does to a subscription: pause it, let it go on, take less, make the store forget it."""

from collections.abc import Sequence

from msgspec.structs import replace

from tidings.consuming.subscription import PROJECTION
from tidings.errors import OperationError
from tidings.operations.dead_letters import Filter, discard
from tidings.rows import PARKED, SubscriptionRow
from tidings.statements import Statements
from tidings.store import Store


async def pause(store: Store, name: str, *, actor: str, reason: str) -> None:
    """Stop a subscription everywhere, in somebody's name and for a reason, until it is resumed.

    What runs already is finished. Raises OperationError for a name that is not known, or a blank actor or reason.
    """
    if not actor.strip() or not reason.strip():
        raise OperationError("A subscription is paused in somebody's name and for a reason: give both.")
    await _set(store, name, actor, reason)


async def resume(store: Store, name: str) -> None:
    """Let a paused subscription go on. Raises OperationError for a name that is not known."""
    await _set(store, name, None, None)


async def _set(store: Store, name: str, actor: str | None, reason: str | None) -> None:
    async def unit(statements: Statements) -> None:
        await _known(statements, name)
        await statements.pause(name, actor, reason)

    await store.run(unit)


async def forget(store: Store, name: str) -> None:
    """Remove a subscription with its progress, its pending events and its exceptions; nobody can bring them back.

    Raises OperationError for a name that is not known, and for a version of a projection, which is dropped.
    """

    async def unit(statements: Statements) -> None:
        row = await _known(statements, name)
        if row.kind == PROJECTION:
            projection, _, version = name.rpartition("@")
            raise OperationError(
                f"{name} keeps a projection, whose tables would be left without it: use `tidings projection drop "
                f"{projection} --version {version}`."
            )
        await statements.forget(name)

    await store.run(unit)


async def narrow(store: Store, name: str, event_type: str, *, actor: str, reason: str, now: int) -> int:
    """Let a subscription take a type no more; discard what is parked of it, and return how many events that were.

    A release that declares the type adds it again when it starts. Raises OperationError for a name or a type that is
    not known, for the only type of a subscription, or a blank actor or reason.
    """
    if not actor.strip() or not reason.strip():
        raise OperationError("A type is given up in somebody's name and for a reason: give both.")

    async def unit(statements: Statements) -> None:
        await statements.registering()
        row = await _known(statements, name)
        left = tuple(one for one in row.types if one != event_type)
        if left == row.types or not left:
            raise OperationError(
                f"{name} takes {', '.join(row.types) or 'no type'}: name one of several that it takes. One that takes "
                f"nothing any more is given up with `tidings subscription forget {name}`."
            )
        await statements.register(replace(row, types=left))
        await statements.fence(name)  # no owner goes on to read the type

    await store.run(unit)
    parked = Filter(states=(PARKED,), subscription=name, type=event_type)
    return (await discard(store, parked, actor=actor, reason=reason, now=now)).done


async def _known(statements: Statements, name: str) -> SubscriptionRow:
    rows = await statements.subscriptions()
    for row in rows:
        if row.name == name:
            return row
    raise OperationError(f"The store knows no subscription {name!r}: it knows {_named(rows)}.")


def _named(rows: Sequence[SubscriptionRow]) -> str:
    return ", ".join(row.name for row in rows) or "none, until a service has started on it"
