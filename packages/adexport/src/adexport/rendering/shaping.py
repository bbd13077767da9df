"""Text to positioned glyphs: bidi levels, font fallback, HarfBuzz. All lengths are in em, so one result
serves every font size; wrapping and auto-fit are then plain arithmetic on it.
"""

import math
import re
import unicodedata
from functools import lru_cache
from itertools import accumulate

import msgspec
import uharfbuzz as hb

from adexport.rendering import bidi
from adexport.rendering.fonts import EMOJI, Face, fallback_chain
from adexport.rendering.graphemes import PLAIN, PLAIN_ENDS, SOFT_HYPHEN, graphemes, has_kana, is_emoji, may_break

# More than any ad shows; what is beyond is cut with an ellipsis, so that a feed's essay costs no time.
_LONGEST = 1200
ELLIPSIS = "…"
# A descender reaches about a fifth of an em below the baseline in text faces.
_DESCENT = 0.21
_EMOJI_TOP, _EMOJI_BOTTOM = 0.95, 0.25
# Control characters but the newline, and halves of surrogate pairs.
_UNSEEN = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")

Glyph = tuple[int, float, float]
"""Glyph id and its offset from the pen in em: x to the right, y downwards."""
Segment = tuple[int, int, float, float, bool]
"""Clusters start to end that stay on one line, their width in em, that of the white space after them, and whether the
line ends there in any case. One that ends in a soft hyphen counts the hyphen as width and takes it back as space."""


class Cluster(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The smallest piece of text that is drawn as one: its glyphs in visual order and its advance in em."""

    text: str
    face: Face
    level: int
    advance: float
    glyphs: tuple[Glyph, ...]


class Flat(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The glyphs of a paragraph of one face from left to right, in em; `firsts` says where each cluster's begin."""

    face: Face
    glyphs: list[int]
    xs: list[float]
    ys: list[float]
    firsts: list[int]


class Shaped(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A shaped paragraph. `ascent` and `descent` in em hold all its ink.

    `pens` says where each cluster begins on an endless line, and where the last one ends, in em; `straight` is how wide
    a line is that holds all of it, endless where it has a newline. `flat` is there for one face from left to right.
    """

    clusters: tuple[Cluster, ...]
    segments: tuple[Segment, ...]
    pens: tuple[float, ...]
    straight: float
    flat: Flat | None
    ellipsis: Cluster
    hyphen: Cluster
    ascent: float
    descent: float
    cap_height: float

    @property
    def blank(self) -> bool:
        """Whether there is nothing to see."""
        return all(cluster.text.isspace() for cluster in self.clusters)


@lru_cache(maxsize=256)
def shape(text: str, family: str, weight: int, italic: bool = False, tracking: float = 0.0) -> Shaped:
    """Shape a paragraph; `tracking` is letter spacing in em."""
    text = _clean(text)
    chain = fallback_chain(family, weight, italic)
    base, levels = bidi.levels(text)
    runs = _runs(text, levels, chain)
    clusters = [cluster for run in runs for cluster in _shape_run(*run, tracking)]
    pens = tuple(accumulate((cluster.advance for cluster in clusters), initial=0.0))
    hyphen = _mark("-", chain[0], base)
    ascent, descent = _ink(clusters)
    cap_height = chain[0].cap_height
    return Shaped(
        clusters=tuple(clusters),
        segments=tuple(_segments(text, clusters, pens, hyphen.advance)),
        pens=pens,
        straight=math.inf if "\n" in text else pens[-1],
        flat=_flat(clusters, pens) if len(runs) == 1 and not runs[0][2] else None,
        ellipsis=_mark(ELLIPSIS, chain[0], base),
        hyphen=hyphen,
        ascent=max(cap_height, ascent),
        descent=max(_DESCENT, descent),
        cap_height=cap_height,
    )


def _clean(text: str) -> str:
    """One kind of newline, no control characters, composed letters, bounded length."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")).strip()
    text = _UNSEEN.sub("", text)
    return text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + ELLIPSIS


def _runs(text: str, levels: list[int], chain: tuple[Face, ...]) -> list[tuple[str, Face, int]]:
    """Pieces of one face and one level, in logical order; a newline is a piece of its own."""
    if PLAIN.fullmatch(text) and chain[0].covers(text):
        return [(piece, chain[0], 0) for piece in re.split("(\n)", text) if piece]
    runs: list[tuple[str, Face, int]] = []
    at = 0
    for grapheme in graphemes(text):
        previous = runs[-1] if runs and runs[-1][0] != "\n" else None
        face = _face(grapheme, chain, previous[1] if previous else None)
        level = levels[at]
        at += len(grapheme)
        if previous and grapheme != "\n" and previous[1] is face and previous[2] == level:
            runs[-1] = (previous[0] + grapheme, face, level)
        else:
            runs.append((grapheme, face, level))
    return runs


def _face(grapheme: str, chain: tuple[Face, ...], previous: Face | None) -> Face:
    """The first face of the chain that has the grapheme; white space stays with what precedes it."""
    if grapheme.isspace():
        return previous if previous and previous.family != EMOJI and previous.covers(grapheme) else chain[0]
    if is_emoji(grapheme) and chain[-1].covers(grapheme):
        return chain[-1]
    return next((face for face in chain if face.covers(grapheme)), chain[0])


def _shape_run(text: str, face: Face, level: int, tracking: float) -> list[Cluster]:
    """Shape one run; the clusters come in logical order, each with its glyphs in visual order."""
    if text == "\n":
        return [Cluster(text, face, level, 0.0, ())]
    buffer = hb.Buffer()
    buffer.add_str(text)
    buffer.language = "und"  # else guessed from the machine's settings, and some fonts draw by it
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if level % 2 else "ltr"
    hb.shape(face.hb_font, buffer, {"liga": not tracking, "clig": not tracking})
    scale, extra = 1 / face.units, 0.0 if buffer.script == "Arab" else tracking  # joined letters must not be spaced
    starts: list[int] = []
    cells: list[tuple[Glyph, ...]] = []
    pens: list[float] = []
    for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        start, advance = info.cluster, position.x_advance * scale
        if starts and starts[-1] == start:  # more of the same cluster; they come one after the other, in visual order
            cells[-1] += ((info.codepoint, pens[-1] + position.x_offset * scale, -position.y_offset * scale),)
            pens[-1] += advance
        else:
            starts.append(start)
            cells.append(((info.codepoint, position.x_offset * scale, -position.y_offset * scale),))
            pens.append(advance)
    if level % 2:
        for each in (starts, cells, pens):
            each.reverse()
    ends = [*starts[1:], len(text)]
    return [
        Cluster(text[start:end], face, level, pen + extra, glyphs)
        for start, end, pen, glyphs in zip(starts, ends, pens, cells, strict=True)
    ]


def _flat(clusters: list[Cluster], pens: tuple[float, ...]) -> Flat:
    placed = [(gid, pen + x, y) for cluster, pen in zip(clusters, pens, strict=False) for gid, x, y in cluster.glyphs]
    firsts = accumulate([len(cluster.glyphs) for cluster in clusters], initial=0)
    glyphs, xs, ys = map(list, zip(*placed, strict=True))
    return Flat(clusters[0].face, glyphs, xs, ys if any(ys) else [], list(firsts))


@lru_cache(maxsize=256)
def _mark(text: str, face: Face, base: int) -> Cluster:
    """What wrapping puts at the end of a line: an ellipsis or a hyphen."""
    return _shape_run(text, face, base, 0.0)[0]


def _segments(text: str, clusters: list[Cluster], pens: tuple[float, ...], hyphen: float) -> list[Segment]:
    segments: list[Segment] = []
    plain, japanese, start = PLAIN.fullmatch(text), has_kana(text), 0
    for at, cluster in enumerate(clusters):
        hard, last = cluster.text == "\n", at == len(clusters) - 1
        if not hard and not last:
            if plain and cluster.text[-1] not in PLAIN_ENDS:
                continue
            if not may_break(graphemes(cluster.text)[-1], graphemes(clusters[at + 1].text)[0], japanese):
                continue
        end = at + 1
        while end > start and clusters[end - 1].text.isspace():
            end -= 1
        width, space = pens[end] - pens[start], pens[at + 1] - pens[end]
        if cluster.text == SOFT_HYPHEN:  # shown only where a line ends, so room is kept but not used up
            width, space = width + hyphen, -hyphen
        segments.append((start, at + 1, width, space, hard))
        start = at + 1
    return segments


def _ink(clusters: list[Cluster]) -> tuple[float, float]:
    """How far the ink reaches above and below the baseline, in em."""
    above = below = 0.0
    for cluster in clusters:
        if cluster.face.family == EMOJI:
            above, below = max(above, _EMOJI_TOP), max(below, _EMOJI_BOTTOM)
            continue
        for gid, _, y in cluster.glyphs:
            top, bottom = glyph_ink(cluster.face, gid)
            if top - y > above:
                above = top - y
            if bottom + y > below:
                below = bottom + y
    return above, below


@lru_cache(maxsize=8192)
def glyph_ink(face: Face, gid: int) -> tuple[float, float]:
    """A glyph's reach above and below the baseline in em, its own offset aside."""
    extents = face.hb_font.get_glyph_extents(gid)
    if extents is None:
        return 0.0, 0.0
    return extents.y_bearing / face.units, -(extents.y_bearing + extents.height) / face.units
