"""Shaped text to lines: wrapping, balancing, ellipsis, auto-fit, and the glyphs of each line."""

from dataclasses import dataclass
from itertools import pairwise

from adexport.rendering import bidi
from adexport.rendering.graphemes import SOFT_HYPHEN
from adexport.rendering.scene import GlyphRun, Line, Rect
from adexport.rendering.shaping import Cluster, Shaped

_SLACK = 1e-6
_STEP = 0.25  # font sizes are multiples of this many pixels, so that sized fonts are shared


@dataclass(frozen=True, slots=True)
class Wrapped:
    """Lines as (start, end) of clusters with their widths in em.

    `truncated`: an ellipsis follows the last line. `broken`: a word had to be cut.
    """

    spans: tuple[tuple[int, int], ...]
    widths: tuple[float, ...]
    truncated: bool
    broken: bool

    @property
    def width(self) -> float:
        """The widest line, in em."""
        return max(self.widths, default=0.0)


@dataclass(frozen=True, slots=True)
class Block:
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
    spans, broken = _fill(shaped, width, most)
    truncated = len(spans) > most
    spans = spans[:most]
    widths = [_width(shaped, start, end) for start, end in spans]
    if truncated:
        start = spans[-1][0]
        end, used = _fit_ellipsis(shaped, start, width)
        spans[-1], widths[-1] = (start, end), used
    return Wrapped(tuple(spans), tuple(widths), truncated, broken)


def balance(shaped: Shaped, wrapped: Wrapped, width: float) -> Wrapped:
    """The same number of lines, but as even in length as possible (2 to 4 lines; others stay)."""
    count = len(wrapped.spans)
    if wrapped.truncated or wrapped.broken or not 2 <= count <= 4 or any(each.hard for each in shaped.segments):
        return wrapped
    low, high = wrapped.width / 2, width
    best = wrapped
    for _ in range(7):
        middle = (low + high) / 2
        trial = wrap(shaped, middle, count)
        if trial.truncated or trial.broken:
            low = middle
        else:
            best, high = trial, middle
    return best


def _fill(shaped: Shaped, width: float, most: int) -> tuple[list[tuple[int, int]], bool]:
    """Greedy lines as spans of clusters; one more than `most` when there is more text. Also: was a word cut."""
    spans: list[tuple[int, int]] = []
    broken = False
    start, used, open_line = 0, 0.0, False
    limit = width + _SLACK
    for segment in shaped.segments:
        if open_line and used + segment.width > limit:
            spans.append((start, segment.start))
            open_line = False
        if not open_line:
            start, used, open_line = segment.start, 0.0, True
            if segment.width > limit:
                cuts = _cut(shaped.clusters, segment.start, segment.end, limit)
                spans += pairwise(cuts)
                start, _ = spans.pop()
                used, broken = _width(shaped, start, segment.end) - segment.width, True
        used += segment.width + segment.space
        if segment.hard:
            spans.append((start, segment.end))
            open_line = False
        if len(spans) > most:
            return spans, broken
    if open_line:
        spans.append((start, len(shaped.clusters)))
    return spans, broken


def _cut(clusters: tuple[Cluster, ...], start: int, end: int, limit: float) -> list[int]:
    """Where a word too long for a line is cut: indices from start to end, each piece within the limit."""
    cuts, used = [start], 0.0
    for at in range(start, end):
        if used + clusters[at].advance > limit and at > cuts[-1] and not clusters[at].blank:
            cuts.append(at)
            used = 0.0
        used += clusters[at].advance
    return [*cuts, end]


def _width(shaped: Shaped, start: int, end: int) -> float:
    """Advance of a line without its trailing white space, with the hyphen that a soft one becomes."""
    while end > start and shaped.clusters[end - 1].blank:
        end -= 1
    width = sum(cluster.advance for cluster in shaped.clusters[start:end])
    divided = end > start and shaped.clusters[end - 1].text == SOFT_HYPHEN
    return width + shaped.hyphen.advance if divided else width


def _fit_ellipsis(shaped: Shaped, start: int, width: float) -> tuple[int, float]:
    """How many clusters from `start` stand before an ellipsis, and the line's width with it."""
    room = width - shaped.ellipsis.advance + _SLACK
    end, used = start, 0.0
    while end < len(shaped.clusters) and shaped.clusters[end].text != "\n":
        if used + shaped.clusters[end].advance > room:
            break
        used += shaped.clusters[end].advance
        end += 1
    while end > start and (shaped.clusters[end - 1].blank or shaped.clusters[end - 1].text in ",.;:-–—、。，،\u00ad"):
        end -= 1
        used -= shaped.clusters[end].advance
    return end, used + shaped.ellipsis.advance


def lines_of(shaped: Shaped, wrapped: Wrapped, block: Block, size: float, rect: Rect, align: str) -> tuple[Line, ...]:
    """The lines placed in `rect` from its top: `align` start is left, whatever way the text runs."""
    lines: list[Line] = []
    for at, ((start, end), width) in enumerate(zip(wrapped.spans, wrapped.widths, strict=True)):
        clusters = list(shaped.clusters[start:end])
        while clusters and clusters[-1].blank:
            clusters.pop()
        if wrapped.truncated and at == len(wrapped.spans) - 1:
            clusters.append(shaped.ellipsis)
        elif clusters and clusters[-1].text == SOFT_HYPHEN:
            clusters[-1] = shaped.hyphen
        free = rect.width - width * size
        x = rect.x + {"start": 0.0, "center": free / 2, "end": free}[align]
        baseline = rect.y + (block.ascent + at * block.pitch) * size
        text = "".join(cluster.text for cluster in clusters if cluster.text != SOFT_HYPHEN)
        lines.append(Line(x, baseline, width * size, text, _glyph_runs(clusters, size)))
    return tuple(lines)


def _glyph_runs(clusters: list[Cluster], size: float) -> tuple[GlyphRun, ...]:
    """Clusters in visual order, neighbours of one face joined, em made pixels."""
    runs: list[GlyphRun] = []
    glyphs: list[int] = []
    positions: list[tuple[float, float]] = []
    pen = 0.0
    order = [clusters[at] for at in bidi.visual_order([cluster.level for cluster in clusters])]
    for at, cluster in enumerate(order):
        for gid, x, y in cluster.glyphs:
            glyphs.append(gid)
            positions.append(((pen + x) * size, y * size))
        pen += cluster.advance
        if at == len(order) - 1 or order[at + 1].face is not cluster.face:
            runs.append(GlyphRun(cluster.face, tuple(glyphs), tuple(positions)))
            glyphs, positions = [], []
    return tuple(runs)
