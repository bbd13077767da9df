"""Text cut into what a reader calls one character, and where a line may break between them.

Graphemes follow UAX #29 closely enough for marks, joined emoji, flags, keycaps and Hangul jamo. Line breaks
follow the parts of UAX #14 that ads meet: spaces, hyphens, CJK without spaces, and what may not start or
end a line. Scripts that need a dictionary (Thai, Lao, Khmer) break between any two graphemes.
"""

import re
import unicodedata

PLAIN = re.compile("[\n -~\xa0-\u02ff\u2010-\u2027\u20ac]*")
"""Texts that need no care, as most Latin ones: left to right, no marks that join, no break but after a `PLAIN_ENDS`."""
SOFT_HYPHEN = "\u00ad"
"""Where a word may be divided; shown as a hyphen only at the end of a line."""
_ZWJ = "\u200d"
_GLUE = "\u00a0\u202f\u2060\ufeff"
# Characters of category So in the Basic Multilingual Plane that are shown in colour by default
# (Unicode Emoji_Presentation).
_EMOJI_BMP = frozenset(
    "⌚⌛⏩⏪⏫⏬⏰⏳◽◾☔☕♈♉♊♋♌♍♎♏♐♑♒♓♿⚓⚡⚪⚫⚽⚾⛄⛅⛎⛔⛪⛲⛳⛵⛺⛽✅✊✋✨❌❎❓❔❕❗➕➖➗➰➿⬛⬜⭐⭕"
)
# Japanese and Chinese rules (kinsoku): these may not start a line …
_NO_START = frozenset(
    "、。，．・：；？！‥…」』）］｝〉》】〕〗ー々〻ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ%‰℃"
)
_NO_START_ANY = frozenset(",.:;!?)]}»”’%…،؛؟。、！？：；，．")
# … and these may not end one.
_NO_END = frozenset("「『（［｛〈《【〔〖([{«“‘¿¡$€£¥₹₩₪")
_PAUSES = frozenset("、。，．！？・：；」』）")
_AFTER = frozenset("-‐–—/")
PLAIN_ENDS = frozenset((" ", SOFT_HYPHEN, *_AFTER))
"""Where `may_break` can say yes in a plain text."""


def graphemes(text: str) -> list[str]:
    """The text's grapheme clusters, in order; joined they are the text."""
    clusters: list[str] = []
    for char in text:
        if clusters and _joins(clusters[-1], char):
            clusters[-1] += char
        else:
            clusters.append(char)
    return clusters


def _joins(cluster: str, char: str) -> bool:
    previous = cluster[-1]
    if previous == "\n" or char == "\n":
        return False
    if char == _ZWJ or unicodedata.category(char) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= char <= "\U0001f3ff":
        return True
    if "\U000e0020" <= char <= "\U000e007f":  # tag characters of subdivision flags
        return True
    if previous == _ZWJ and _pictograph(char):
        return True
    if _regional(char) and _regional(previous):
        return len(cluster) % 2 == 1
    return _jamo(previous) and _jamo(char)


def _regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _jamo(char: str) -> bool:
    return "\u1100" <= char <= "\u11ff"


def _pictograph(char: str) -> bool:
    return unicodedata.category(char) == "So" or char >= "\U0001f000"


def is_emoji(cluster: str) -> bool:
    """Whether a grapheme is to be shown in colour: by its nature, a variation selector, or a sequence."""
    if "\ufe0e" in cluster:
        return False
    first = cluster[0]
    return "\ufe0f" in cluster or "\u20e3" in cluster or first in _EMOJI_BMP or "\U0001f000" <= first < "\U0001fb00"


def _ideographic(char: str) -> bool:
    """Whether lines may break on both sides of the character: CJK, kana, Hangul, full-width, Thai, Lao, Khmer."""
    return (
        "\u2e80" <= char <= "\u9fff"
        or "\uac00" <= char <= "\ud7af"
        or "\uf900" <= char <= "\ufaff"
        or "\uff00" <= char <= "\uffef"
        or "\u0e00" <= char <= "\u0eff"
        or "\u1780" <= char <= "\u17ff"
        or "\U00020000" <= char <= "\U0003ffff"
    )


def has_kana(text: str) -> bool:
    """Whether a text is Japanese rather than Chinese."""
    return any("\u3041" <= char <= "\u30fa" for char in text)


def _one_phrase(left: str, right: str) -> bool:
    """Whether a Japanese reader would stumble over a break here.

    Endings and particles (hiragana) belong to what stands before them; a compound of one script is one word.
    """
    if "\u3041" <= right <= "\u309f":
        return _ideographic(left) and left not in _PAUSES
    katakana = "\u30a1" <= left <= "\u30fc" and "\u30a1" <= right <= "\u30fc"
    return katakana or ("\u4e00" <= left <= "\u9fff" and "\u4e00" <= right <= "\u9fff")


def _hangul(char: str) -> bool:
    return "\uac00" <= char <= "\ud7af"


def may_break(before: str, after: str, japanese: bool = False) -> bool:
    """Whether a line may end after grapheme `before` and go on with grapheme `after`.

    `japanese`: the text has kana, so that its phrases can be told and stay whole.
    """
    left, right = before[-1], after[0]
    if right.isspace() or left in _GLUE or right in _GLUE:
        return False
    if left.isspace() or left in ("\u200b", SOFT_HYPHEN):
        return True
    if right in _NO_START or right in _NO_START_ANY or before[0] in _NO_END:
        return False
    if before[0] in _AFTER:
        return right.isalpha()
    if _hangul(left) and _hangul(right):  # Korean breaks at its spaces
        return False
    if japanese and _one_phrase(left, right):
        return False
    return _ideographic(before[0]) or _ideographic(right) or is_emoji(before) or is_emoji(after)
