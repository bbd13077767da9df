"""From the read model to the manifest: one line for each file."""

from __future__ import annotations

from adexport.archive import Entry
from adexport.queries import Cell


def entry_of(cell: Cell) -> Entry:
    """The manifest's line for a file that is done or has failed."""
    done = cell.state == "done"
    return Entry(
        file=cell.name,
        row=cell.row,
        size=f"{cell.width}x{cell.height}",
        format=cell.format,
        bytes=cell.bytes or 0,
        sha256=(cell.sha256 or "") if done else "",
        network=cell.network,
        verdict="ok" if done else cell.verdict or "failed",
        reason=cell.reason or "",
    )
