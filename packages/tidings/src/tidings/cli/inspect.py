"""Commands that only look: where an event is, what is new, how the store and its subscriptions are."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from tidings import operations
from tidings.cli.failing import NOT_SO, CommandError
from tidings.cli.opening import Target, json_option, store_options
from tidings.cli.showing import ago, event_json, exact, now, say, show_facts, show_json, show_table, span
from tidings.operations import NOT_ITS_OWN, Place, Status, SubscriptionStatus, Whereabouts
from tidings.rows import Record
from tidings.world import microseconds


@click.command()
@click.argument("event_id", metavar="ID")
@store_options
@json_option
def where(target: Target, event_id: str, as_json: bool) -> None:
    """Say where an event is for every subscription, and why; what caused it, and what it caused.

    ID is the event's id. Exits with 1 if it is not known here.
    """

    async def ask() -> list[Whereabouts]:
        async with target.reading() as store:
            return await operations.where(store, event_id, now=now())

    found = asyncio.run(ask())
    if as_json:
        show_json([_where_json(one) for one in found])
    elif found:
        for one in found:
            _show_where(one)
    if not found:
        raise CommandError(
            f"Event {event_id} is not known.",
            "It was never published on this store, was cancelled while scheduled, or its retention has ended",
            "Check the id and the store; at another service's store the same event has the same id.",
            NOT_SO,
        )


def _where_json(one: Whereabouts) -> dict[str, Any]:
    return {
        "event": event_json(one.envelope),
        "position": one.position,
        "due": exact(one.due),
        "places": [
            {**msgspec.structs.asdict(place), "due": exact(place.due), "since": exact(place.since)}
            for place in one.places
        ],
        "cause": event_json(one.cause) if one.cause else None,
        "caused": [event_json(envelope) for envelope in one.caused],
        "caused_later": [event_json(envelope) for envelope in one.caused_later],
    }


def _show_where(one: Whereabouts) -> None:
    present, envelope = now(), one.envelope
    show_facts(
        {
            "event": envelope.id,
            "type": f"{envelope.type} (version {envelope.version})",
            "source": envelope.source,
            "time": exact(microseconds(envelope.time)),
            "key": envelope.key,
            "position": one.position,
            "state": None
            if one.due is None
            else f"scheduled: it becomes an event {ago(one.due, present)} ({exact(one.due)})",
            "caused by": f"{one.cause.type} {one.cause.id}" if one.cause else envelope.causation,
            "caused": _caused(one),
        }
    )
    say("")
    _show_places(one.places)
    if not one.places and one.due is None:
        say("No subscription is on this store yet.")
    say("")


def _caused(one: Whereabouts) -> str:
    """Return a line for each event that this one has caused, below each other in the column of values."""
    lines = [f"{caused.type} {caused.id}" for caused in one.caused]
    lines += [f"{caused.type} {caused.id} (scheduled)" for caused in one.caused_later]
    return "\n".join(lines)


def _show_places(places: Sequence[Place]) -> None:
    others: dict[str, list[str]] = {}  # why -> the subscriptions whose own it is not
    for place in places:
        if place.state == NOT_ITS_OWN:
            others.setdefault(place.why, []).append(place.subscription)
            continue
        name = "landing" if place.subscription == "*" else place.subscription
        attempts = f", {place.attempts} attempt{'s' * (place.attempts != 1)}" if place.attempts else ""
        say(f"{name}: {place.state}{attempts}")
        say(f"    {place.why}")
    for why, names in others.items():
        say(f"{', '.join(names)}: {NOT_ITS_OWN}")
        say(f"    {why}")


@click.command()
@click.option(
    "--type", "types", multiple=True, metavar="NAME", help="Only events of this type; may be given several times."
)
@click.option(
    "--after",
    type=click.IntRange(0),
    metavar="POSITION",
    help="Begin after a position, 0 for the whole log. [default: now]",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many events.")
@store_options
@json_option
def tail(target: Target, types: tuple[str, ...], after: int | None, limit: int | None, as_json: bool) -> None:
    """Print events as they are committed, until Ctrl-C. With --json one document a line."""

    async def follow() -> None:
        shown = 0
        async with target.reading() as store:
            async for record in operations.tail(store, after=after, types=types or None):
                _show_record(record, as_json)
                shown += 1
                if shown == limit:
                    return

    try:
        asyncio.run(follow())
    except KeyboardInterrupt:
        return


def _show_record(record: Record, as_json: bool) -> None:
    event = event_json(record.envelope)
    if as_json:
        click.echo(json.dumps({"position": record.position, "event": event}))
        return
    data = json.dumps(event["data"], ensure_ascii=False) if "data" in event else f"{len(record.envelope.data)} bytes"
    say(f"{record.position}  {event['time']}  {event['type']}  {event.get('key', '–')}  {event['id']}  {data}")


@click.command("status")
@store_options
@json_option
def store_status(target: Target, as_json: bool) -> None:
    """Show the log, every subscription with its lag, the workers, and what needs somebody."""
    state = _status(target)
    if as_json:
        show_json(_status_json(state))
        return
    present = now()
    show_facts(
        {
            **state.store,
            "newest position": state.head,
            "scheduled": _scheduled(state, present),
            **_landing(state),
            **_followed(state),
        }
    )
    say("")
    _show_subscriptions(state)
    say("")
    if state.workers:
        columns = ("worker", "service", "roles", "pid", "host", "started", "state")
        show_table(
            columns,
            [
                (
                    w.id,
                    w.service,
                    ", ".join(w.roles) or "publishes only",
                    w.pid,
                    w.host.partition("/")[0],  # with its boot and pid namespace in --json
                    ago(w.started, present),
                    "alive" if w.alive else "dead",
                )
                for w in state.workers
            ],
        )
    else:
        say("No worker is running. Start one with `tidings run module:service`.")


def _status(target: Target) -> Status:
    async def ask() -> Status:
        async with target.reading() as store:
            return await operations.status(store, now=now())

    return asyncio.run(ask())


def _scheduled(state: Status, present: int) -> str:
    more = "+" if state.scheduled >= 1000 else ""
    return f"{state.scheduled}{more}" + (f", the first {ago(state.next_due, present)}" if state.next_due else "")


def _followed(state: Status) -> dict[str, object]:
    return {
        f"followed {place}": f"to its position {max(row.positions.values())}" for place, row in state.followed.items()
    }


def _landing(state: Status) -> dict[str, object]:
    return {f"{name} at landing": number for name, number in state.landing.items()}


def _status_json(state: Status) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(state)
    document["next_due"] = exact(state.next_due)
    for row, one in zip(document["subscriptions"], state.subscriptions, strict=True):
        row["oldest"] = exact(one.oldest)
    for row, worker in zip(document["workers"], state.workers, strict=True):
        row["started"] = exact(worker.started)
    return document


def _show_subscriptions(state: Status) -> None:
    if not state.subscriptions:
        say("No subscription is on this store yet. A service writes its own when it starts.")
        return
    columns = (
        "subscription",
        "kind",
        "pending",
        "lag",
        "waiting",
        "running",
        "retry",
        "behind",
        "parked",
        "dead",
        "state",
    )
    show_table(columns, [_line(one) for one in state.subscriptions])


def _line(one: SubscriptionStatus) -> tuple[object, ...]:
    counts = one.counts
    return (
        one.name,
        f"{one.kind}, ordered" if one.ordered else one.kind,
        one.pending,
        span(one.lag_seconds) if one.pending else "–",
        counts.get("ready", 0) - one.running,
        one.running,
        counts.get("retry", 0),
        counts.get("behind", 0),
        counts.get("parked", 0),
        counts.get("dead", 0),
        _state(one),
    )


def _state(one: SubscriptionStatus) -> str:
    if one.paused_by is not None:
        return f"paused by {one.paused_by}: {one.paused_because}"
    return "at work" if one.lanes else "no worker"


@click.command("list")
@store_options
@json_option
def list_subscriptions(target: Target, as_json: bool) -> None:
    """List the subscriptions on a store, with their lag and exceptions."""
    state = _status(target)
    if as_json:
        show_json(_status_json(state)["subscriptions"])
    else:
        _show_subscriptions(state)
