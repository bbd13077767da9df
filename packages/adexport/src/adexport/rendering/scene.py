"""What a layout is made of: boxes, lines of glyphs, and the items to draw, in pixels, in drawing order."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from adexport.rendering.fonts import Face

Colour = int
"""0xAARRGGBB."""


class Rect(Struct, frozen=True, gc=False):
    """A box in pixels; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """x of the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """y of the bottom edge."""
        return self.y + self.height

    def inset(self, dx: float, dy: float) -> "Rect":
        """The box made smaller by dx on the left and right and dy above and below; never negative."""
        return Rect(self.x + dx, self.y + dy, max(self.width - 2 * dx, 0.0), max(self.height - 2 * dy, 0.0))

    def holds(self, other: "Rect", slack: float = 0.5) -> bool:
        """Whether `other` lies inside, give or take `slack` pixels."""
        return (
            other.x >= self.x - slack
            and other.y >= self.y - slack
            and other.right <= self.right + slack
            and other.bottom <= self.bottom + slack
        )

    def overlaps(self, other: "Rect", slack: float = 0.5) -> bool:
        """Whether the boxes share more than `slack` pixels in both directions."""
        wide = min(self.right, other.right) - max(self.x, other.x)
        high = min(self.bottom, other.bottom) - max(self.y, other.y)
        return wide > slack and high > slack


class GlyphRun(Struct, frozen=True, gc=False):
    """Glyphs of one face, placed from the line's left end and baseline. Without `ys` all stand on the baseline."""

    face: Face
    glyphs: list[int]
    xs: list[float]
    ys: list[float]


class Line(Struct, frozen=True, gc=False):
    """One line of text: its left end, baseline and advance width in pixels."""

    x: float
    baseline: float
    width: float
    text: str
    runs: tuple[GlyphRun, ...]


class ShadowSpec(Struct, frozen=True, gc=False):
    """A resolved shadow: offset and blur radius in pixels."""

    dx: float
    dy: float
    blur: float
    colour: Colour


class FillSpec(Struct, frozen=True, gc=False):
    """A resolved fill: one stop is a plain colour, more are a gradient."""

    gradient: str
    angle: float
    stops: tuple[tuple[float, Colour], ...]

    @property
    def opaque(self) -> bool:
        """Whether every stop is opaque."""
        return all(colour >> 24 == 0xFF for _, colour in self.stops)


class Item(Struct, frozen=True, kw_only=True, gc=False):
    """What every drawn thing has. `turns` are rotations (degrees, centre x, centre y), outermost first."""

    layer: str
    box: Rect
    opacity: float = 1.0
    turns: tuple[tuple[float, float, float], ...] = ()
    shadow: ShadowSpec | None = None


class TextItem(Item, frozen=True, kw_only=True, gc=False):
    """Lines of text. `ink` is the block that the lines fill; `truncated` when an ellipsis ends it."""

    lines: tuple[Line, ...]
    ink: Rect
    size: float
    colour: Colour
    truncated: bool = False


class ImageItem(Item, frozen=True, kw_only=True, gc=False):
    """A picture in a box with rounded corners."""

    source: str
    fit: str
    focus: tuple[float, float]
    radius: float


class ShapeItem(Item, frozen=True, kw_only=True, gc=False):
    """A figure. `points` are in pixels."""

    shape: str
    fill: FillSpec | None
    stroke: tuple[float, Colour] | None
    radius: float = 0.0
    points: tuple[tuple[float, float], ...] = ()
    smooth: bool = False
    spikes: int = 12
    inner: float = 0.86


AnyItem = TextItem | ImageItem | ShapeItem


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures that rows share, one above the other, the lowest on the canvas's background where one is given.

    Compared by identity, so that their pixels can be kept.
    """

    width: int
    height: int
    background: FillSpec | None
    items: tuple[ShapeItem, ...]

    @cached_property
    def mirrored(self) -> "Figures":
        """The same flipped left to right."""
        background = self.background and _flipped_fill(self.background)
        return Figures(
            self.width, self.height, background, tuple(_flipped_shape(each, self.width) for each in self.items)
        )


class Layout(Struct, frozen=True):
    """A design laid out for one canvas and one row. `left_out` names layers that found no room.

    `crowded` names those that are shown but needed more room than they got. `parts` are in drawing order.
    """

    width: int
    height: int
    safe: Rect
    background: FillSpec
    parts: tuple[AnyItem | Figures, ...]
    left_out: tuple[str, ...] = ()
    crowded: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[AnyItem, ...]:
        """All items in drawing order."""
        return tuple(item for part in self.parts for item in (part.items if isinstance(part, Figures) else (part,)))

    @property
    def canvas(self) -> Rect:
        """The whole canvas."""
        return Rect(0, 0, self.width, self.height)

    def texts(self) -> Iterator[TextItem]:
        """The text items, button labels included, in drawing order."""
        return (item for item in self.items if isinstance(item, TextItem))

    def of(self, layer: str) -> tuple[AnyItem, ...]:
        """The items of one layer by its id; a button has its plate and its label."""
        return tuple(item for item in self.items if item.layer == layer)

    def overlapping_texts(self) -> list[tuple[str, str]]:
        """Pairs of layers whose text blocks overlap."""
        texts = list(self.texts())
        return [
            (one.layer, two.layer)
            for at, one in enumerate(texts)
            for two in texts[at + 1 :]
            if one.ink.overlaps(two.ink)
        ]

    def covered_texts(self) -> list[tuple[str, str]]:
        """Pairs (text layer, layer drawn later whose figure or picture lies over the text)."""
        return [
            (one.layer, two.layer)
            for at, one in enumerate(self.items)
            if isinstance(one, TextItem)
            for two in self.items[at + 1 :]
            if not isinstance(two, TextItem) and two.opacity > 0 and one.ink.overlaps(two.box)
        ]

    def clipped(self) -> list[str]:
        """Layers whose text reaches out of the canvas, or that found less room than they need."""
        return [item.layer for item in self.texts() if not self.canvas.holds(item.ink)] + list(self.crowded)


def mirrored(layout: Layout) -> Layout:
    """The layout flipped left to right for right-to-left rows; words and pictures keep their look."""
    return replace(
        layout,
        safe=_flipped_rect(layout.safe, layout.width),
        background=_flipped_fill(layout.background),
        parts=tuple(
            part.mirrored if isinstance(part, Figures) else _flipped(part, layout.width) for part in layout.parts
        ),
    )


def _flipped(item: AnyItem, across: float) -> AnyItem:
    if isinstance(item, ShapeItem):
        return _flipped_shape(item, across)
    moved = replace(item, box=_flipped_rect(item.box, across), turns=_flipped_turns(item, across))
    if isinstance(moved, TextItem):
        lines = tuple([replace(line, x=across - line.x - line.width) for line in moved.lines])
        return replace(moved, lines=lines, ink=_flipped_rect(moved.ink, across))
    return moved


def _flipped_shape(item: ShapeItem, across: float) -> ShapeItem:
    return replace(
        item,
        box=_flipped_rect(item.box, across),
        turns=_flipped_turns(item, across),
        fill=item.fill and _flipped_fill(item.fill),
        points=tuple([(across - x, y) for x, y in item.points]),
    )


def _flipped_turns(item: AnyItem, across: float) -> tuple[tuple[float, float, float], ...]:
    return tuple([(-degrees, across - x, y) for degrees, x, y in item.turns])


def _flipped_rect(rect: Rect, across: float) -> Rect:
    return replace(rect, x=across - rect.right)


def _flipped_fill(fill: FillSpec) -> FillSpec:
    return replace(fill, angle=180 - fill.angle)
