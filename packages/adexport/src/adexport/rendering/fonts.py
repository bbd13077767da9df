"""The bundled fonts: which file serves a family and weight, and which font serves a character.

Only these files are ever used, never the machine's own, so the same input gives the same bytes everywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import uharfbuzz as hb

from adexport.rendering.skia_loader import skia

_FOLDER = Path(__file__).parent / "fonts"

_WEIGHTS = ((400, "Regular"), (700, "Bold"))
# family -> (weight, italic, file); the nearest weight serves when the exact one is not bundled.
_FILES: dict[str, tuple[tuple[int, bool, str], ...]] = {
    "Inter": (
        (400, False, "Inter-Regular.ttf"),
        (600, False, "Inter-SemiBold.ttf"),
        (800, False, "Inter-ExtraBold.ttf"),
    ),
    "Outfit": ((500, False, "Outfit-Medium.ttf"), (700, False, "Outfit-Bold.ttf")),
    "Playfair Display": (
        (600, False, "PlayfairDisplay-SemiBold.ttf"),
        (600, True, "PlayfairDisplay-SemiBoldItalic.ttf"),
    ),
    "Plus Jakarta Sans": ((500, False, "PlusJakartaSans-Medium.ttf"), (800, False, "PlusJakartaSans-ExtraBold.ttf")),
    "Space Grotesk": ((500, False, "SpaceGrotesk-Medium.ttf"), (700, False, "SpaceGrotesk-Bold.ttf")),
    "Noto Sans CJK": ((400, False, "NotoSansCJK-Regular.otf"), (700, False, "NotoSansCJK-Bold.otf")),
    "Noto Sans Symbols 2": ((400, False, "NotoSansSymbols2-Regular.ttf"),),
    "Noto Color Emoji": ((400, False, "NotoColorEmoji.ttf"),),
}
EMOJI = "Noto Color Emoji"
_SCRIPTS = (
    "Arabic Hebrew Thai Devanagari Bengali Tamil Telugu Gujarati Gurmukhi Kannada Malayalam Georgian Armenian Khmer Lao"
)
_BY_SCRIPT = tuple(f"Noto Sans {script}" for script in _SCRIPTS.split())
_FILES |= {
    family: tuple((weight, False, f"{family.replace(' ', '')}-{name}.ttf") for weight, name in _WEIGHTS)
    for family in _BY_SCRIPT
}
# Asked in this order when the design's own family lacks a character. Inter brings Cyrillic, Greek, Vietnamese.
_FALLBACK = ("Inter", "Noto Sans CJK", *_BY_SCRIPT, "Noto Sans Symbols 2", EMOJI)
# Joiners, variation selectors and direction marks need no glyph of their own.
_INVISIBLE = {0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFE0E, 0xFE0F, *range(0x200E, 0x2010), *range(0x202A, 0x202F)}
_INVISIBLE |= set(range(0x2066, 0x206A))


@dataclass(frozen=True, eq=False)
class Face:
    """One font file, opened for shaping (HarfBuzz) and drawing (skia). Lengths are in em, y grows downwards."""

    family: str
    file: str

    @cached_property
    def data(self) -> bytes:
        """The file's bytes, shared by both libraries for as long as the face lives."""
        return (_FOLDER / self.file).read_bytes()

    @cached_property
    def hb_font(self) -> hb.Font:
        """The shaping font, scaled to its own units per em."""
        return hb.Font(hb.Face(self.data))

    @cached_property
    def units(self) -> int:
        """Units per em."""
        return int(self.hb_font.face.upem)

    @cached_property
    def covered(self) -> frozenset[int]:
        """Code points that the font has glyphs for, or that need none."""
        return frozenset(self.hb_font.face.unicodes) | _INVISIBLE

    @cached_property
    def cap_height(self) -> float:
        """Height of a capital H above the baseline."""
        glyph = self.hb_font.get_nominal_glyph(ord("H"))
        extents = self.hb_font.get_glyph_extents(glyph) if glyph else None
        return extents.y_bearing / self.units if extents else 0.72

    @cached_property
    def typeface(self) -> skia.Typeface:
        """The drawing typeface."""
        return _font_reader().makeFromData(skia.Data.MakeWithoutCopy(self.data))

    def covers(self, text: str) -> bool:
        """Whether every visible character of `text` has a glyph."""
        return self.covered.issuperset(map(ord, text))

    @lru_cache(maxsize=64)  # noqa: B019  (faces live as long as the process: there are about thirty)
    def sized(self, size: float) -> skia.Font:
        """The drawing font at `size` pixels: unhinted, at subpixel positions, so that text scales evenly."""
        font = skia.Font(self.typeface, size)
        font.setSubpixel(True)
        font.setLinearMetrics(True)
        font.setHinting(skia.FontHinting.kNone)
        font.setEdging(skia.Font.Edging.kAntiAlias)
        font.setBaselineSnap(False)
        return font


@lru_cache(maxsize=1)
def _font_reader() -> skia.FontMgr:
    """skia's font reader that knows no system fonts; its default one would read the machine's fontconfig."""
    return skia.FontMgr.New_Custom_Empty()


@cache
def _face(family: str, file: str) -> Face:
    return Face(family, file)


@lru_cache(maxsize=512)
def face_for(family: str, weight: int, italic: bool = False) -> Face:
    """The bundled file nearest to the weight and slant asked for; of two equally near, the bolder."""
    _, _, file = min(_FILES[family], key=lambda each: (each[1] != italic, abs(each[0] - weight), -each[0]))
    return _face(family, file)


@lru_cache(maxsize=512)
def fallback_chain(family: str, weight: int, italic: bool = False) -> tuple[Face, ...]:
    """The design's own face, then the fallbacks in order."""
    chain = [face_for(family, weight, italic), *(face_for(name, weight) for name in _FALLBACK if name != family)]
    return tuple(chain)


def families() -> Iterable[str]:
    """Every bundled family, fallbacks included."""
    return _FILES.keys()
