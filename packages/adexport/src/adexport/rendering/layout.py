"""A design, a canvas and a row to a Layout: every layer squeezed to its room, placed, and listed to draw."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from msgspec import Struct

from adexport.designs.colours import parse_colour
from adexport.designs.document import AnyLayer, Box, Button, Fill, Group, Image, Shadow, Shape, Text
from adexport.designs.document import Colour as ColourText
from adexport.designs.lengths import Length
from adexport.designs.parsing import Design
from adexport.designs.templates import FieldValueError
from adexport.errors import RenderError
from adexport.rendering import bidi
from adexport.rendering.images import natural_ratio
from adexport.rendering.measuring import (
    Extent,
    Piece,
    Setting,
    Squeeze,
    fit_text,
    measure,
    measure_figure,
    prepare,
    squeeze_to_fit,
    stack,
)
from adexport.rendering.paragraph import SHARES, balance, lines_of
from adexport.rendering.scene import (
    AnyItem,
    Figures,
    FillSpec,
    ImageItem,
    Layout,
    Rect,
    ShadowSpec,
    ShapeItem,
    TextItem,
    mirrored,
)
from adexport.rendering.sheet import sheet_for

Assets = Callable[[str], bytes]
"""Gives the bytes of `asset:NAME` or `sha256:…`; raises KeyError for one that it does not have."""

_LARGEST_SIDE = 4096


def layout(design: Design, width: int, height: int, fields: Mapping[str, str], assets: Assets) -> Layout:
    """Lay a design out for a canvas in pixels and one feed row.

    Raises RenderError naming the layer when the row or an asset does not suit, or the canvas is too large.
    """
    if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
        raise RenderError("canvas", f"{width}x{height} is not a size; use 1 to {_LARGEST_SIDE} pixels a side")
    sheet = sheet_for(design, width, height)
    stage = _Stage(Setting(sheet, fields), assets)
    for at, run in enumerate(sheet.runs):
        if run.shared:
            row = tuple([(name, fields.get(name)) for name in run.fields])
            stage.parts.append(_figures(design, width, height, at, row))
        else:
            stage.place_all(run.layers)
    result = Layout(
        width,
        height,
        sheet.safe,
        _fill(sheet.background, "background", stage.setting),
        tuple(stage.parts),
        tuple(stage.left_out),
        tuple(dict.fromkeys(stage.crowded)),
    )
    return mirrored(result) if _runs_right_to_left(design, fields) else result


@lru_cache(maxsize=256)
def _figures(design: Design, width: int, height: int, at: int, row: tuple[tuple[str, str | None], ...]) -> Figures:
    """What all rows share that agree in the fields of `row`: the figures of the sheet's run number `at`."""
    sheet = sheet_for(design, width, height)
    setting = Setting(sheet, {name: value for name, value in row if value is not None})
    stage = _Stage(setting, _no_assets)
    stage.place_all(sheet.runs[at].layers)
    background = _fill(sheet.background, "background", setting) if at == 0 else None
    return Figures(width, height, background, tuple(part for part in stage.parts if isinstance(part, ShapeItem)))


def _no_assets(name: str) -> bytes:
    raise KeyError(name)


def _runs_right_to_left(design: Design, fields: Mapping[str, str]) -> bool:
    return bool(design.lead) and bidi.paragraph_level(fields.get(design.lead or "", "")) == 1


class _Pose(Struct, frozen=True, gc=False):
    """What a layer inherits from the groups around it."""

    opacity: float = 1.0
    turns: tuple[tuple[float, float, float], ...] = ()

    def within(self, layer: AnyLayer, rect: Rect) -> "_Pose":
        turns = self.turns
        if layer.rotate:
            turns += ((layer.rotate, rect.x + rect.width / 2, rect.y + rect.height / 2),)
        return _Pose(self.opacity * layer.opacity, turns)


@dataclass(slots=True)
class _Stage:
    """Collects the items while the tree of layers is walked."""

    setting: Setting
    assets: Assets
    parts: list[AnyItem | Figures] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)

    def place_all(self, layers: Iterable[AnyLayer]) -> None:
        """Place the design's own layers, those that are not in a group."""
        sheet = self.setting.sheet
        for layer in layers:
            piece = prepare(layer, self.setting)
            if piece is not None:
                self.place_free(piece, sheet.whole if layer.bleed else sheet.safe, _Pose())

    def place_free(self, piece: Piece, parent: Rect, pose: _Pose) -> None:
        """Place by the layer's own box in `parent`."""
        self._learn_ratios(piece)
        rect = _box_rect(piece, parent, self.setting)
        squeeze = squeeze_to_fit(piece, Extent(rect.width, rect.height), self.setting)
        self.left_out += sorted(squeeze.dropped)
        self.place(piece, rect, squeeze, pose)

    def place(self, piece: Piece, rect: Rect, squeeze: Squeeze, pose: _Pose) -> None:
        """List the items of a piece whose rectangle is settled."""
        layer = piece.layer
        pose = pose.within(layer, rect)
        if isinstance(layer, Text):
            self._text(piece, layer, rect, squeeze, pose)
        elif isinstance(layer, Button):
            self._button(piece, layer, rect, squeeze, pose)
        elif isinstance(layer, Image):
            self._image(piece, layer, rect, pose)
        elif isinstance(layer, Shape):
            self.parts.append(self._figure(layer, rect, pose))
        else:
            self._group(piece, layer, rect, squeeze, pose)

    def _learn_ratios(self, piece: Piece) -> None:
        """A contained picture without a given aspect has its own; only then are its bytes needed here."""
        layer = piece.layer
        if isinstance(layer, Image) and layer.fit == "contain" and layer.box.aspect is None:
            piece.ratio = natural_ratio(piece.source, self.assets, layer.id)
        for child in piece.children:
            self._learn_ratios(child)

    def _text(self, piece: Piece, layer: Text, rect: Rect, squeeze: Squeeze, pose: _Pose) -> None:
        assert piece.words is not None
        shaped, block = piece.words.shaped, piece.words.block
        size, wrapped = fit_text(piece.words, layer, rect.width, squeeze)
        if layer.balance:
            wrapped = balance(shaped, wrapped)
        height = block.height(len(wrapped.spans)) * size
        if height > rect.height + 1:
            self.crowded.append(layer.id)
        top = rect.y + SHARES[layer.valign] * (rect.height - height)
        lines = lines_of(shaped, wrapped, block, size, Rect(rect.x, top, rect.width, height), layer.align)
        left = min([line.x for line in lines], default=rect.x)
        ink = Rect(left, top, max([line.width for line in lines], default=0.0), height)
        self.parts.append(
            TextItem(
                layer=layer.id,
                box=rect,
                opacity=pose.opacity,
                turns=pose.turns,
                shadow=self._shadow(layer.shadow, layer.id),
                lines=lines,
                ink=ink,
                size=size,
                colour=_colour(layer.color, layer.id, self.setting),
                truncated=wrapped.truncated,
            )
        )

    def _button(self, piece: Piece, layer: Button, rect: Rect, squeeze: Squeeze, pose: _Pose) -> None:
        assert piece.words is not None
        shaped, block, size = piece.words.shaped, piece.words.block, piece.words.sizes[squeeze.scale]
        self.parts.append(
            ShapeItem(
                layer=layer.id,
                box=rect,
                opacity=pose.opacity,
                turns=pose.turns,
                shadow=self._shadow(layer.shadow, layer.id),
                shape="rectangle",
                fill=_fill(layer.fill, layer.id, self.setting),
                stroke=self._stroke(layer),
                radius=layer.radius * size,
            )
        )
        room = rect.inset(min(layer.pad_x * size, rect.width * 0.2), 0)
        wrapped = piece.words.wrapped(room.width / size, 1)
        # Capitals are centred, not the line box: a label looks high when room is kept for descenders.
        top = rect.y + rect.height / 2 - (shaped.ascent - shaped.cap_height / 2) * size
        lines = lines_of(shaped, wrapped, block, size, Rect(room.x, top, room.width, 0), "center")
        ink = Rect(lines[0].x, top, lines[0].width, block.height(1) * size)
        self.parts.append(
            TextItem(
                layer=layer.id,
                box=rect,
                opacity=pose.opacity,
                turns=pose.turns,
                lines=lines,
                ink=ink,
                size=size,
                colour=_colour(layer.color, layer.id, self.setting),
                truncated=wrapped.truncated,
            )
        )

    def _image(self, piece: Piece, layer: Image, rect: Rect, pose: _Pose) -> None:
        self.parts.append(
            ImageItem(
                layer=layer.id,
                box=rect,
                opacity=pose.opacity,
                turns=pose.turns,
                shadow=self._shadow(layer.shadow, layer.id),
                source=piece.source,
                fit=layer.fit,
                focus=layer.focus,
                radius=self._radius(layer.radius, rect),
            )
        )

    def _figure(self, layer: Shape | Group, rect: Rect, pose: _Pose) -> ShapeItem:
        """A shape, or the plate under a group."""
        figure = layer if isinstance(layer, Shape) else None
        points = figure.points if figure else ()
        return ShapeItem(
            layer=layer.id,
            box=rect,
            opacity=pose.opacity,
            turns=pose.turns,
            shadow=self._shadow(layer.shadow, layer.id),
            shape=figure.shape if figure else "rectangle",
            fill=_fill(layer.fill, layer.id, self.setting) if layer.fill else None,
            stroke=self._stroke(figure) if figure else None,
            radius=self._radius(layer.radius, rect),
            points=tuple((rect.x + x * rect.width, rect.y + y * rect.height) for x, y in points),
            smooth=bool(figure and figure.smooth),
            spikes=figure.spikes if figure else 12,
            inner=figure.inner if figure else 1.0,
        )

    def _group(self, piece: Piece, layer: Group, rect: Rect, squeeze: Squeeze, pose: _Pose) -> None:
        if layer.fill is not None:
            self.parts.append(self._figure(layer, rect, _Pose(pose.opacity, pose.turns)))
        if layer.layout == "free":
            for child in piece.children:
                self.place_free(child, rect, pose)
        else:
            self._stack(piece, layer, rect, squeeze, pose)

    def _stack(self, piece: Piece, layer: Group, rect: Rect, squeeze: Squeeze, pose: _Pose) -> None:
        done = stack(piece, layer, Extent(rect.width, rect.height), self.setting, squeeze)
        if done.free < -1:
            self.crowded.append(layer.id)
        inner = Rect(rect.x + done.dx, rect.y + done.dy, done.inner.width, done.inner.height)
        at, gap = inner.y if done.column else inner.x, done.gap
        if layer.justify == "between":
            gap += done.free / max(len(done.children) - 1, 1)
        else:
            at += SHARES[layer.justify] * done.free
        for child, size in zip(done.children, done.sizes, strict=True):
            self.place(child, _cell(layer, child, size, at, inner), squeeze, pose)
            at += (size.height if done.column else size.width) + gap

    def _radius(self, radius: Length, rect: Rect) -> float:
        side = min(rect.width, rect.height)
        return min(radius.pixels(side, self.setting.sheet.canvas), side / 2)

    def _stroke(self, layer: Shape | Button) -> tuple[float, int] | None:
        if layer.stroke is None:
            return None
        return self.setting.pixels(layer.stroke.width), _colour(layer.stroke.color, layer.id, self.setting)

    def _shadow(self, shadow: Shadow | None, name: str) -> ShadowSpec | None:
        if shadow is None:
            return None
        px = self.setting.pixels
        return ShadowSpec(px(shadow.dx), px(shadow.dy), px(shadow.blur), _colour(shadow.color, name, self.setting))


def _cell(layer: Group, child: Piece, size: Extent, at: float, inner: Rect) -> Rect:
    """Where a stack's child lies: along the stack at `at`, across it by the stack's alignment."""
    share = SHARES[layer.align]
    if layer.layout == "column":
        if isinstance(child.layer, Text):  # a text fills the column's width and aligns its own lines
            return Rect(inner.x, at, inner.width, size.height)
        return Rect(inner.x + share * (inner.width - size.width), at, size.width, size.height)
    return Rect(at, inner.y + share * (inner.height - size.height), size.width, size.height)


def _box_rect(piece: Piece, parent: Rect, setting: Setting) -> Rect:
    """Resolve a layer's box: insets and sizes, a size without an inset is centred, nothing given fills."""
    layer, box = piece.layer, piece.box
    width, height = setting.across(box.width, parent.width), setting.across(box.height, parent.height)
    left, right = setting.across(box.left, parent.width), setting.across(box.right, parent.width)
    top, bottom = setting.across(box.top, parent.height), setting.across(box.bottom, parent.height)
    ratio = box.aspect or piece.ratio
    if ratio and width is None and height is not None:
        width = height * ratio
    if ratio and height is None and width is not None:
        height = width / ratio
    room = Extent(parent.width - (left or 0) - (right or 0), parent.height - (top or 0) - (bottom or 0))
    if _hugs(layer, box) and (width is None or height is None):
        natural = measure(
            piece, Extent(width or room.width, height or room.height), setting, Squeeze(whole=False, fair=False)
        )
        width = natural.width if width is None and (left is None or right is None) else width
        height = natural.height if height is None and (top is None or bottom is None) else height
    elif ratio and width is None and height is None:
        figure = measure_figure(box, piece.ratio, room)
        width, height = figure.width, figure.height
    x, wide = _axis(left, right, width, parent.width)
    y, high = _axis(top, bottom, height, parent.height)
    return Rect(parent.x + x, parent.y + y, wide, high)


def _hugs(layer: AnyLayer, box: Box) -> bool:
    """Whether the layer is as large as its content where its box leaves that open."""
    return isinstance(layer, Button) or (isinstance(layer, Group) and layer.layout != "free" and layer.fill is not None)


def _axis(start: float | None, end: float | None, extent: float | None, parent: float) -> tuple[float, float]:
    """Position and extent along one axis, in pixels."""
    if extent is None:
        return start or 0.0, max(parent - (start or 0.0) - (end or 0.0), 0.0)
    if start is not None:
        return start, extent
    if end is not None:
        return parent - end - extent, extent
    return (parent - extent) / 2, extent


def _fill(fill: Fill, name: str, setting: Setting) -> FillSpec:
    stops = sorted(((stop.at, _colour(stop.color, name, setting)) for stop in fill.stops), key=lambda stop: stop[0])
    return FillSpec(fill.gradient, math.fmod(fill.angle, 360), tuple(stops))


def _colour(colour: ColourText, name: str, setting: Setting) -> int:
    """Raises RenderError naming the layer when the row's text is no colour."""
    if colour.literal is not None:
        return colour.literal
    try:
        return parse_colour(colour.template.fill(setting.fields))
    except FieldValueError as error:
        raise RenderError(name, str(error)) from error
    except ValueError as error:
        raise RenderError(name, f"{colour.template.source!r}: {error}") from error
