"""A design on a canvas: everything that no row changes, worked out once and kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from adexport.designs.document import AnyLayer, Colour, Fill, Group, Insets, Shape, TypeStyle, Variation
from adexport.designs.lengths import Canvas
from adexport.designs.parsing import Design, fillings, variation_for, walk
from adexport.rendering.paragraph import snap
from adexport.rendering.scene import Rect

# Below nine pixels no text is read on a screen; on large canvases the floor grows with the shorter side.
_LEAST_PIXELS = 9.0
_LEAST_SHARE = 2.2  # vmin
SCALES = tuple(1 - 0.03 * step for step in range(24))
"""What auto-fit multiplies font sizes by, from the size as designed down."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Layers that follow each other. `shared`: they are figures alone, the same in all rows that agree in `fields`.

    The first run of a sheet is shared, perhaps without a layer, and the background is part of it.
    """

    layers: tuple[AnyLayer, ...]
    shared: bool
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """`sizes` are each text layer's font sizes in pixels, one for each of `SCALES`."""

    canvas: Canvas
    whole: Rect
    safe: Rect
    background: Fill
    runs: tuple[Run, ...]
    sizes: dict[str, tuple[float, ...]]


@lru_cache(maxsize=128)
def sheet_for(design: Design, width: int, height: int) -> Sheet:
    """The design on a canvas of this size in pixels. Raises DesignError."""
    variation = variation_for(design, width, height)
    canvas = Canvas(width, height)
    return Sheet(
        canvas=canvas,
        whole=Rect(0, 0, width, height),
        safe=_safe(variation.safe_area, canvas),
        background=variation.background,
        runs=tuple(_runs(variation)),
        sizes={layer.id: _sizes(layer, canvas) for layer in walk(variation.layers) if isinstance(layer, TypeStyle)},
    )


def _runs(variation: Variation) -> Iterator[Run]:
    runs = [(shared, tuple(layers)) for shared, layers in groupby(variation.layers, key=_is_figure)]
    if not runs or not runs[0][0]:
        runs.insert(0, (True, ()))
    for at, (shared, layers) in enumerate(runs):
        names = [*_fields(variation.background)] if at == 0 else []
        names += [name for layer in walk(layers) for name in _fields(layer)]
        yield Run(layers, shared, tuple(dict.fromkeys(names)))


def _safe(insets: Insets, canvas: Canvas) -> Rect:
    left, right = (side.pixels(canvas.width, canvas) for side in (insets.left, insets.right))
    top, bottom = (side.pixels(canvas.height, canvas) for side in (insets.top, insets.bottom))
    return Rect(left, top, max(canvas.width - left - right, 0.0), max(canvas.height - top - bottom, 0.0))


def _is_figure(layer: AnyLayer) -> bool:
    """Whether a layer is made of shapes alone."""
    if isinstance(layer, Group):
        return layer.layout == "free" and all(map(_is_figure, layer.layers))
    return isinstance(layer, Shape)


def _fields(part: AnyLayer | Fill) -> Iterator[str]:
    """The fields that a layer, its children aside, or a fill takes from the row."""
    if not isinstance(part, Fill) and part.show_if:
        yield part.show_if
    for each in fillings(part):
        yield from (each.template if isinstance(each, Colour) else each).fields()


def _sizes(style: TypeStyle, canvas: Canvas) -> tuple[float, ...]:
    """The font size at each scale, on the grid of sizes, never under the layer's least size."""
    largest = style.size.pixels(0, canvas)
    floor = max(_LEAST_PIXELS, _LEAST_SHARE * canvas.vmin)
    least = floor if style.min_size is None else max(style.min_size.pixels(0, canvas), _LEAST_PIXELS)
    least = min(least, max(largest, _LEAST_PIXELS))
    return tuple(max(snap(largest * scale), snap(least + 0.2499)) for scale in SCALES)
