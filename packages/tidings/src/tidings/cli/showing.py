"""How results are shown: tables for a person (rich if it is installed), columns for a pipe, JSON for a program."""

import importlib.util
import json
import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from tidings.events import Envelope
from tidings.world import microseconds, written

CELL = 100
"""Characters of a table's cell at most; `--json` has all of them."""


def now() -> int:
    """Return the present in microseconds since 1970 UTC."""
    return microseconds(datetime.now(UTC))


def clean(text: str) -> str:
    """Make control characters visible: what an event says must not steer a terminal."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )


def say(text: str) -> None:
    """Print to standard output."""
    click.echo(clean(text))


def tell(text: str) -> None:
    """Print to standard error: what is not a result."""
    click.echo(clean(text), err=True)


def show_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns of whole numbers are set to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        _rich_table(columns, cells)
        return
    widths = [max(len(line[number]) for line in [columns, *cells]) for number in range(len(columns))]
    for line in [columns, *cells]:
        aligned = [
            cell.rjust(width) if _is_number(cell) else cell.ljust(width)
            for cell, width in zip(line, widths, strict=True)
        ]
        click.echo("  ".join(aligned).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[number]) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    Console().print(table)


def _cell(value: object) -> str:
    text = " ".join(clean("–" if value is None else str(value)).split())
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def show_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one a line, further lines of a value below it; those without a value are left out."""
    shown = {name: value for name, value in facts.items() if value is not None and value != ""}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        first, *more = str(value).split("\n")
        say(f"{name.ljust(width)}  {first}")
        for line in more:
            say(f"{' ' * width}  {line}")


def exact(time: int | None) -> str | None:
    """Return a time of the store in ISO 8601, UTC."""
    return None if time is None else written(time)


def ago(time: int | None, present: int) -> str | None:
    """Return how long ago a time is, or in how long, in one unit."""
    if time is None:
        return None
    seconds = abs(present - time) / 1e6
    text = span(seconds)
    return f"{text} ago" if time <= present else f"in {text}"


def span(seconds: float) -> str:
    """Return a duration in one unit: ms, s, min, h, d."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, size in (("s", 60.0), ("min", 60.0), ("h", 24.0)):
        if seconds < size:
            return f"{seconds:.0f} {unit}" if seconds >= 10 else f"{seconds:.1f} {unit}"
        seconds /= size
    return f"{seconds:.1f} d"


def event_json(envelope: Envelope) -> dict[str, Any]:
    """Return an event as JSON: its attributes, and its data as what it says (bytes that are no JSON in base64)."""
    attributes: dict[str, Any] = {
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "version": envelope.version,
        "time": exact(microseconds(envelope.time)),
        "subject": envelope.subject,
        "key": envelope.key,
        "share": envelope.share,
        "correlation": envelope.correlation,
        "causation": envelope.causation,
        "traceparent": envelope.traceparent,
        "tracestate": envelope.tracestate,
        "supersedes": envelope.supersedes,
        "keep": envelope.keep,
        **envelope.extensions,
    }
    shown = {name: value for name, value in attributes.items() if value is not None}
    try:
        return {**shown, "data": json.loads(envelope.data)}
    except ValueError:
        return {**shown, "data_base64": b64encode(envelope.data).decode()}


def pretty(envelope: Envelope) -> str:
    """Return an event's data for a person."""
    data = event_json(envelope)
    if "data" in data:
        return json.dumps(data["data"], indent=2, ensure_ascii=False)
    return f"(no JSON, {len(envelope.data)} bytes in base64) {data['data_base64']}"


def counter(what: str) -> "Any":
    """Return a function that shows how far a long command is, on a terminal only."""

    def show(done: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done} {what}", err=True, nl=False)

    return show
