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
from adexport.rendering.paragraph import Block, Wrapped, block_of, wrap
from adexport.rendering.shaping import Shaped, shape
from adexport.rendering.sheet import SCALES, Sheet

# A word cut to less than this many pixels says nothing.
_LEAST_WORDS = 40.0
# Children may be that many pixels larger together than their stack.
_SLACK = 0.05
# A text at nine tenths of its size is read as the same size.
_SAME_SIZE = 0.9


class Squeeze(Struct, frozen=True, gc=False):
    """How hard a stack is pressed: text scale (an index of SCALES), most lines a text may have, layers left out.

    `whole` asks for words uncut and texts without an ellipsis; `fair` for labels whole and least widths kept. A `trial`
    asks only whether everything fits: the measures of what does not may be unfinished.
    """

    scale: int = 0
    most_lines: int = 50
    dropped: frozenset[str] = frozenset()
    whole: bool = True
    fair: bool = True
    trial: bool = False


class Extent(Struct, frozen=True, gc=False):
    """A size in pixels, and whether everything fits in it."""

    width: float
    height: float
    fits: bool = True


class Words(Struct, eq=False):
    """What a row gives a text or button to say: shaped, how tall its lines are, and its font sizes by scale."""

    shaped: Shaped
    block: Block
    sizes: tuple[float, ...]
    wraps: dict[tuple[float, int], Wrapped] = field(default_factory=dict)
    """The lines by width in em and most lines: a stack asks for the same ones again while it is fitted."""

    def wrapped(self, width: float, most: int) -> Wrapped:
        """The words in at most `most` lines of `width` em."""
        key = width, most
        known = self.wraps.get(key)
        if known is None:
            known = self.wraps[key] = wrap(self.shaped, width, most)
        return known


class Piece(Struct, eq=False):
    """A layer with what one row makes of it: its words, its children that are shown.

    `box` is the layer's own, or less where whatever lays the piece out decides.
    """

    layer: AnyLayer
    box: Box
    words: Words | None = None
    source: str = ""
    ratio: float | None = None
    children: list["Piece"] = field(default_factory=list)
    kept: dict[frozenset[str], list["Piece"]] = field(default_factory=dict)
    """The children that are shown, by what is left out."""


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
            block = block_of(shaped, layer.line_height if isinstance(layer, Text) else 1.0)
            words = Words(shaped, block, setting.sheet.sizes[layer.id])
            return None if shaped.blank else Piece(layer, layer.box, words)
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


def fit_text(words: Words, layer: Text, width: float, squeeze: Squeeze) -> tuple[float, Wrapped]:
    """The font size at the squeeze's scale, and the lines in `width` pixels."""
    size = words.sizes[squeeze.scale]
    return size, words.wrapped(width / size, min(layer.max_lines, squeeze.most_lines))


def _measure_text(piece: Piece, layer: Text, room: Extent, squeeze: Squeeze) -> Extent:
    assert piece.words is not None
    size, wrapped = fit_text(piece.words, layer, room.width, squeeze)
    whole = not squeeze.whole or not (wrapped.truncated or wrapped.broken)
    width, height = wrapped.width * size, piece.words.block.height(len(wrapped.spans)) * size
    return Extent(width, height, whole and height <= room.height + 0.01 and width <= room.width + 0.01)


def _measure_button(piece: Piece, layer: Button, room: Extent, squeeze: Squeeze) -> Extent:
    assert piece.words is not None
    shaped, size = piece.words.shaped, piece.words.sizes[squeeze.scale]
    natural = (piece.words.wrapped(1e9, 1).width + 2 * layer.pad_x) * size
    width = room.width if piece.box.width is not None else natural
    height = (shaped.cap_height + 2 * layer.pad_y) * size
    height = max(height, (shaped.ascent + shaped.descent) * size)
    height = room.height if piece.box.height is not None else height
    least_wide = natural if squeeze.fair else min(natural, 4 * size)
    return Extent(min(width, room.width), height, least_wide <= room.width + 0.01 and height <= room.height + 0.01)


def shown(piece: Piece, squeeze: Squeeze) -> list[Piece]:
    """The children that are not left out; a stack whose children all are is left out too."""
    known = piece.kept.get(squeeze.dropped)
    if known is None:
        known = piece.kept[squeeze.dropped] = [
            child
            for child in piece.children
            if child.layer.id not in squeeze.dropped
            and (not isinstance(child.layer, Group) or child.layer.layout == "free" or shown(child, squeeze))
        ]
    return known


class Stack(Struct, gc=False):
    """A row or column with its children measured, in pixels. They use `used` of the `inner` room, gaps included.

    `dx` and `dy` are the padding; `breadth` is the widest child of a column, the tallest of a row.
    """

    column: bool
    dx: float
    dy: float
    inner: Extent
    gap: float
    children: list[Piece]
    sizes: list[Extent]
    used: float = 0.0
    breadth: float = 0.0
    fits: bool = True

    @property
    def free(self) -> float:
        """What is left along the stack; negative when the children have too little."""
        return (self.inner.height if self.column else self.inner.width) - self.used

    def take(self, size: Extent) -> None:
        """Count one child."""
        if self.column:
            self.used += size.height
            self.breadth = max(self.breadth, size.width)
        else:
            self.used += size.width
            self.breadth = max(self.breadth, size.height)
        self.fits = self.fits and size.fits


def stack(piece: Piece, layer: Group, room: Extent, setting: Setting, squeeze: Squeeze) -> Stack:
    """Measure the children of a stack: natural sizes first, then those that grow share what is left."""
    column = layer.layout == "column"
    dx, dy = setting.pixels(layer.pad_x, room.width), setting.pixels(layer.pad_y, room.height)
    inner = Extent(max(room.width - 2 * dx, 0.0), max(room.height - 2 * dy, 0.0)) if dx or dy else room
    gap = setting.pixels(layer.gap, inner.height if column else inner.width)
    children = shown(piece, squeeze)
    result = Stack(column, dx, dy, inner, gap, children, [], used=gap * max(len(children) - 1, 0))
    growing = 0.0
    for child in children:
        growing += child.layer.grow
        size = _UNKNOWN if child.layer.grow else measure(child, inner, setting, squeeze)
        result.sizes.append(size)
        result.take(size)
        if squeeze.trial and not (size.fits and result.free >= -_SLACK):
            return result
    left = result.free
    for at, child in enumerate(children if growing else ()):
        if child.layer.grow:
            share = max(left, 0.0) * child.layer.grow / growing
            result.sizes[at] = _grown(child, share, column, inner, setting, squeeze)
            result.take(result.sizes[at])
    if not column and not squeeze.fair and left < 0:
        wide = sum(size.width for size in result.sizes)
        result.sizes = _narrowed(children, result.sizes, -left)
        result.used += sum(size.width for size in result.sizes) - wide
    return result


_UNKNOWN = Extent(0.0, 0.0)


def _measure_stack(piece: Piece, layer: Group, room: Extent, setting: Setting, squeeze: Squeeze) -> Extent:
    done = stack(piece, layer, room, setting, squeeze)
    across = done.inner.width if done.column else done.inner.height
    fits = done.fits and done.free >= -_SLACK and done.breadth <= across + _SLACK
    width, height = (done.breadth, done.used) if done.column else (done.used, done.breadth)
    width = room.width if piece.box.width is not None else width + 2 * done.dx
    height = room.height if piece.box.height is not None else height + 2 * done.dy
    return Extent(width, height, fits)


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
    return next((each for each in tried if _fits(piece, room, setting, each)), tried[-1])


def _fits(piece: Piece, room: Extent, setting: Setting, squeeze: Squeeze) -> bool:
    return measure(piece, room, setting, replace(squeeze, trial=True)).fits


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
        return measure(piece, room, setting, replace(squeeze, scale=scale, trial=True)).fits

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
