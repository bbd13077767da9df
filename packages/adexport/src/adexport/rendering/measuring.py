"""How much room a layer wants: the natural size of texts, buttons, figures and stacks, at a given scale.

A stack (row or column) shrinks all its texts by one common scale, so that the hierarchy of sizes survives.
"""

from collections.abc import Mapping
from itertools import pairwise

from msgspec import Struct, field
from msgspec.structs import replace

from adexport.designs.document import AnyLayer, Box, Button, Group, Image, Text, TypeStyle
from adexport.designs.lengths import Length
from adexport.designs.templates import FieldValueError
from adexport.errors import RenderError
from adexport.rendering.paragraph import Block, Wrapped, balance, block_of, wrap
from adexport.rendering.shaping import Shaped, shape
from adexport.rendering.sheet import SCALES, Sheet

# A word cut to less than this many pixels says nothing.
_LEAST_WORDS = 40.0
# A text at nine tenths of its size is read as the same size.
_SAME_SIZE = 0.9


class Squeeze(Struct, frozen=True, gc=False):
    """How hard a stack is pressed: text scale (an index of SCALES), most lines a text may have, layers left out.

    `whole` asks for words uncut and texts without an ellipsis; `fair` for labels whole and least widths kept.
    """

    scale: int = 0
    most_lines: int = 50
    dropped: frozenset[str] = frozenset()
    whole: bool = True
    fair: bool = True


class Extent(Struct, frozen=True, gc=False):
    """A size in pixels, and whether everything fits in it."""

    width: float
    height: float
    fits: bool = True


class Piece(Struct, eq=False):
    """A layer with what one row makes of it: its text shaped, its children that are shown.

    `box` is the layer's own, or less where whatever lays the piece out decides. `sizes` are its font sizes by scale.
    """

    layer: AnyLayer
    box: Box
    shaped: Shaped | None = None
    sizes: tuple[float, ...] = ()
    source: str = ""
    ratio: float | None = None
    children: list["Piece"] = field(default_factory=list)
    wraps: dict[tuple[float, int], Wrapped] = field(default_factory=dict)
    """The text's lines by width in em and most lines: a stack asks for the same ones again while it is fitted."""

    def wrapped(self, width: float, most: int) -> Wrapped:
        """The piece's text in at most `most` lines of `width` em."""
        assert self.shaped is not None
        key = width, most
        known = self.wraps.get(key)
        if known is None:
            known = self.wraps[key] = wrap(self.shaped, width, most)
        return known


class Setting(Struct, frozen=True):
    """What measuring needs to know beside the piece."""

    sheet: Sheet
    fields: Mapping[str, str]

    def across(self, length: Length | None, parent: float) -> float | None:
        """A length in pixels; None stays None."""
        return None if length is None else length.pixels(parent, self.sheet.canvas)

    def pixels(self, length: Length, parent: float = 0.0) -> float:
        """A length in pixels."""
        return length.pixels(parent, self.sheet.canvas)


def prepare(layer: AnyLayer, setting: Setting) -> Piece | None:
    """Fill the layer's placeholders for one row; None when there is nothing to show. Raises RenderError."""
    fields = setting.fields
    if layer.show_if and not fields.get(layer.show_if, "").strip():
        return None
    try:
        if isinstance(layer, TypeStyle):
            style = layer.font, layer.weight, layer.italic, layer.letter_spacing
            shaped = shape(layer.text.fill(fields), *style)
            return None if shaped.blank else Piece(layer, layer.box, shaped, setting.sheet.sizes[layer.id])
        if isinstance(layer, Image):
            source = layer.source.fill(fields).strip()
            return Piece(layer, layer.box, source=source) if source else None
    except FieldValueError as error:
        raise RenderError(layer.id, str(error)) from error
    if isinstance(layer, Group):
        children = [piece for child in layer.layers if (piece := prepare(child, setting))]
        return Piece(layer, layer.box, children=children)
    return Piece(layer, layer.box)


def measure(piece: Piece, room: Extent, setting: Setting, squeeze: Squeeze) -> Extent:
    """The natural size of a piece in a room; `fits` is whether all of it is shown there."""
    layer, box = piece.layer, piece.box
    if box.width is not None or box.height is not None:
        room = _own_room(box, room, setting)
    if isinstance(layer, Text):
        return _measure_text(piece, layer, room, squeeze)
    if isinstance(layer, Button):
        return _measure_button(piece, layer, room, squeeze)
    if isinstance(layer, Group) and layer.layout != "free":
        return _measure_stack(piece, layer, room, setting, squeeze)
    return measure_figure(box, piece.ratio, room)


def _own_room(box: Box, room: Extent, setting: Setting) -> Extent:
    """The room, or less where the layer's own box says so; never more."""
    width = setting.across(box.width, room.width)
    height = setting.across(box.height, room.height)
    return Extent(
        room.width if width is None else min(width, room.width),
        room.height if height is None else min(height, room.height),
    )


def measure_figure(box: Box, natural: float | None, room: Extent) -> Extent:
    """A picture's or shape's size: by its box, its aspect, else all the room. `room` is already its own."""
    ratio = box.aspect or natural
    width, height = room.width, room.height
    if ratio and (box.height is not None or box.width is None):
        width = min(width, height * ratio)
    if ratio:
        height = min(height, width / ratio)
    return Extent(width, height)


class Fitted(Struct, frozen=True, gc=False):
    """A text wrapped at a size in pixels."""

    size: float
    block: Block
    wrapped: Wrapped

    @property
    def height(self) -> float:
        """Height of all lines in pixels."""
        return self.block.height(len(self.wrapped.spans)) * self.size


def fit_text(piece: Piece, layer: Text, width: float, squeeze: Squeeze) -> Fitted:
    """Wrap a text into `width` pixels at the squeeze's scale."""
    assert piece.shaped is not None
    size = piece.sizes[squeeze.scale]
    most = min(layer.max_lines, squeeze.most_lines)
    return Fitted(size, block_of(piece.shaped, layer.line_height), piece.wrapped(width / size, most))


def balanced(piece: Piece, layer: Text, fitted: Fitted) -> Fitted:
    """The same text with its lines evened out, where the design wants that."""
    if not layer.balance or piece.shaped is None:
        return fitted
    return replace(fitted, wrapped=balance(piece.shaped, fitted.wrapped))


def _measure_text(piece: Piece, layer: Text, room: Extent, squeeze: Squeeze) -> Extent:
    fitted = fit_text(piece, layer, room.width, squeeze)
    whole = not squeeze.whole or not (fitted.wrapped.truncated or fitted.wrapped.broken)
    width, height = fitted.wrapped.width * fitted.size, fitted.height
    return Extent(width, height, whole and height <= room.height + 0.01 and width <= room.width + 0.01)


def _measure_button(piece: Piece, layer: Button, room: Extent, squeeze: Squeeze) -> Extent:
    assert piece.shaped is not None
    size = piece.sizes[squeeze.scale]
    label = piece.wrapped(1e9, 1)
    natural = (label.width + 2 * layer.pad_x) * size
    width = room.width if piece.box.width is not None else natural
    shaped = piece.shaped
    height = (shaped.cap_height + 2 * layer.pad_y) * size
    height = max(height, (shaped.ascent + shaped.descent) * size)
    height = room.height if piece.box.height is not None else height
    least_wide = natural if squeeze.fair else min(natural, 4 * size)
    return Extent(min(width, room.width), height, least_wide <= room.width + 0.01 and height <= room.height + 0.01)


def shown(piece: Piece, squeeze: Squeeze) -> list[Piece]:
    """The children that are not left out; a stack whose children all are is left out too."""
    kept = [child for child in piece.children if child.layer.id not in squeeze.dropped]
    return [
        child
        for child in kept
        if not isinstance(child.layer, Group) or child.layer.layout == "free" or shown(child, squeeze)
    ]


def padded(layer: Group, room: Extent, setting: Setting) -> tuple[float, float, Extent]:
    """A stack's padding in pixels and the room that it leaves."""
    dx, dy = setting.pixels(layer.pad_x, room.width), setting.pixels(layer.pad_y, room.height)
    return dx, dy, Extent(max(room.width - 2 * dx, 0.0), max(room.height - 2 * dy, 0.0))


def _measure_stack(piece: Piece, layer: Group, room: Extent, setting: Setting, squeeze: Squeeze) -> Extent:
    dx, dy, inner = padded(layer, room, setting)
    children = shown(piece, squeeze)
    sizes = stack_sizes(layer, children, inner, setting, squeeze)
    gaps = gap_of(layer, inner, setting) * max(len(children) - 1, 0)
    fits = all(size.fits for size in sizes)
    if layer.layout == "column":
        width, height = max((size.width for size in sizes), default=0.0), sum(size.height for size in sizes) + gaps
    else:
        width, height = sum(size.width for size in sizes) + gaps, max((size.height for size in sizes), default=0.0)
    fits = fits and width <= inner.width + 0.05 and height <= inner.height + 0.05
    width = room.width if piece.box.width is not None else width + 2 * dx
    height = room.height if piece.box.height is not None else height + 2 * dy
    return Extent(width, height, fits)


def gap_of(layer: Group, inner: Extent, setting: Setting) -> float:
    """The space between a stack's children in pixels."""
    return setting.pixels(layer.gap, inner.height if layer.layout == "column" else inner.width)


def stack_sizes(layer: Group, children: list[Piece], inner: Extent, setting: Setting, squeeze: Squeeze) -> list[Extent]:
    """The size of each child: natural ones first, then those that grow share what is left."""
    column = layer.layout == "column"
    sizes = {at: measure(child, inner, setting, squeeze) for at, child in enumerate(children) if not child.layer.grow}
    used = sum(size.height if column else size.width for size in sizes.values())
    left = (inner.height if column else inner.width) - used - gap_of(layer, inner, setting) * (len(children) - 1)
    growing = sum(child.layer.grow for child in children)
    for at, child in enumerate(children):
        if at not in sizes:
            share = max(left, 0.0) * child.layer.grow / growing
            sizes[at] = _grown(child, share, column, inner, setting, squeeze)
    result = [sizes[at] for at in range(len(children))]
    return result if column or squeeze.fair or left >= 0 else _narrowed(children, result, -left)


def _narrowed(children: list[Piece], sizes: list[Extent], excess: float) -> list[Extent]:
    """A row that is too wide even at its smallest: the widest words give way and end in an ellipsis."""
    sizes = list(sizes)
    worded = [at for at, child in enumerate(children) if isinstance(child.layer, TypeStyle) and not child.layer.grow]
    for at in sorted(worded, key=lambda each: -sizes[each].width):
        taken = min(excess, max(sizes[at].width - _LEAST_WORDS, 0.0))
        sizes[at] = replace(sizes[at], width=sizes[at].width - taken)
        excess -= taken
    return sizes


def _grown(child: Piece, share: float, column: bool, inner: Extent, setting: Setting, squeeze: Squeeze) -> Extent:
    """A growing child takes its whole share along the stack; its box says the least that it needs."""
    room = Extent(inner.width, share) if column else Extent(share, inner.height)
    own = child.box.height if column else child.box.width
    least = setting.across(own, inner.height if column else inner.width)
    freed = replace(child.box, height=None) if column else replace(child.box, width=None)
    natural = measure(replace(child, box=freed) if own else child, room, setting, squeeze)
    fits = natural.fits and share > 0 and (not squeeze.fair or share >= (least or 0.0) - 0.05)
    return Extent(natural.width, share, fits) if column else Extent(share, natural.height, fits)


def droppable(piece: Piece, squeeze: Squeeze) -> frozenset[str]:
    """The shown layers with the highest `drop` number in the stack; empty when all must stay."""
    found: dict[int, set[str]] = {}

    def look(inside: Piece) -> None:
        for child in shown(inside, squeeze):
            if child.layer.drop:
                found.setdefault(child.layer.drop, set()).add(child.layer.id)
            look(child)

    look(piece)
    return frozenset(found[max(found)]) if found else frozenset()


def squeeze_to_fit(piece: Piece, room: Extent, setting: Setting) -> Squeeze:
    """The least squeeze under which a piece fits the room that its box has been resolved to.

    First the texts shrink together, then layers are left out one by one; where even that leaves a word cut or
    a text unfinished, an ellipsis ends it and everything that still has room is kept.
    """
    if not isinstance(piece.layer, TypeStyle | Group) or (
        isinstance(piece.layer, Group) and piece.layer.layout == "free"
    ):
        return Squeeze()  # figures take any size, and what is in a free group is squeezed by itself
    piece = replace(piece, box=Box())
    stages = [Squeeze()]
    while True:
        fitting = _largest_scale(piece, room, setting, stages[-1], len(SCALES) - 1)
        if fitting is not None:
            return _readmitted(piece, room, setting, fitting, stages)
        leaving = droppable(piece, stages[-1])
        if not leaving:
            break
        stages.append(Squeeze(dropped=stages[-1].dropped | leaving))
    tried = [replace(stage, scale=len(SCALES) - 1, whole=False) for stage in stages]
    tried += [replace(tried[-1], most_lines=most) for most in (5, 4, 3, 2, 1)]
    tried += [replace(each, fair=False) for each in tried]
    return next((each for each in tried if measure(piece, room, setting, each).fits), tried[-1])


def _readmitted(piece: Piece, room: Extent, setting: Setting, fitting: Squeeze, stages: list[Squeeze]) -> Squeeze:
    """Take layers back in that were left out before the one that was in the way, if texts stay about as large."""
    for before, after in reversed(list(pairwise(stages))):
        back = after.dropped - before.dropped
        least = max(at for at, scale in enumerate(SCALES) if scale >= SCALES[fitting.scale] * _SAME_SIZE)
        trial = _largest_scale(piece, room, setting, Squeeze(dropped=fitting.dropped - back), least)
        fitting = trial or fitting
    return fitting


def _largest_scale(piece: Piece, room: Extent, setting: Setting, squeeze: Squeeze, least: int) -> Squeeze | None:
    """Bisect the scales down to `least`; the largest goes first because most rows fit as designed."""

    def fits(scale: int) -> bool:
        return measure(piece, room, setting, replace(squeeze, scale=scale)).fits

    if fits(0):
        return squeeze
    if not fits(least):
        return None
    low, high = 1, least
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return replace(squeeze, scale=low)
