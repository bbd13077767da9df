"""The `adexport` command: serve, work, export without a server, and look at designs and networks."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.table import Table

from adexport.catalogue import sample_designs, summarize
from adexport.designs import load_samples
from adexport.entrypoints.exporting_here import Wish, export_here
from adexport.errors import AdExportError
from adexport.networks import load_networks
from adexport.settings import Settings, read_settings
from tidings import TidingsError

EXIT_SOME_FAILED = 1
EXIT_WRONG_REQUEST = 2
EXIT_NOTHING_MADE = 3
_SENTENCE = re.compile(r"(?<=[.?])\s+(?=[A-Z])")


# The advice of the service names its HTTP API; without a server there are commands and options for the same.
_ADVICE_HERE = (
    ("GET /v1/designs lists those there are", "Run `adexport designs` to see the samples, or give a JSON file"),
    (
        "Upload the picture with POST /v1/assets and use its digest",
        "Give the picture with --picture and use its digest",
    ),
    ("Upload it with POST /v1/assets", "Give it with --picture"),
    ("the store's URL", "ADEXPORT_STORE"),
)


def fail(what: str, error: Exception, code: int = EXIT_WRONG_REQUEST) -> NoReturn:
    """Say in three lines what failed, why, and what to do; then exit with `code`."""
    text = str(error)
    if isinstance(error, TidingsError):  # they say what to do after a colon
        text = re.sub(r": (\w)([^:]*)$", lambda found: f". {found[1].upper()}{found[2]}", text)
    sentences = _SENTENCE.split(text)
    why = " ".join(sentences[:-1]) or sentences[0]
    advice = sentences[-1] if len(sentences) > 1 else "Run the command with --help to see what it takes."
    for there, here in _ADVICE_HERE:
        advice = advice.replace(there, here)
    for line in (f"Error: {what}", f"Why: {why}", f"What to do: {advice}"):
        click.echo(line, err=True)
    sys.exit(code)


def _settings(**given: Any) -> Settings:
    try:
        settings = read_settings()
    except AdExportError as error:
        fail("The settings cannot be used.", error)
    return dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})


class _Commands(click.Group):
    """A group whose wrong uses are told in three lines as well."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command and exit with its code."""
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.ClickException as error:
            if error.message.startswith("Usage:"):  # without any argument click answers with the help, as an error
                error.show()
                sys.exit(error.exit_code)
            context = error.ctx if isinstance(error, click.UsageError) else None
            path = context.command_path if context else "adexport"
            why = error.format_message().rstrip(".").replace("a valid integer range", "a whole number")
            why += "" if why.endswith("?") else "."
            fail(
                "The command is not complete or not right.",
                AdExportError(f"{why} Run `{path} --help` for what it takes."),
            )
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="adexport")
def main() -> None:
    """One design, every size, every feed row: files that obey each ad network's rules.

    Exit codes: 0 all files made, 1 some files failed, 2 the request is wrong, 3 nothing was made, 130 interrupted.
    """


@main.command("serve")
@click.option("--port", type=click.IntRange(1, 65535), help="Port; the next free one when it is taken. [8000]")
@click.option("--host", help="Address to listen on. [127.0.0.1]")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Folder of database and files. [data]")
@click.option("--no-worker", is_flag=True, help="Only the API and the pages; run `adexport worker` beside it.")
def serve_command(port: int | None, host: str | None, data: Path | None, no_worker: bool) -> None:
    """Start the API, the pages and a worker."""
    from adexport.entrypoints.serving import serve  # the web framework is slow to import; other commands need none

    try:
        serve(_settings(port=port, host=host, data=data), consumers=not no_worker)
    except (AdExportError, TidingsError) as error:
        fail("Ad Export did not start.", error, EXIT_NOTHING_MADE)


@main.command("worker")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Folder of database and files. [data]")
def worker_command(data: Path | None) -> None:
    """Start a further worker on the data of a server."""
    from adexport.entrypoints.worker import work

    try:
        asyncio.run(work(_settings(data=data)))
    except (AdExportError, TidingsError) as error:
        fail("The worker did not start.", error, EXIT_NOTHING_MADE)


@main.command("export")
@click.argument("design")
@click.option("--feed", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CSV file with the rows.")
@click.option("--network", "networks", multiple=True, help="Ad network whose sizes and limits count; repeatable.")
@click.option("--size", "sizes", multiple=True, metavar="WxH", help="Size such as 300x250; repeatable.")
@click.option("--format", "formats", multiple=True, default=("jpeg",), show_default=True, help="png, jpeg, webp.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option("--picture", "pictures", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--naming", help="Pattern of the file names, such as {design}_{width}x{height}_{row}.{ext}.")
@click.option("--max-bytes", type=click.IntRange(1), help="Own limit for each file, in bytes.")
@click.option("--quality", type=click.IntRange(1, 100), help="Highest quality of JPEG and WebP.")
@click.option("--overwrite", is_flag=True, help="Allow a folder that holds files already.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end and no progress.")
def export_command(design: str, as_json: bool, **options: Any) -> None:
    """Make all files of DESIGN (a JSON file, or the name of a sample) without a server."""
    wish = Wish(design=design, **options)
    console = Console(stderr=True)
    try:
        report = asyncio.run(export_here(_settings(), wish, None if as_json else console))
    except (AdExportError, TidingsError, OSError) as error:
        fail("The export was not made.", error)
    except KeyboardInterrupt:
        click.echo("Interrupted: the files made so far were not kept.", err=True)
        sys.exit(130)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    sys.exit(0 if not report.failed else EXIT_SOME_FAILED if report.done else EXIT_NOTHING_MADE)


@main.command("designs")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def designs_command(as_json: bool) -> None:
    """List the sample designs."""
    found = [summarize(stored) for stored in sample_designs(load_samples()).values()]
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    rows = [(one.name, one.title, ", ".join(one.fields), str(len(one.sizes))) for one in found]
    _show(("Name", "Title", "Fields", "Sizes"), rows)


def _show(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for people; lines with tabs between the columns where another program reads."""
    console = Console()
    if not console.is_terminal:
        for row in (headings, *rows):
            click.echo("\t".join(row))
        return
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    console.print(table)


@main.command("networks")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def networks_command(name: str | None, as_json: bool) -> None:
    """List the ad networks, or the placements of one."""
    try:
        networks = load_networks(_settings().networks)
    except AdExportError as error:
        fail("The networks' rules cannot be read.", error)
    if name is not None and name not in networks:
        fail(
            "The network is not known.",
            AdExportError(f"There is no network {name!r}. Choose from {', '.join(networks)}."),
        )
    chosen = [networks[name]] if name is not None else list(networks.values())
    if as_json:
        click.echo(msgspec.json.encode(chosen).decode())
        return
    if name is None:
        listed = [(each.name, each.title, str(len(each.placements)), each.as_of.isoformat()) for each in chosen]
        _show(("Name", "Title", "Sizes", "As of"), listed)
        return
    places = [
        (
            name,
            place.name,
            place.size,
            f"{place.max_bytes / 1000:g} kB" if place.max_bytes else "none known",
            ", ".join(place.formats),
        )
        for place in chosen[0].placements
    ]
    _show(("Network", "Placement", "Size", "Limit", "Formats"), places)
