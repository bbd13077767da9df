"""Text to positioned glyphs: bidi levels, font fallback, HarfBuzz. All lengths are in em, so one result
serves every font size; wrapping and auto-fit are then plain arithmetic on it.
"""

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile, zip_longest

import uharfbuzz as hb

from adexport.rendering import bidi
from adexport.rendering.fonts import EMOJI, Face, fallback_chain
from adexport.rendering.graphemes import SOFT_HYPHEN, graphemes, has_kana, is_emoji, may_break

# More than any ad shows; what is beyond is cut with an ellipsis, so that a feed's essay costs no time.
_LONGEST = 1200
ELLIPSIS = "…"
# A descender reaches about a fifth of an em below the baseline in text faces.
_DESCENT = 0.21
_EMOJI_TOP, _EMOJI_BOTTOM = 0.95, 0.25

Glyph = tuple[int, float, float]
"""Glyph id and its offset from the pen in em: x to the right, y downwards."""


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """The smallest piece of text that is drawn as one: its glyphs in visual order and its advance in em."""

    text: str
    face: Face
    level: int
    advance: float
    glyphs: tuple[Glyph, ...]
    break_after: bool = False

    @property
    def blank(self) -> bool:
        """Whether it is only white space."""
        return self.text.isspace()


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Clusters start to end that stay on one line; `space` is the trailing white space's width in em.

    A segment that ends in a soft hyphen counts the hyphen in `width` and takes it back in `space`.
    """

    start: int
    end: int
    width: float
    space: float
    hard: bool


@dataclass(frozen=True, slots=True, eq=False)
class Shaped:
    """A shaped paragraph. `ascent` and `descent` in em hold all its ink; `base` is 1 for right to left."""

    clusters: tuple[Cluster, ...]
    segments: tuple[Segment, ...]
    ellipsis: Cluster
    hyphen: Cluster
    base: int
    ascent: float
    descent: float
    cap_height: float


@lru_cache(maxsize=256)
def shape(text: str, family: str, weight: int, italic: bool = False, tracking: float = 0.0) -> Shaped:
    """Shape a paragraph; `tracking` is letter spacing in em."""
    text = _clean(text)
    chain = fallback_chain(family, weight, italic)
    base, levels = bidi.levels(text)
    shaped = [cluster for run in _runs(text, levels, chain) for cluster in _shape_run(*run, tracking=tracking)]
    clusters = _mark_breaks(shaped, has_kana(text))
    ellipsis, hyphen = (_shape_run(mark, chain[0], base, tracking=0.0)[0] for mark in (ELLIPSIS, "-"))
    cap_height = chain[0].cap_height
    tops, bottoms = zip(*(_ink(cluster) for cluster in clusters), strict=True) if clusters else ((0.0,), (0.0,))
    return Shaped(
        clusters=tuple(clusters),
        segments=tuple(_segments(clusters, hyphen.advance)),
        ellipsis=ellipsis,
        hyphen=hyphen,
        base=base,
        ascent=max(cap_height, *tops),
        descent=max(_DESCENT, *bottoms),
        cap_height=cap_height,
    )


def _clean(text: str) -> str:
    """One kind of newline, no control characters, composed letters, bounded length."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")).strip()
    text = "".join(char for char in text if char == "\n" or unicodedata.category(char) not in ("Cc", "Cs"))
    return text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + ELLIPSIS


def _runs(text: str, levels: list[int], chain: tuple[Face, ...]) -> list[tuple[str, Face, int]]:
    """Pieces of one face and one level, in logical order; a newline is a piece of its own."""
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


def _shape_run(text: str, face: Face, level: int, *, tracking: float) -> list[Cluster]:
    """Shape one run; the clusters come in logical order, each with its glyphs in visual order."""
    if text == "\n":
        return [Cluster(text, face, level, 0.0, ())]
    buffer = hb.Buffer()
    buffer.add_codepoints([ord(char) for char in text])
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if level % 2 else "ltr"
    hb.shape(face.hb_font, buffer, {"liga": not tracking, "clig": not tracking})
    joined = buffer.script == "Arab"  # letters that join must not be spaced apart
    glyphs: dict[int, list[Glyph]] = {}
    advances: dict[int, float] = {}
    scale = 1 / face.units
    for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        pen = advances.get(info.cluster, 0.0)
        glyph = (info.codepoint, pen + position.x_offset * scale, -position.y_offset * scale)
        glyphs.setdefault(info.cluster, []).append(glyph)
        advances[info.cluster] = pen + position.x_advance * scale
    starts = sorted(glyphs)
    extra = 0.0 if joined else tracking
    return [
        Cluster(text[start:end], face, level, advances[start] + extra, tuple(glyphs[start]))
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True)
    ]


def _mark_breaks(clusters: list[Cluster], japanese: bool) -> list[Cluster]:
    marked: list[Cluster] = []
    for cluster, after in zip_longest(clusters, clusters[1:]):
        can = after is not None and may_break(graphemes(cluster.text)[-1], graphemes(after.text)[0], japanese)
        marked.append(Cluster(cluster.text, cluster.face, cluster.level, cluster.advance, cluster.glyphs, can))
    return marked


def _segments(clusters: list[Cluster], hyphen: float) -> list[Segment]:
    segments: list[Segment] = []
    start = 0
    for at, cluster in enumerate(clusters):
        hard = cluster.text == "\n"
        if hard or cluster.break_after or at == len(clusters) - 1:
            inside = clusters[start : at + 1]
            width = sum(each.advance for each in inside)
            space = sum(each.advance for each in takewhile(lambda each: each.blank, reversed(inside)))
            if cluster.text == SOFT_HYPHEN:  # shown only where a line ends, so room is kept but not used up
                space = -hyphen
            segments.append(Segment(start, at + 1, width - space, space, hard))
            start = at + 1
    return segments


def _ink(cluster: Cluster) -> tuple[float, float]:
    """How far the cluster's ink reaches above and below the baseline, in em."""
    if cluster.face.family == EMOJI:
        return _EMOJI_TOP, _EMOJI_BOTTOM
    reach = [(top - y, bottom + y) for gid, _, y in cluster.glyphs for top, bottom in (glyph_ink(cluster.face, gid),)]
    return max((top for top, _ in reach), default=0.0), max((bottom for _, bottom in reach), default=0.0)


@lru_cache(maxsize=8192)
def glyph_ink(face: Face, gid: int) -> tuple[float, float]:
    """A glyph's reach above and below the baseline in em, its own offset aside."""
    extents = face.hb_font.get_glyph_extents(gid)
    if extents is None:
        return 0.0, 0.0
    return extents.y_bearing / face.units, -(extents.y_bearing + extents.height) / face.units
