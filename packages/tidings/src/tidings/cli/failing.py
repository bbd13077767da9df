"""How a command fails: three lines (what failed, why, what to do), and an exit code that a script can tell apart."""

import re

import click

from tidings.errors import (
    BlobsError,
    EnvelopeError,
    EventDefinitionError,
    OperationError,
    ProjectionError,
    ServiceError,
    StatementError,
    StoreError,
    StrictJSONError,
    TidingsError,
    TransportError,
)

OK, NOT_SO, USAGE, STORE, SERVICE, BUG = 0, 1, 2, 3, 4, 70
"""Exit codes: done; not found, different, or not confirmed; wrong usage; the store or the broker; the service's code; a
bug."""

_CODES: dict[type[TidingsError], int] = {
    OperationError: NOT_SO,
    StrictJSONError: USAGE,
    EnvelopeError: USAGE,
    ProjectionError: NOT_SO,
    StatementError: SERVICE,
    StoreError: STORE,
    TransportError: STORE,
    BlobsError: STORE,
    ServiceError: SERVICE,
    EventDefinitionError: SERVICE,
}

_LAST_PART = re.compile(r"^(?P<why>.+)(?:\.\s|;\s|(?<!:memory):\s)(?P<do>[^.;:].*)$", re.DOTALL)
"""A message of the library says why, then what to do, after its last full stop, semicolon or colon.

The second colon of `:memory:` is none of these."""


class CommandError(Exception):
    """Ends a command with three lines and an exit code."""

    def __init__(self, what: str, why: str, do: str, code: int) -> None:
        super().__init__(what, why, do, code)
        self.what = what
        self.why = why
        self.do = do
        self.exit_code = code

    def lines(self) -> tuple[str, str, str]:
        """Return the three lines."""
        return f"Error: {self.what}", f"Why: {_sentence(self.why)}", f"What to do: {_sentence(self.do)}"


def of_library(error: TidingsError, what: str) -> CommandError:
    """Return the failure that an error of the library makes of a command."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), BUG)
    why, do = divide(str(error))
    return CommandError(what, why, do or _fallback(error), code)


def of_usage(error: click.UsageError) -> CommandError:
    """Return the failure that wrong options make."""
    path = error.ctx.command_path if error.ctx is not None else "tidings"
    return CommandError(f"`{path}` was not understood.", error.format_message(), f"See `{path} --help`.", USAGE)


def divide(message: str) -> tuple[str, str]:
    """Divide a message of the library into why it failed and what to do; the second may be empty."""
    sentences = re.split(r"(?<=[.])\s+(?=[A-Z])", message.strip())
    if len(sentences) > 1:
        return " ".join(sentences[:-1]), sentences[-1]
    found = _LAST_PART.match(message.strip())
    return (found["why"], found["do"]) if found else (message.strip(), "")


def _fallback(error: TidingsError) -> str:
    if error.retryable:
        return "Run the command again in a moment."
    return "Correct what the reason names, and run the command again."


def _sentence(text: str) -> str:
    one_line = " ".join(text.split())
    capital = one_line[:1].upper() + one_line[1:] if one_line[:1].isalpha() and not _is_name(one_line) else one_line
    return capital if capital.endswith((".", "?", "`")) else f"{capital}."


def _is_name(text: str) -> bool:
    """Say whether a text begins with a name that must keep its letters, such as a path or a dotted module."""
    return any(sign in text.split()[0] for sign in "._/:(=")
