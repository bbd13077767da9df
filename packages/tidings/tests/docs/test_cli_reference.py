"""Every command and option of the command line is documented, and nothing else is."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tidings.cli.main import tidings

PAGE = Path(__file__).resolve().parents[4] / "docs" / "reference" / "cli.md"
SECTIONS = {
    found[1]: found[2]
    for found in re.finditer(
        r"^## `(tidings[^`]*)`\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
}


def every_command(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from every_command(one, f"{path} {name}")
    else:
        yield path, command


COMMANDS = dict(every_command(tidings, "tidings"))


def shown(command: click.Command) -> list[click.Parameter]:
    return [one for one in command.params if not getattr(one, "hidden", False)]


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_a_section_names_exactly_the_options_there_are(path: str) -> None:
    options = {name for one in shown(COMMANDS[path]) if isinstance(one, click.Option) for name in one.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", SECTIONS[path])) == options


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_a_section_names_the_arguments(path: str) -> None:
    arguments = [
        one.metavar or (one.name or "").upper() for one in shown(COMMANDS[path]) if isinstance(one, click.Argument)
    ]
    assert all(re.search(rf"`{path}[^`\n]* {re.escape(argument)}", SECTIONS[path]) for argument in arguments)


def test_the_exit_codes_are_those_of_the_code() -> None:
    from tidings.cli import failing

    text = PAGE.read_text("utf-8")
    for code in (failing.OK, failing.NOT_SO, failing.USAGE, failing.STORE, failing.SERVICE, failing.BUG):
        assert re.search(rf"^\| {code} \| ", text, re.MULTILINE), code


def test_every_option_explains_itself() -> None:
    for path, command in COMMANDS.items():
        assert command.help, path
        for one in shown(command):
            assert not isinstance(one, click.Option) or one.help, f"{path} {one.name}"
