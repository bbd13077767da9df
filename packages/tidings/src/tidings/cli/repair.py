"""Commands that change a store or a subscription: pause, resume, narrow, forget, migrate, maintain."""

import asyncio
from collections.abc import Mapping

import click
import msgspec

from tidings import operations
from tidings.cli.opening import Target, actor_option, confirm, duration, json_option, store_options, yes_option
from tidings.cli.showing import clean, counter, now, say, show_json, show_table, tell
from tidings.operations import SubscriptionStatus


@click.command()
@click.argument("name")
@yes_option
@store_options
def forget(target: Target, name: str, yes: bool) -> None:
    """Remove a subscription with its pending events and dead letters, for good."""

    async def ask() -> SubscriptionStatus | None:
        async with target.reading() as store:
            state = await operations.status(store, now=now())
            return next((one for one in state.subscriptions if one.name == name), None)

    async def act() -> None:
        async with target.writing() as store:
            await operations.forget(store, name)

    found = asyncio.run(ask())
    if found is not None:
        left = {"pending": found.pending, **found.counts}
        tell(f"To be forgotten: {name} of {found.service}; with it, for this subscription, " + _numbers(left))
        confirm("Forget it for good?", yes)
    asyncio.run(act())
    say(f"{name} is forgotten.")


@click.command()
@click.argument("name")
@click.argument("event_type", metavar="TYPE")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stays with what is discarded.")
@yes_option
@actor_option
@store_options
def narrow(target: Target, name: str, event_type: str, reason: str, yes: bool, actor: str) -> None:
    """Let a subscription take a type no more, and discard what is parked of it."""
    tell(f"{name} will not take {event_type} any more; what is parked of it for {name} is discarded.")
    confirm("Give it up for good?", yes)

    async def act() -> int:
        async with target.writing() as store:
            return await operations.narrow(store, name, event_type, actor=actor, reason=reason, now=now())

    number = asyncio.run(act())
    say(f"{name} takes {event_type} no more; {number} parked events were discarded by {actor}: {reason}")


def _numbers(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items())


@click.command()
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; everybody who asks is told.")
@actor_option
@store_options
def pause(target: Target, name: str, reason: str, actor: str) -> None:
    """Stop a subscription on every worker, until it is resumed; its events wait."""

    async def act() -> None:
        async with target.writing() as store:
            await operations.pause(store, name, actor=actor, reason=reason)

    asyncio.run(act())
    say(f"{name} is paused by {actor}: {reason}")


@click.command()
@click.argument("name")
@store_options
def resume(target: Target, name: str) -> None:
    """Let a paused subscription go on."""

    async def act() -> None:
        async with target.writing() as store:
            await operations.resume(store, name)

    asyncio.run(act())
    say(f"{name} goes on.")


@click.command()
@click.option("--list", "only_list", is_flag=True, help="Only list the migrations, and which the store has.")
@click.option("--print", "only_print", is_flag=True, help="Only print the SQL that is missing, to apply it by hand.")
@store_options
@json_option
def migrate(target: Target, only_list: bool, only_print: bool, as_json: bool) -> None:
    """Apply the migrations that a store lacks, each once, all in one transaction."""
    store = target.store()
    if only_list or only_print:
        every = asyncio.run(operations.migrations(store))
        missing = [one for one in every if not one.applied]
        if as_json:
            show_json([msgspec.structs.asdict(one) for one in (every if only_list else missing)])
        elif only_list:
            show_table(("migration", "state"), [(one.name, "applied" if one.applied else "missing") for one in every])
        else:
            for one in missing:
                click.echo(f"-- {one.name}\n{one.sql}")
        return
    applied = asyncio.run(operations.migrate(store))
    if as_json:
        show_json({"applied": applied})
    else:
        say(f"Applied: {', '.join(applied)}." if applied else "Nothing to apply: the store is up to date.")


@click.command()
@click.option(
    "--horizon",
    callback=duration,
    default="14d",
    show_default=True,
    metavar="DURATION",
    help="How long duplicates are recognised at least; longer if a service on this store says so.",
)
@store_options
@json_option
def maintain(target: Target, horizon: int, as_json: bool) -> None:
    """Drop events whose retention has ended, but nothing that is not settled. Workers do the same by themselves."""

    async def act() -> operations.Maintained:
        async with target.writing() as store:
            return await operations.maintain(store, now=now(), horizon=horizon, progress=counter("rows dropped"))

    done = asyncio.run(act())
    if as_json:
        show_json(msgspec.to_builtins(done))
        return
    for keep, number in done.dropped.items():
        say(f"{number} events dropped that were kept for {clean(keep)} s.")
    say(f"{done.admitted} admissions past the horizon dropped.")
    for reason in done.left:
        say(f"Left to the next upkeep: {clean(reason)}")
