"""From a request to a running export: check, plan, then record and publish in one transaction."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adexport.arguments import in_parts, table
from adexport.catalogue import Catalogue, StoredDesign, read_design
from adexport.deciding import Ask, Cancel, Retry
from adexport.designs import Design
from adexport.errors import AdExportError, StorageError
from adexport.events import About
from adexport.feeds import Feed, check_fields, parse_feed
from adexport.naming import DEFAULT_PATTERN, name_files, parse_pattern
from adexport.needed_fields import needed_fields
from adexport.networks import Network, preflight, target_for, targets
from adexport.pictures_named import check_pictures
from adexport.planning import Plan, Target, expected_seconds, plan
from adexport.ports import FileStore
from adexport.problems import Problem
from adexport.queries import ExportSummary, summary
from adexport.rendering import ENGINE_VERSION
from adexport.rendering.encoding import ENCODER_VERSION
from adexport.requests import ExportRequest, RequestError, parse_size
from adexport.row_checks import check_rows
from adexport.snapshot import Snapshot, named_digests
from adexport.timeline import decide, tell
from adexport.waiting import KeptSnapshot, keep_back
from tidings import Service, Transaction

_LOG = logging.getLogger("adexport.exports")
ENGINE = f"{ENGINE_VERSION}+{ENCODER_VERSION}"
_RECORD_CELLS = """INSERT INTO adexport_cell (export_id, position, key, feed_row, row_label, width, height, format,
 wanted_quality, network, placement, limit_bytes, name, state, round)
 SELECT $1, cell.*, 'pending', 1 FROM ({cells}) AS cell"""
_CANCEL_CELLS = "UPDATE adexport_cell SET state = 'cancelled' WHERE export_id = $1 AND state = 'pending'"
_RETRY_CELLS = """UPDATE adexport_cell SET state = 'pending', round = $2, cause = NULL, reason = NULL, verdict = NULL,
 bytes = NULL WHERE export_id = $1 AND state IN ('dead', 'cancelled', 'pending')"""
_CELL_TYPES = (
    "BIGINT",
    "TEXT",
    "BIGINT",
    "TEXT",
    "BIGINT",
    "BIGINT",
    "TEXT",
    "BIGINT",
    "TEXT",
    "TEXT",
    "BIGINT",
    "TEXT",
)


class PreflightError(AdExportError):
    """The request cannot give the files it asks for; `problems` says what, where and what to do."""

    retryable = False

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems beside a summary."""
        super().__init__(f"{problems[0].message} {problems[0].action}")
        self.problems = problems


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """An export that is checked and planned but not recorded: everything `record` needs, and what preflight found."""

    title: str
    design: str
    design_title: str
    networks: list[str]
    formats: list[str]
    snapshot: Snapshot
    plan: Plan
    names: list[str]
    labels: list[str]
    problems: list[Problem]

    @property
    def errors(self) -> list[Problem]:
        """The problems that stand in the way."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def sizes(self) -> list[str]:
        """Every size once, in the order of the plan."""
        return list(dict.fromkeys(target.size for target in self.plan.targets))


class DesignFacts(msgspec.Struct, frozen=True):
    """What the plan's keys depend on of a design: its digest stands for the whole document."""

    digest: str
    names: list[str]

    def fields(self) -> list[str]:
        """The feed columns that the design uses."""
        return self.names


class Exporting:
    """Starts, cancels and retries exports. `processes` is how many render at once, for the estimates."""

    def __init__(self, service: Service, files: FileStore, catalogue: Catalogue, *, processes: int) -> None:
        """Opens nothing itself."""
        self._service = service
        self._files = files
        self._catalogue = catalogue
        self._processes = processes

    async def prepare(self, request: ExportRequest) -> Prepared:
        """Check a request and plan it. Problems that preflight finds are in the answer, not raised.

        Raises RequestError, UnknownError, DesignError, FeedError, NamingError and PlanError.
        """
        stored = await self.load_design(request.design)
        feed = await self.load_feed(stored, request.feed, request.rows)
        wanted = choose_targets(request, stored.design, self._catalogue.networks)
        prepared = await asyncio.to_thread(_prepare, request, stored, feed, wanted, self._catalogue.networks)
        pictures = await check_pictures(stored.design, wanted, prepared.snapshot.rows, self._catalogue)
        return msgspec.structs.replace(prepared, problems=[*pictures, *prepared.problems])

    def estimate_seconds(self, plan: Plan) -> float:
        """Expected seconds until all files are ready when nothing else runs."""
        return round(expected_seconds(plan.batches, self._processes), 2)

    async def load_design(self, design: str | dict[str, Any]) -> StoredDesign:
        """The named or given design. Raises UnknownError or DesignError."""
        if isinstance(design, str):
            return await self._catalogue.design(design)
        return read_design(design)

    async def load_feed(self, stored: StoredDesign, feed: str | None, rows: list[dict[str, str]] | None) -> Feed:
        """The rows of an export: given, uploaded, or the design's sample feed. Raises RequestError."""
        if feed is not None and rows is not None:
            raise RequestError("Both a feed and rows are given. Give one of them.", "$.rows")
        if rows is not None:
            return _feed_of(rows)
        if feed is not None:
            return await self._catalogue.feed(feed)
        return parse_feed(stored.feed_csv) if stored.feed_csv is not None else _feed_of([{}])

    async def keep_snapshot(self, prepared: Prepared) -> KeptSnapshot:
        """Store the request by content, before anything refers to it. Raises PreflightError.

        Where that cannot be done now, it waits in the database, and the export with it: nobody is turned away.
        """
        if prepared.errors:
            raise PreflightError(prepared.errors)
        content = prepared.snapshot.encode()
        try:
            (digest,) = await self._files.put([content])
        except StorageError as error:
            _LOG.warning("A snapshot waits in the database: %s", error)
            return KeptSnapshot(hashlib.sha256(content).hexdigest(), content)
        return KeptSnapshot(digest)

    async def record(
        self, tx: Transaction, export_id: str, prepared: Prepared, snapshot: KeptSnapshot
    ) -> ExportSummary:
        """Write the cells and begin the export's stream, all in the caller's transaction."""
        # Many cells by one statement: one by one, 20,000 of them would hold the transaction for seconds.
        for part in in_parts(_cell_values(prepared), len(_CELL_TYPES)):
            cells, args = table(_CELL_TYPES, part, first=2)
            await tx.execute(_RECORD_CELLS.format(cells=cells), export_id, *args)
        await keep_back(tx, export_id, snapshot)
        files, about = len(prepared.plan.cells), self._about(prepared)
        command = Ask(export_id=export_id, about=about, snapshot=snapshot.digest, files=files, now=tx.now())
        decision = await decide(self._service, command, tx)
        await tell(tx, decision)
        begun = summary(export_id, decision.state)
        assert begun is not None
        return begun

    def _about(self, prepared: Prepared) -> About:
        return About(
            title=prepared.title,
            design=prepared.design,
            design_title=prepared.design_title,
            networks=prepared.networks,
            sizes=prepared.sizes,
            formats=prepared.formats,
            rows=len(prepared.snapshot.rows),
            estimate_seconds=self.estimate_seconds(prepared.plan),
        )

    async def start(self, prepared: Prepared, export_id: str) -> None:
        """Record a prepared export and publish its request, in one transaction. Raises PreflightError."""
        snapshot = await self.keep_snapshot(prepared)
        async with self._service.transaction() as tx:
            await self.record(tx, export_id, prepared, snapshot)

    async def cancel(self, export_id: str) -> None:
        """Stop an export: what is not ready is cancelled, ready files stay. Raises NotNowError."""
        async with self._service.transaction() as tx:
            decision = await decide(self._service, Cancel(export_id=export_id, now=tx.now()), tx)
            if decision.events:
                await tx.execute(_CANCEL_CELLS, export_id)
                await tell(tx, decision)

    async def retry(self, export_id: str) -> None:
        """Ask again for the files that are not done, as a new round with a new deadline. Raises NotNowError."""
        async with self._service.transaction() as tx:
            decision = await decide(self._service, Retry(export_id=export_id, now=tx.now()), tx)
            if decision.events and decision.state.standing is not None:
                await tx.execute(_RETRY_CELLS, export_id, decision.state.standing.round)
                await tell(tx, decision)


def choose_targets(request: ExportRequest, design: Design, networks: Mapping[str, Network]) -> list[Target]:
    """The sizes to make and for whom. Raises RequestError for an unknown network or when nothing is left."""
    for index, name in enumerate(request.networks):
        if name not in networks:
            raise RequestError(
                f"There is no network named {name!r}. Choose from {', '.join(networks)}.", f"$.networks[{index}]"
            )
    sizes = [parse_size(size) for size in dict.fromkeys(request.sizes)]
    chosen = [networks[name] for name in dict.fromkeys(request.networks)]
    if chosen and sizes:
        found = _pairs(chosen, sizes)
    elif chosen:
        found = [target for network in chosen for target in targets(network)]
    else:
        found = [Target(width=width, height=height) for width, height in sizes or design.sizes]
    if not found:
        raise RequestError("Neither networks nor sizes are given, and the design suggests none. Give some.", "$.sizes")
    return [_within(target, request.max_bytes) for target in found]


def _pairs(networks: Sequence[Network], sizes: Sequence[tuple[int, int]]) -> list[Target]:
    """Each network with the sizes it takes. A size that none takes goes to the first, where preflight refuses it."""
    found = []
    for size in sizes:
        takers = [network for network in networks if network.placement_for(*size) is not None]
        found += [target_for(network, *size) for network in takers or networks[:1]]
    return found


def _within(target: Target, max_bytes: int | None) -> Target:
    limits = [limit for limit in (target.max_bytes, max_bytes) if limit is not None]
    return msgspec.structs.replace(target, max_bytes=min(limits, default=None))


def _prepare(
    request: ExportRequest, stored: StoredDesign, feed: Feed, wanted: list[Target], networks: Mapping[str, Network]
) -> Prepared:
    design = stored.design
    fields = design.fields()
    rows = [{name: row[name] for name in fields if name in row} for row in feed.rows]
    assets = named_digests(stored.document, rows)
    planned = plan(
        DesignFacts(design.digest, fields),
        rows,
        wanted,
        request.formats,
        engine=ENGINE,
        assets={name: name for name in assets},
        quality=request.quality,
    )
    pattern = parse_pattern(request.naming or (DEFAULT_PATTERN if request.networks else _PLAIN_PATTERN))
    return Prepared(
        title=request.title or design.title,
        design=design.name,
        design_title=design.title,
        networks=list(dict.fromkeys(request.networks)),
        formats=list(dict.fromkeys(request.formats)),
        snapshot=Snapshot(design=stored.document, rows=rows, assets=assets),
        plan=planned,
        names=name_files(pattern, planned.cells, design.name, feed.rows),
        labels=[_label(design, row, number) for number, row in enumerate(feed.rows, 1)],
        problems=[
            *check_fields(needed_fields(stored.document), feed),
            *check_rows(design, wanted, rows),
            *preflight(planned, networks),
        ],
    )


_PLAIN_PATTERN = "{design}_{width}x{height}_{row}.{ext}"


def _label(design: Design, row: Mapping[str, str], number: int) -> str:
    """What people call a row: the text of the design's leading field, else its number."""
    text = " ".join(row.get(design.lead or "", "").split())
    return text[:80] or f"Row {number}"


def _feed_of(rows: list[dict[str, str]]) -> Feed:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    complete = tuple({name: row.get(name, "") for name in columns} for row in rows)
    return Feed(columns=columns, rows=complete, lines=tuple(range(1, len(rows) + 1)), encoding="utf-8", delimiter="")


def _cell_values(prepared: Prepared) -> list[list[Any]]:
    return [
        [
            cell.index,
            cell.key,
            cell.row + 1,
            prepared.labels[cell.row],
            cell.width,
            cell.height,
            cell.format,
            cell.quality,
            cell.network,
            cell.placement,
            cell.max_bytes,
            name,
        ]
        for cell, name in zip(prepared.plan.cells, prepared.names, strict=True)
    ]
