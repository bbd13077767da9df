"""`tidings topology`: what a service's transports need to be there, made or checked."""

import asyncio

import click

from tidings.cli.failing import NOT_SO, CommandError
from tidings.cli.opening import app_dir_option, load_service
from tidings.cli.showing import clean, say
from tidings.service import Service


@click.command()
@click.argument("target", metavar="MODULE:SERVICE")
@app_dir_option
def apply(target: str, app_dir: str) -> None:
    """Make the queues, topics, subscriptions and policies that a service's transports name, and print what changed."""
    service = load_service(target, app_dir)

    async def act() -> list[str]:
        return [line for topology in service.topologies() for line in await topology.apply()]

    lines = asyncio.run(act())
    for line in lines:
        say(clean(line))
    say(f"{len(lines)} changes." if lines else _agreeing(service))


@click.command()
@click.argument("target", metavar="MODULE:SERVICE")
@app_dir_option
def check(target: str, app_dir: str) -> None:
    """Print what is missing or different, change nothing; exit with 1 if there is anything."""
    service = load_service(target, app_dir)

    async def act() -> list[str]:
        return [line for topology in service.topologies() for line in await topology.check()]

    lines = asyncio.run(act())
    for line in lines:
        say(clean(line))
    if lines:
        raise CommandError(
            "The broker is not as the service needs it.", f"{len(lines)} things are missing or different",
            f"Run `tidings topology apply {target}`, or change the transport's URL.", NOT_SO,
        )  # fmt: skip
    say(_agreeing(service))


def _agreeing(service: Service) -> str:
    if not service.topologies():
        return "The transports of this service need nothing to be made."
    return "Everything is there, and as the service needs it."
