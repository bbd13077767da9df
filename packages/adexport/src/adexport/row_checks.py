"""Preflight for rows: every text and colour is filled for every row, as the renderer will, before anything queues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adexport.designs import Design
from adexport.designs.colours import parse_colour
from adexport.designs.document import AnyLayer, Colour, Group, Image, TypeStyle
from adexport.designs.parsing import fillings, variation_for
from adexport.designs.templates import Template
from adexport.planning import Target
from adexport.problems import MAX_ROWS_NAMED, Problem, name_rows


@dataclass(frozen=True, slots=True)
class _Filling:
    """A text or colour of a layer; drawn where no field of `conditions` and not the layer's `content` is blank."""

    layer: str
    conditions: tuple[str, ...]
    content: Template | None
    template: Template
    is_colour: bool

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for what several sizes share."""
        return self.layer, self.conditions, self.content and self.content.source, self.template.source, self.is_colour

    def reason(self, row: Mapping[str, str]) -> str:
        """Why this cannot be drawn for a row; empty when it can, or when it is not drawn at all."""
        if not all(row.get(name, "").strip() for name in self.conditions) or self._is_left_out(row):
            return ""
        try:
            text = self.template.fill(row)
            if self.is_colour:
                parse_colour(text)
        except ValueError as error:
            return str(error)
        return ""

    def _is_left_out(self, row: Mapping[str, str]) -> bool:
        if self.content is None or self.content is self.template:
            return False
        try:
            return not self.content.fill(row).strip()
        except ValueError:
            return True  # the content is a filling too and has its own problem


def check_rows(design: Design, targets: Iterable[Target], rows: Sequence[Mapping[str, str]]) -> list[Problem]:
    """One problem for each different text or colour that the renderer would refuse, with its rows (from 1).

    A column that is missing altogether is left to `adexport.feeds.check_fields`.
    """
    sizes = dict.fromkeys((target.width, target.height) for target in targets)
    found = {filling.key: filling for size in sizes for filling in _fillings(design, *size)}
    refused: dict[tuple[str, bool], tuple[_Filling, dict[int, str]]] = {}
    for filling in found.values():
        fields = filling.template.fields()
        if not fields or not all(name in row for row in rows[:1] for name in fields):
            continue
        reasons = {number: reason for number, row in enumerate(rows, 1) if (reason := filling.reason(row))}
        if reasons:  # the same text or colour in many layers is one problem, told of the first
            refused.setdefault((filling.template.source, filling.is_colour), (filling, {}))[1].update(reasons)
    return [_problem(filling, reasons) for filling, reasons in refused.values()]


def _fillings(design: Design, width: int, height: int) -> Iterator[_Filling]:
    variation = variation_for(design, width, height)
    for each in fillings(variation.background):
        yield _filling("background", (), None, each)
    for layer, conditions in _shown(variation.layers, ()):
        content = layer.text if isinstance(layer, TypeStyle) else layer.source if isinstance(layer, Image) else None
        for each in fillings(layer):
            yield _filling(layer.id, conditions, content, each)


def _filling(layer: str, conditions: tuple[str, ...], content: Template | None, each: Template | Colour) -> _Filling:
    template = each.template if isinstance(each, Colour) else each
    return _Filling(layer, conditions, content, template, isinstance(each, Colour))


def _shown(layers: Iterable[AnyLayer], outer: tuple[str, ...]) -> Iterator[tuple[AnyLayer, tuple[str, ...]]]:
    """Every layer with the fields that must not be blank for it to show: its own and those of the groups around it."""
    for layer in layers:
        conditions = (*outer, layer.show_if) if layer.show_if else outer
        yield layer, conditions
        if isinstance(layer, Group):
            yield from _shown(layer.layers, conditions)


def _problem(filling: _Filling, refused: dict[int, str]) -> Problem:
    rows = sorted(refused)
    return Problem(
        code="value_refused",
        message=f"Layer {filling.layer!r} cannot be drawn for {name_rows(rows)}: {refused[rows[0]]}.",
        action="Correct the cells, or change the placeholder in the design.",
        rows=tuple(rows[:MAX_ROWS_NAMED]),
        column=", ".join(dict.fromkeys(filling.template.fields())),
    )
