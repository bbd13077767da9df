"""Shaped text to lines: wrapping, balancing, ellipsis, auto-fit, and the glyphs of each line."""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import attrgetter

import msgspec

from adexport.rendering import bidi
from adexport.rendering.graphemes import SOFT_HYPHEN
from adexport.rendering.scene import GlyphRun, Line, Rect
from adexport.rendering.shaping import Cluster, Flat, Shaped

_SLACK = 1e-6
_STEP = 0.25  # font sizes are multiples of this many pixels, so that sized fonts are shared
_BALANCED = (2, 3, 4)
SHARES = {"start": 0.0, "center": 0.5, "end": 1.0}
"""How much of the free room lies before what is aligned so."""
_face_of = attrgetter("face")

Span = tuple[int, int, float]
"""A line as clusters from start to end and its width in em, without the white space at its end."""


class Wrapped(msgspec.Struct, frozen=True, gc=False):
    """Lines and the width of the widest in em.

    `truncated`: an ellipsis follows the last line. `broken`: a word had to be cut.
    """

    spans: tuple[Span, ...]
    width: float
    truncated: bool
    broken: bool


class Block(msgspec.Struct, frozen=True, gc=False):
    """A block of lines: how tall its parts are, in em. `pitch` is from one baseline to the next."""

    ascent: float
    descent: float
    pitch: float

    def height(self, lines: int) -> float:
        """Height of so many lines, in em, from the first line's top to the last line's descent."""
        return self.ascent + self.descent + (lines - 1) * self.pitch if lines else 0.0


def block_of(shaped: Shaped, line_height: float) -> Block:
    """The vertical measures; ink taller than the line height (Arabic, Thai, emoji) moves the lines apart."""
    pitch = max(line_height, (shaped.ascent + shaped.descent) * 0.98)
    return Block(shaped.ascent, shaped.descent, pitch)


def snap(size: float) -> float:
    """A font size rounded down to the grid of sizes in use; at least one step."""
    return max(int(size / _STEP + _SLACK) * _STEP, _STEP)


def wrap(shaped: Shaped, width: float, most: int) -> Wrapped:
    """Break into at most `most` lines of `width` em, each as full as it gets."""
    if shaped.straight <= width + _SLACK:
        return Wrapped(((0, len(shaped.clusters), shaped.straight),), shaped.straight, truncated=False, broken=False)
    spans, broken, _ = _fill(shaped, width, most)
    truncated = len(spans) > most
    if truncated:
        del spans[most:]
        spans[-1] = _with_ellipsis(shaped, spans[-1][0], width)
    return Wrapped(tuple(spans), max([span[2] for span in spans], default=0.0), truncated, broken)


def balance(shaped: Shaped, wrapped: Wrapped) -> Wrapped:
    """The same number of lines, but as even in length as possible (2 to 4 lines; others stay).

    The lines are filled at the least width that can do; each time they are too many, the width grows to the least that
    changes anything.
    """
    count = len(wrapped.spans)
    if wrapped.truncated or wrapped.broken or count not in _BALANCED or any(segment[4] for segment in shaped.segments):
        return wrapped
    longest, spare = (max([segment[at] for segment in shaped.segments]) for at in (2, 3))
    width = max(longest, (shaped.pens[-1] - (count - 1) * spare) / count)
    while width < wrapped.width:
        spans, _, next_width = _fill(shaped, width, count)
        if len(spans) <= count:
            return Wrapped(tuple(spans), max([span[2] for span in spans]), truncated=False, broken=False)
        width = next_width
    return wrapped


def _fill(shaped: Shaped, width: float, most: int) -> tuple[list[Span], bool, float]:
    """Greedy lines, one more than `most` when there is more text; was a word cut; the next width that matters."""
    spans: list[Span] = []
    broken, limit, next_width = False, width + _SLACK, math.inf
    start, used, wide, in_line = 0, 0.0, 0.0, False
    for begin, end, inner, space, hard in shaped.segments:
        if in_line and used + inner > limit:
            next_width = min(next_width, used + inner)
            spans.append((start, begin, wide))
            in_line = False
        if len(spans) > most:
            return spans, broken, next_width
        if not in_line:
            start, used, in_line = begin, 0.0, True
            if inner > limit:
                cuts, broken = _cut(shaped, begin, end, limit), True
                spans += [(one, two, shaped.pens[two] - shaped.pens[one]) for one, two in pairwise(cuts)]
                start = cuts[-1]
                inner -= shaped.pens[start] - shaped.pens[begin]
        wide = used + inner
        used = wide + space
        if hard:
            spans.append((start, end, wide))
            in_line = False
    if in_line:
        spans.append((start, len(shaped.clusters), wide))
    return spans, broken, next_width


def _cut(shaped: Shaped, start: int, end: int, limit: float) -> list[int]:
    """Where the pieces of a word too long for a line begin: each but the last fills a line within the limit."""
    cuts = [start]
    for at in range(start + 1, end):
        too_long = shaped.pens[at + 1] - shaped.pens[cuts[-1]] > limit
        if too_long and not shaped.clusters[at].text.isspace():
            cuts.append(at)
    return cuts


def _with_ellipsis(shaped: Shaped, start: int, width: float) -> Span:
    """The line from `start` with as many clusters as stand before an ellipsis; the width includes it."""
    clusters, pens = shaped.clusters, shaped.pens
    most = pens[start] + width - shaped.ellipsis.advance + _SLACK
    end = start
    while end < len(clusters) and clusters[end].text != "\n" and pens[end + 1] <= most:
        end += 1
    while end > start and (clusters[end - 1].text.isspace() or clusters[end - 1].text in ",.;:-–—、。，،\u00ad"):
        end -= 1
    return start, end, pens[end] - pens[start] + shaped.ellipsis.advance


def lines_of(shaped: Shaped, wrapped: Wrapped, block: Block, size: float, rect: Rect, align: str) -> tuple[Line, ...]:
    """The lines placed in `rect` from its top: `align` start is left, whatever way the text runs."""
    lines: list[Line] = []
    for at, (start, end, width) in enumerate(wrapped.spans):
        while end > start and shaped.clusters[end - 1].text.isspace():
            end -= 1
        tail: tuple[Cluster, ...] = ()
        if wrapped.truncated and at == len(wrapped.spans) - 1:
            tail = (shaped.ellipsis,)
        elif end > start and shaped.clusters[end - 1].text == SOFT_HYPHEN:
            end, tail = end - 1, (shaped.hyphen,)
        clusters = shaped.clusters[start:end] + tail
        x = rect.x + SHARES[align] * (rect.width - width * size)
        baseline = rect.y + (block.ascent + at * block.pitch) * size
        text = "".join([cluster.text for cluster in clusters]).replace(SOFT_HYPHEN, "")
        runs = (
            _glyph_runs(clusters, size) if tail or not shaped.flat else _flat_run(shaped, shaped.flat, start, end, size)
        )
        lines.append(Line(x, baseline, width * size, text, runs))
    return tuple(lines)


def _flat_run(shaped: Shaped, flat: Flat, start: int, end: int, size: float) -> tuple[GlyphRun, ...]:
    """The glyphs of the clusters from start to end where all stand in one row already."""
    origin, begin, stop = shaped.pens[start], flat.firsts[start], flat.firsts[end]
    xs = [(x - origin) * size for x in flat.xs[begin:stop]]
    return (GlyphRun(flat.face, flat.glyphs[begin:stop], xs, [y * size for y in flat.ys[begin:stop]]),)


def _glyph_runs(clusters: Sequence[Cluster], size: float) -> tuple[GlyphRun, ...]:
    """Clusters in visual order, neighbours of one face joined, em made pixels."""
    if any(cluster.level for cluster in clusters):
        clusters = [clusters[at] for at in bidi.visual_order([cluster.level for cluster in clusters])]
    runs: list[GlyphRun] = []
    pen = 0.0
    for face, alike in groupby(clusters, key=_face_of):
        glyphs: list[int] = []
        xs: list[float] = []
        ys: list[float] = []
        for cluster in alike:
            for gid, x, y in cluster.glyphs:
                glyphs.append(gid)
                xs.append((pen + x) * size)
                ys.append(y * size)
            pen += cluster.advance
        runs.append(GlyphRun(face, glyphs, xs, ys if any(ys) else []))
    return tuple(runs)
