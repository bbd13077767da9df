"""The lock of subscriptions: written by hand, checked in CI."""

from pathlib import Path

import click

from tidings import operations
from tidings.cli.failing import NOT_SO, CommandError
from tidings.cli.opening import app_dir_option, load_service
from tidings.cli.showing import say
from tidings.operations import Difference


@click.command()
@click.argument("target", metavar="MODULE:SERVICE")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the code and the file differ.")
@click.option(
    "--file",
    "place",
    default="tidings.lock",
    show_default=True,
    metavar="PATH",
    help="The lock file, kept in version control.",
)
@app_dir_option
def lock(target: str, check: bool, place: str, app_dir: str) -> None:
    """Write the names of a service's subscriptions to a file, or check the code against it.

    A name that vanishes from the code leaves its pending events waiting; in a committed file, a review sees it.
    """
    service = load_service(target, app_dir)
    service.resolve()
    code = operations.declared(service.name, service.subscriptions)
    file = Path(place)
    found = None
    if file.exists():
        old = operations.lock_from_json(file.read_bytes(), place)
        found = operations.differences(old, code, {one.name: one.renamed_from for one in service.subscriptions})
        for one in found:
            say(_line(one))
    if check:
        _check(found, place, target)
        say(f"{place} agrees with the code: {len(code.subscriptions)} subscriptions.")
        return
    file.write_text(operations.lock_to_json(code), "utf-8")
    say(f"{place} written: {len(code.subscriptions)} subscriptions.")


def _line(one: Difference) -> str:
    return f"{one.change}: {one.name} ({one.detail})"


def _check(found: list[Difference] | None, place: str, target: str) -> None:
    if found is None:
        why = f"{place} does not exist"
    elif found:
        why = "; ".join(_line(one) for one in found)
    else:
        return
    do = f"If this is meant, run `tidings subscription lock {target}` and commit {place}; else restore the names."
    raise CommandError("The subscriptions differ from the lock.", why, do, NOT_SO)
