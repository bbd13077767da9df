"""Exports from before they had streams: what the table of that release holds is told to a stream, once."""

from __future__ import annotations

import json
import logging
from typing import Any

from adexport.deciding import Adopt
from adexport.events import About, ExportAdopted
from adexport.life import tallies
from adexport.queries import moment
from adexport.timeline import decide
from tidings import Service, Transaction

_LOG = logging.getLogger("adexport.exports")
_AT_ONCE = 500
_SETTLED = """SELECT position, state, format, cause, coalesce(bytes, 0) AS bytes FROM adexport_cell
 WHERE export_id = $1 AND state IN ('done', 'dead') ORDER BY position"""


async def adopt_exports(service: Service) -> int:
    """Give every export in the old table its stream, and take it from there; return how many there were.

    Several processes may do so at once, and one may be killed on the way: the row goes in the transaction of its event.
    """
    adopted = 0
    while rows := await service.fetch_all(f"SELECT * FROM adexport_export ORDER BY created_us LIMIT {_AT_ONCE}"):
        for row in rows:
            async with service.transaction() as tx:
                if await tx.execute("DELETE FROM adexport_export WHERE id = $1", row["id"]):
                    await decide(service, Adopt(export_id=row["id"], found=await _found(row, tx)), tx)
                    adopted += 1
    if adopted:
        _LOG.info("%d exports of an earlier release have streams now", adopted)
    return adopted


async def _found(row: Any, tx: Transaction) -> ExportAdopted:
    cells = await tx.fetch_all(_SETTLED, row["id"])
    made = [cell for cell in cells if cell["state"] == "done"]
    lost = [cell for cell in cells if cell["state"] == "dead"]
    causes = tallies((cell["cause"] or "unknown", 0) for cell in lost)
    return ExportAdopted(
        export_id=row["id"],
        about=About(
            title=row["title"],
            design=row["design"],
            design_title=row["design_title"],
            networks=json.loads(row["networks"]),
            sizes=json.loads(row["sizes"]),
            formats=json.loads(row["formats"]),
            rows=row["row_count"],
            estimate_seconds=row["estimate_seconds"],
        ),
        snapshot=row["snapshot"],
        state=row["state"],
        round=row["round"],
        total=row["total"],
        made=[cell["position"] for cell in made],
        lost=[cell["position"] for cell in lost],
        formats=tallies((cell["format"], cell["bytes"]) for cell in made),
        causes={name: tally.files for name, tally in causes.items()},
        created_at=moment(row["created_us"]),
        started_at=moment(row["started_us"]),
        finished_at=None if row["finished_us"] is None else moment(row["finished_us"]),
        deadline=moment(row["deadline_us"]),
        failure=row["failure"],
        entries=row["version"],
    )
