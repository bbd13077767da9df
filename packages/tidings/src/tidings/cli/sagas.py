"""`tidings saga`: where each saga stands and what it went through; a stuck one goes on, a running one is called off."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from tidings import operations
from tidings.cli.opening import Target, actor_option, confirm, json_option, store_options, yes_option
from tidings.cli.showing import ago, exact, now, say, show_facts, show_json, show_table, tell
from tidings.operations import UNFINISHED, SagaDetail
from tidings.rows import FINISHED, SagaRow

F = TypeVar("F", bound=Callable[..., Any])

Operation = Callable[..., Awaitable[None]]


def saga_arguments(command: F) -> F:
    """Add SAGA and ID: which saga is meant."""
    named = click.argument("saga_id", metavar="ID")(command)
    return click.argument("name", metavar="SAGA")(named)


def reason_option(command: F) -> F:
    """Add `--reason`."""
    return click.option("--reason", required=True, metavar="TEXT", help="Why; it stays in the saga's journal.")(command)


@click.command("list")
@click.option("--saga", "name", metavar="NAME", help="Of this name.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice((*UNFINISHED, *FINISHED)),
    default=UNFINISHED,
    show_default=True,
    help="In this state; may be given several times.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="List so many at most."
)
@store_options
@json_option
def list_sagas(target: Target, name: str | None, statuses: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List sagas that have not ended, or those in other states."""

    async def ask() -> list[SagaRow]:
        async with target.reading() as store:
            return await operations.sagas(store, name=name, statuses=statuses, limit=limit + 1)

    found = asyncio.run(ask())
    if as_json:
        show_json([_row_json(row) for row in found[:limit]])
        return
    if not found:
        say("Nothing matches.")
        return
    present = now()
    columns = ("saga", "id", "status", "events", "timers", "started", "changed", "reason")
    show_table(columns, [_line(row, present) for row in found[:limit]])
    if len(found) > limit:
        tell("There are more; see them with --limit.")


def _line(row: SagaRow, present: int) -> tuple[object, ...]:
    timers = ", ".join(row.timers) or None
    changed, started = ago(row.updated, present), ago(row.started, present)
    return (row.saga, row.id, row.status, row.version, timers, started, changed, row.reason)


@click.command("show")
@saga_arguments
@store_options
@json_option
def show_saga(target: Target, name: str, saga_id: str, as_json: bool) -> None:
    """Show everything of a saga: its state, its timers, and what each event did to it."""

    async def ask() -> SagaDetail:
        async with target.reading() as store:
            return await operations.saga(store, name, saga_id)

    found = asyncio.run(ask())
    row, present = found.row, now()
    if as_json:
        show_json({**_row_json(row), "due": {timer: exact(due) for timer, due in found.due.items()}})
        return
    timers = [f"{timer}: {ago(found.due[timer], present) if timer in found.due else 'now'}" for timer in row.timers]
    show_facts(
        {
            "saga": f"{row.saga} {row.id}",
            "status": row.status,
            "reason": row.reason,
            "started": exact(row.started),
            "changed": exact(row.updated),
            "timers": "\n".join(timers),
            "kept until": exact(row.expires),
            "state": json.dumps(json.loads(row.state), indent=2, ensure_ascii=False),
        }
    )
    say("")
    columns = ("time", "event", "status", "what it did")
    show_table(
        columns, [(exact(note.time), f"{note.type} {note.event_id}", note.status, note.text) for note in row.journal]
    )


def _row_json(row: SagaRow) -> dict[str, Any]:
    return {
        "saga": row.saga,
        "id": row.id,
        "status": row.status,
        "reason": row.reason,
        "version": row.version,
        "state_version": row.state_version,
        "state": json.loads(row.state),
        "timers": row.timers,
        "started": exact(row.started),
        "changed": exact(row.updated),
        "expires": exact(row.expires),
        "journal": [
            {
                "time": exact(note.time),
                "type": note.type,
                "event": note.event_id,
                "status": note.status,
                "did": note.text,
            }
            for note in row.journal
        ],
    }


@click.command("resume")
@saga_arguments
@reason_option
@actor_option
@store_options
def resume_saga(target: Target, name: str, saga_id: str, reason: str, actor: str) -> None:
    """Let a stuck saga ask again for the compensation that failed."""
    _do(target, operations.resume_saga, name, saga_id, reason=reason, actor=actor)
    say(f"{name} {saga_id} goes on, by {actor}: {reason}")


@click.command("skip")
@saga_arguments
@reason_option
@yes_option
@actor_option
@store_options
def skip_compensation(target: Target, name: str, saga_id: str, reason: str, yes: bool, actor: str) -> None:
    """Let a stuck saga go on with the next compensation: this one was done by hand."""
    tell(f"{name} {saga_id} will not ask again for what it is stuck on: it counts as taken back.")
    confirm("Was it done by hand?", yes)
    _do(target, operations.skip_compensation, name, saga_id, reason=reason, actor=actor)
    say(f"{name} {saga_id} goes on with what follows, by {actor}: {reason}")


@click.command("cancel")
@saga_arguments
@reason_option
@yes_option
@actor_option
@store_options
def cancel_saga(target: Target, name: str, saga_id: str, reason: str, yes: bool, actor: str) -> None:
    """Let a running saga take back what it has done."""
    tell(f"{name} {saga_id} will take back what it has done, and what is under way.")
    confirm("Call it off?", yes)
    _do(target, operations.cancel_saga, name, saga_id, reason=reason, actor=actor)
    say(f"{name} {saga_id} takes back what it has done, by {actor}: {reason}")


def _do(target: Target, operation: Operation, name: str, saga_id: str, *, reason: str, actor: str) -> None:
    async def act() -> None:
        async with target.writing() as store:
            await operation(store, name, saga_id, actor=actor, reason=reason, now=now())

    asyncio.run(act())
