"""`tidings dlq`: what failed for good, shown with everything known of it, tried again or given up."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from tidings import operations
from tidings.cli.failing import NOT_SO, CommandError
from tidings.cli.opening import Target, actor_option, confirm, json_option, store_options, time, yes_option
from tidings.cli.showing import (
    ago,
    counter,
    event_json,
    exact,
    now,
    pretty,
    say,
    show_facts,
    show_json,
    show_table,
    tell,
)
from tidings.operations import DeadLetter, Filter, Outcome
from tidings.rows import BEHIND, DEAD, DISCARDED, PARKED, RETRY

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(*states: str) -> Callable[[F], F]:
    """Add the options of a filter; the command gets one `which`, a Filter."""
    options = [
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice(states),
            default=(DEAD,),
            show_default=True,
            help="In this state; may be given several times.",
        ),
        click.option("--subscription", metavar="NAME", help="Of this subscription; '*' is landing."),
        click.option("--type", metavar="NAME", help="Of this event type."),
        click.option("--key", metavar="KEY", help="Of this key."),
        click.option("--error", metavar="TEXT", help="With this text in the reason, or in any attempt's error."),
        click.option(
            "--since", callback=time, metavar="TIME", help="That came there since: 2h (ago), or 2026-11-24T10:00:00Z."
        ),
        click.option("--event", "event_id", metavar="ID", help="With this event id."),
    ]

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command("list")
@filter_options(DEAD, PARKED, DISCARDED, RETRY, BEHIND)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="List so many at most."
)
@store_options
@json_option
def list_letters(target: Target, limit: int, as_json: bool, **which: Any) -> None:
    """List dead letters, in the order of the log."""
    found = _letters(target, Filter(**which))
    if as_json:
        show_json([_letter_json(letter) for letter in found[:limit]])
        return
    if not found:
        say("Nothing matches.")
        return
    present = now()
    columns = ("position", "subscription", "state", "type", "key", "event", "attempts", "since", "reason")
    show_table(columns, [_letter_line(letter, present) for letter in found[:limit]])
    if len(found) > limit:
        tell(f"{len(found) - limit} more; see them with --limit.")


def _letters(target: Target, which: Filter) -> list[DeadLetter]:
    async def ask() -> list[DeadLetter]:
        async with target.reading() as store:
            return await operations.letters(store, which)

    return asyncio.run(ask())


def _letter_line(letter: DeadLetter, present: int) -> tuple[object, ...]:
    event = letter.event
    return (
        letter.position,
        letter.subscription,
        letter.state,
        event.type if event else None,
        event.key if event else None,
        event.id if event else None,
        letter.attempts,
        ago(letter.updated, present),
        letter.reason,
    )


def _letter_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "subscription": letter.subscription,
        "position": letter.position,
        "state": letter.state,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "updated": exact(letter.updated),
        "due": exact(letter.due),
        "actor": letter.actor,
        "failures": [{**msgspec.structs.asdict(one), "time": exact(one.time)} for one in letter.failures],
        "event": event_json(letter.event) if letter.event else None,
    }


@click.command("show")
@click.argument("event_id", metavar="ID")
@click.option("--subscription", metavar="NAME", help="Only for this subscription.")
@store_options
@json_option
def show_letter(target: Target, event_id: str, subscription: str | None, as_json: bool) -> None:
    """Show everything of a dead letter: attributes, data, every attempt with its traceback.

    ID is the event's id; it is shown for each subscription that holds it, in whatever state.
    """
    which = Filter((DEAD, PARKED, DISCARDED, RETRY, BEHIND), subscription=subscription, event_id=event_id)
    found = _letters(target, which)
    if as_json:
        show_json([_letter_json(letter) for letter in found])
    else:
        for letter in found:
            _show(letter)
    if not found:
        do = "Ask `tidings where` for it: it may be handled or pending."
        raise CommandError(
            f"There is no dead letter {event_id}.", "No subscription holds an event of this id", do, NOT_SO
        )


def _show(letter: DeadLetter) -> None:
    attributes = event_json(letter.event) if letter.event else {}
    show_facts(
        {
            "subscription": letter.subscription,
            "state": letter.state,
            "position": letter.position,
            "attempts": letter.attempts,
            "reason": letter.reason,
            "since": exact(letter.updated),
            "due": exact(letter.due),
            "by": letter.actor,
            **{name: value for name, value in attributes.items() if name not in ("data", "data_base64")},
        }
    )
    say("")
    say(pretty(letter.event) if letter.event else "The event itself is gone: its retention has ended.")
    for one in letter.failures:
        say(f"\nAttempt {one.attempt}, {exact(one.time)}: {one.error}: {one.message}")
        say(one.traceback.rstrip())
    say("")


@click.command()
@filter_options(DEAD, PARKED)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="At most so many in a second. [default: at once]",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first so many.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@actor_option
@yes_option
@store_options
@json_option
def redrive(
    target: Target,
    rate: float | None,
    limit: int | None,
    dry_run: bool,
    actor: str,
    yes: bool,
    as_json: bool,
    **which: Any,
) -> None:
    """Let dead letters be tried again, with all their attempts; events of one key in their order."""
    chosen = Filter(**which)

    async def act(dry: bool, expected: Callable[[int], None]) -> Outcome:
        async with target.reading() if dry else target.writing() as store:
            return await operations.redrive(
                store, chosen, actor=actor, now=now(), rate=rate, limit=limit, dry_run=dry, progress=expected
            )

    if _propose(target, chosen, limit, "redriven"):
        confirm("Redrive them?", yes or dry_run)
    _carry_out(act, dry_run, "redriven", as_json)


@click.command()
@filter_options(DEAD, PARKED, RETRY)
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept with the event.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first so many.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@actor_option
@yes_option
@store_options
@json_option
def discard(
    target: Target, reason: str, limit: int | None, dry_run: bool, actor: str, yes: bool, as_json: bool, **which: Any
) -> None:
    """Give dead letters up for good, in your name and for a reason; their keys are free again."""
    chosen = Filter(**which)

    async def act(dry: bool, expected: Callable[[int], None]) -> Outcome:
        async with target.reading() if dry else target.writing() as store:
            return await operations.discard(
                store, chosen, actor=actor, reason=reason, now=now(), limit=limit, dry_run=dry, progress=expected
            )

    if _propose(target, chosen, limit, "discarded"):
        confirm("Discard them for good?", yes or dry_run)
    _carry_out(act, dry_run, "discarded", as_json)


def _propose(target: Target, chosen: Filter, limit: int | None, done: str) -> bool:
    """Show what would be done; say whether there is anything."""
    found = _letters(target, chosen)[:limit]
    groups = Counter((one.subscription, one.event.type if one.event else "?") for one in found)
    for (subscription, kind), number in sorted(groups.items()):
        tell(f"To be {done}: {number} × {kind} of {subscription}")
    return bool(found)


def _carry_out(act: Callable[..., Any], dry: bool, done: str, as_json: bool) -> None:
    outcome: Outcome = asyncio.run(act(dry, counter(done)))
    if as_json:
        show_json({**msgspec.to_builtins(outcome), "dry_run": dry})
    else:
        say(f"{outcome.done} {'would be ' * dry}{done}." + _changed(outcome))
    for reason in outcome.refused:
        tell(f"Refused: {reason}")


def _changed(outcome: Outcome) -> str:
    return f" {outcome.changed} had changed meanwhile and were left alone." if outcome.changed else ""
