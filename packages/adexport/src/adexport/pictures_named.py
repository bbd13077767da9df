"""Preflight for pictures: what a design and its rows name must be there, and must not be a web address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from adexport.designs import Design
from adexport.designs.document import Image
from adexport.designs.parsing import variation_for, walk
from adexport.designs.templates import FieldValueError, Template
from adexport.planning import Target
from adexport.problems import Problem, name_rows


class Pictures(Protocol):
    """Where pictures are looked up."""

    async def missing_assets(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that no picture has."""
        ...


async def check_pictures(
    design: Design, targets: Iterable[Target], rows: Sequence[Mapping[str, str]], pictures: Pictures
) -> list[Problem]:
    """One problem for each name that cannot be drawn, with the rows (from 1) that use it."""
    sizes = {(target.width, target.height) for target in targets}
    templates = {source.source: source for size in sizes for source in _sources(design, *size)}
    used: dict[str, list[int]] = {}
    columns: dict[str, str] = {}
    for template in templates.values():
        for number, row in enumerate(rows, 1):
            name = _filled(template, row)
            if name:
                used.setdefault(name, []).append(number)
                columns.setdefault(name, ", ".join(template.fields()))
    missing = await pictures.missing_assets(list(used))
    return [_problem(name, sorted(set(used[name])), columns[name]) for name in used if name in missing]


def _sources(design: Design, width: int, height: int) -> Iterable[Template]:
    layers = walk(variation_for(design, width, height).layers)
    return [layer.source for layer in layers if isinstance(layer, Image)]


def _filled(template: Template, row: Mapping[str, str]) -> str:
    try:
        return template.fill(row).strip()
    except FieldValueError:
        return ""  # a missing column is reported once, by its own check


def _problem(name: str, rows: list[int], column: str) -> Problem:
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    web = "://" in name or name.lower().startswith(("data:", "file:"))
    where = f" ({name_rows(rows)})" if column else ""
    what = "is an address; pictures are not fetched" if web else "is not the name of a picture that is here"
    return Problem(
        code="picture_address" if web else "picture_missing",
        message=f"The picture {shown!r}{where} {what}.",
        action="Upload the picture with POST /v1/assets and use its digest (sha256:...), or use asset:NAME.",
        rows=tuple(rows[:20]),
        column=column,
    )
