"""The command `tidings`: its tree of commands, and how each ends."""

import sys
import traceback

import click

from tidings.cli import projections
from tidings.cli.check import lock
from tidings.cli.dead_letters import discard, list_letters, redrive, show_letter
from tidings.cli.failing import BUG, NOT_SO, USAGE, CommandError, of_library, of_usage
from tidings.cli.inspect import list_subscriptions, store_status, tail, where
from tidings.cli.repair import forget, maintain, migrate, narrow, pause, resume
from tidings.cli.run import run
from tidings.cli.sagas import cancel_saga, list_sagas, resume_saga, show_saga, skip_compensation
from tidings.cli.showing import tell
from tidings.cli.topology import apply, check
from tidings.errors import TidingsError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

NAMES = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=NAMES)
@click.version_option(package_name="tidings", message="tidings %(version)s")
def tidings() -> None:
    """Run event-driven services, see where every event is and why, and repair what failed.

    Exit codes: 0 done; 1 not found, different, or not confirmed; 2 wrong usage; 3 the store cannot be used;
    4 the service cannot be loaded or started; 70 a bug.
    """


@tidings.group()
def dlq() -> None:
    """Dead letters: list, show, redrive, discard."""


@tidings.group()
def saga() -> None:
    """Sagas: list, show, resume, skip, cancel."""


@tidings.group()
def store() -> None:
    """The store: its state, its migrations, its upkeep."""


@tidings.group()
def subscription() -> None:
    """Subscriptions: list, pause, resume, narrow, forget, lock."""


@tidings.group()
def topology() -> None:
    """What the service's broker must have, queues and topics: apply, check."""


@tidings.group()
def projection() -> None:
    """Projections: list, status, swap, rebuild, pause, resume, drop."""


for command in (run, where, tail, projections.replay):
    tidings.add_command(command)
for command in (list_letters, show_letter, redrive, discard):
    dlq.add_command(command)
for command in (list_sagas, show_saga, resume_saga, skip_compensation, cancel_saga):
    saga.add_command(command)
for command in (store_status, migrate, maintain):
    store.add_command(command)
for command in (list_subscriptions, forget, narrow, pause, resume, lock):
    subscription.add_command(command)
for command in (apply, check):
    topology.add_command(command)
for command in (
    projections.list_projections,
    projections.projection_status,
    projections.swap,
    projections.rebuild,
    projections.pause,
    projections.resume,
    projections.drop,
):
    projection.add_command(command)


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        code = tidings.main(prog_name="tidings", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except CommandError as failure:
        _end(failure)
    except click.UsageError as error:
        _misused(error)
    except click.ClickException as error:
        _end(CommandError(f"`{_said()}` failed.", error.format_message(), f"See `{_said()} --help`.", error.exit_code))
    except click.Abort:
        tell("")  # ends the line of the question
        _end(CommandError("Stopped.", "It was not confirmed", "Nothing was changed; answer y, or give --yes.", NOT_SO))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except TidingsError as error:
        _end(of_library(error, f"`{_said()}` failed."))
    except Exception as error:
        tell("".join(traceback.format_exception(error)))
        _end(
            CommandError(
                "The command failed.", f"{type(error).__name__}: {error}", "This is a bug: please report it.", BUG
            )
        )


def _said() -> str:
    """Return the command that was given, without its arguments."""
    words: list[str] = ["tidings"]
    command: click.Command = tidings
    for word in sys.argv[1:3]:
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
            words.append(word)
    return " ".join(words)


def _misused(error: click.UsageError) -> None:
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # since click 8.2: a group by itself
        tell(error.format_message())
        sys.exit(USAGE)
    _end(of_usage(error))


def _end(failure: CommandError) -> None:
    for line in failure.lines():
        tell(line)
    sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()
