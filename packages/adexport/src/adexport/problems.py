"""What preflight says: one finding, where it is, and what to do about it."""

from typing import Literal

import msgspec

Severity = Literal["error", "warning"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One finding in a request, a feed or a finished file.

    `code` is stable and meant for programs; `message` says what is wrong and where, `action` what to do.
    An `error` means that the files it names will not be made or not be accepted; a `warning` lets the work go on.
    `rows` are feed rows counted from 1, the header not counted; at most `MAX_ROWS_NAMED` of them are listed.
    """

    code: str
    message: str
    action: str
    severity: Severity = "error"
    rows: tuple[int, ...] = ()
    column: str = ""
    size: str = ""
    format: str = ""
    network: str = ""


MAX_ROWS_NAMED = 20
"""How many row numbers a problem lists before it only counts them."""


def name_rows(rows: list[int]) -> str:
    """Say which rows are meant: `row 3`, `rows 3, 5 and 9`, `rows 1, 2, 3 and 40 more`."""
    shown = [str(row) for row in rows[:MAX_ROWS_NAMED]]
    hidden = len(rows) - len(shown)
    if len(rows) == 1:
        return f"row {shown[0]}"
    if hidden:
        return f"rows {', '.join(shown)} and {hidden} more"
    return f"rows {', '.join(shown[:-1])} and {shown[-1]}"
