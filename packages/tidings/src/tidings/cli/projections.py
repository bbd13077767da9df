"""Commands about projections: list, status, swap, rebuild, pause, resume, drop; and replay of a subscription."""

import asyncio
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from tidings import operations
from tidings.cli.opening import Target, actor_option, confirm, duration, json_option, store_options, yes_option
from tidings.cli.opening import time as time_of
from tidings.cli.showing import exact, now, say, show_facts, show_json, show_table, span, tell
from tidings.errors import OperationError
from tidings.operations import ProjectionStatus

version_option = click.option("--version", "version", type=int, metavar="N", help="Which version. [default: the live]")


@click.command("list")
@store_options
@json_option
def list_projections(target: Target, as_json: bool) -> None:
    """List the versions of every projection, which is live, and how far each is behind."""
    found = _projections(target, None)
    if as_json:
        show_json(_json(found))
    elif not found:
        say("No projection is on this store yet. A service writes its own when it starts.")
    else:
        columns = ("projection", "version", "queries", "pending", "lag", "retry", "behind", "parked", "dead", "state")
        show_table(columns, [_line(one) for one in found])


@click.command("status")
@click.argument("name")
@store_options
@json_option
def projection_status(target: Target, name: str, as_json: bool) -> None:
    """Show each version of a projection: its tables, its lag, what it could not handle, and why it stands still."""
    found = _projections(target, name)
    if as_json:
        show_json(_json(found))
        return
    for number, one in enumerate(found):
        if number:
            say("")
        kept = one.subscription
        show_facts(
            {
                "version": f"{one.version}, {'live' if one.live else 'not live'}{', inline' if one.inline else ''}",
                "tables": ", ".join(one.tables),
                "subscription": kept.name,
                "events": ", ".join(kept.types),
                "pending": kept.pending,
                "lag": span(kept.lag_seconds) if kept.pending else "none",
                "held": ", ".join(f"{count} {state}" for state, count in kept.counts.items()) or "nothing",
                "state": _state(one),
            }
        )


def _projections(target: Target, name: str | None) -> list[ProjectionStatus]:
    async def ask() -> list[ProjectionStatus]:
        async with target.reading() as store:
            return await operations.projections(store, now=now(), name=name)

    return asyncio.run(ask())


def _json(found: Sequence[ProjectionStatus]) -> list[dict[str, Any]]:
    document: list[dict[str, Any]] = msgspec.to_builtins(found)
    for row, one in zip(document, found, strict=True):
        row["subscription"]["oldest"] = exact(one.subscription.oldest)
    return document


def _line(one: ProjectionStatus) -> tuple[object, ...]:
    kept = one.subscription
    held = [kept.counts.get(state, 0) for state in ("retry", "behind", "parked", "dead")]
    lag = span(kept.lag_seconds) if kept.pending else "–"
    return (one.name, one.version, "live" if one.live else "–", kept.pending, lag, *held, _state(one))


def _state(one: ProjectionStatus) -> str:
    kept = one.subscription
    if kept.paused_by is not None:
        return f"paused by {kept.paused_by}: {kept.paused_because}"
    if not kept.lanes:
        return "no worker"
    return "follows" if one.live or not kept.pending else "is built"


@click.command()
@click.argument("name")
@click.option("--version", type=int, metavar="N", help="Which version. [default: the highest]")
@click.option(
    "--wait",
    callback=duration,
    default="0s",
    metavar="DURATION",
    help="How long to wait until it is caught up. [default: not at all]",
)
@store_options
def swap(target: Target, name: str, version: int | None, wait: int) -> None:
    """Let queries read another version, once it has handled all that the live one has."""

    async def act() -> tuple[int, int]:
        async with target.writing() as store:
            return await operations.swap(store, name, version, patience=wait / 1e6)

    old, new = asyncio.run(act())
    say(f"Queries of {name} read version {new} now; version {old} still follows, until it is dropped.")


@click.command()
@click.argument("name")
@click.option("--version", type=int, required=True, metavar="N", help="Which version.")
@click.option("--in-place", is_flag=True, help="Also if it is live: queries see it empty, and grow again.")
@yes_option
@store_options
def rebuild(target: Target, name: str, version: int, in_place: bool, yes: bool) -> None:
    """Empty a version's tables, and let it handle every event again."""
    _rebuild(target, name, version, in_place=in_place, yes=yes)


def _rebuild(target: Target, name: str, version: int, *, in_place: bool, yes: bool, dry_run: bool = False) -> None:
    found = next((one for one in _projections(target, name) if one.version == version), None)
    if found is not None:
        tell(f"To be emptied and built again: {', '.join(found.tables)} ({'live' if found.live else 'not live'}).")
        if dry_run:
            return
        confirm("Rebuild it?", yes)

    async def act() -> None:
        async with target.writing() as store:
            await operations.rebuild(store, name, version, in_place=in_place)

    asyncio.run(act())
    say(f"Version {version} of {name} begins again.")


@click.command()
@click.argument("name")
@version_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; everybody who asks is told.")
@actor_option
@store_options
def pause(target: Target, name: str, version: int | None, reason: str, actor: str) -> None:
    """Stop a version on every worker, until it is resumed; queries go on."""

    async def act() -> int:
        async with target.writing() as store:
            return (await operations.pause_projection(store, name, version, actor=actor, reason=reason)).version

    say(f"Version {asyncio.run(act())} of {name} is paused by {actor}: {reason}")


@click.command()
@click.argument("name")
@version_option
@store_options
def resume(target: Target, name: str, version: int | None) -> None:
    """Let a paused version go on."""

    async def act() -> int:
        async with target.writing() as store:
            return (await operations.resume_projection(store, name, version)).version

    say(f"Version {asyncio.run(act())} of {name} goes on.")


@click.command()
@click.argument("name")
@click.option("--version", type=int, required=True, metavar="N", help="Which version.")
@click.option("--even-live", is_flag=True, help="Also if queries read it: the projection is given up.")
@yes_option
@store_options
def drop(target: Target, name: str, version: int, even_live: bool, yes: bool) -> None:
    """Remove a version that no release declares any more, with its tables."""
    found = next((one for one in _projections(target, name) if one.version == version), None)
    if found is not None:
        tell(f"To be dropped: {', '.join(found.tables)} ({'live' if found.live else 'not live'}).")
        confirm("Drop it for good?", yes)

    async def act() -> None:
        async with target.writing() as store:
            await operations.drop(store, name, version, now=now(), even_live=even_live)

    asyncio.run(act())
    say(f"Version {version} of {name} is dropped.")


@click.command()
@click.argument("name")
@click.option("--after", type=click.IntRange(min=0), metavar="POSITION", help="Begin after this position.")
@click.option("--since", callback=time_of, metavar="TIME", help="Begin at a time: 2h (ago), or 2026-11-24T10:00:00Z.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--in-place", is_flag=True, help="A projection: also if its version is live; queries see it grow again.")
@yes_option
@store_options
@click.pass_context
def replay(
    ctx: click.Context, target: Target, name: str, after: int | None, since: int | None, dry_run: bool, in_place: bool,
    yes: bool,
) -> None:  # fmt: skip
    """Let a subscription handle events of the past once more, from a position or a time; or build a projection anew."""
    if after is None and since is None and (found := _version_named(target, name)) is not None:
        _rebuild(target, found.name, found.version, in_place=in_place, yes=yes, dry_run=dry_run)
        return
    if (after is None) == (since is None):
        raise click.UsageError("say from where: give --after or --since, one of the two", ctx)
    _replay(target, name, after, since, dry_run=dry_run, yes=yes)


def _version_named(target: Target, name: str) -> ProjectionStatus | None:
    """Return the version that `balances@2`, or `balances` where it has one, names; None if that is no projection."""
    every = _projections(target, None)
    found = [one for one in every if name in (one.name, one.subscription.name)]
    if len(found) > 1:
        known = " or ".join(one.subscription.name for one in found)
        raise OperationError(f"The projection {name} has several versions: say {known}.")
    return found[0] if found else None


def _replay(target: Target, name: str, after: int | None, since: int | None, *, dry_run: bool, yes: bool) -> None:
    async def plan() -> operations.Replay:
        async with target.reading() as store:
            return await operations.plan_replay(store, name, position=after, time=since)

    planned = asyncio.run(plan())
    say(f"{planned.events} events after position {planned.after} would be handled by {name} once more.")
    if dry_run:
        return
    tell("Its effects are made again, what it publishes has new ids, and its dead letters and its work are forgotten.")
    confirm("Replay them?", yes)

    async def act() -> None:
        async with target.writing() as store:
            await operations.replay(store, planned)

    asyncio.run(act())
    say(f"{name} begins again after position {planned.after}. Workers that run it must be started again.")
