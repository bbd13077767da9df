"""Text on a canvas: wrapping in many scripts, ellipsis, auto-fit, fallback fonts, and that no ink leaves its block."""

import unicodedata
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adexport.designs import parse_design
from adexport.designs.document import Family
from adexport.errors import RenderError
from adexport.rendering import Layout, draw, fonts, layout
from adexport.rendering.fonts import face_for, families
from adexport.rendering.graphemes import PLAIN, PLAIN_ENDS, graphemes, is_emoji, may_break
from adexport.rendering.paragraph import balance, wrap
from adexport.rendering.scene import TextItem
from adexport.rendering.shaping import Segment, shape

_SCRIPTS = (
    "عرض 50% على 3 قطع|한국어|日本語|简体中文|ไทย|हिन्दी|עברית|🎉|★|বাংলা|தமிழ்|తెలుగు|ગુજરાતી|ਪੰਜਾਬੀ|ಕನ್ನಡ|മലയാളം"
    "|ქართული|Հայերեն|ភាសាខ្មែរ|ລາວ|Русский|Ελληνικά|Tiếng Việt"
)
_LONG = "Every meeting, decision, document and deadline of your whole company on one calm page"


def _no_assets(name: str) -> bytes:
    raise KeyError(name)


def _lay_out(text: str, width: int = 300, height: int = 250, lead: bool = True, **style: Any) -> Layout:
    layer = {"type": "text", "id": "t", "text": "{{ x }}", "size": 30, "min_size": 10, "color": "#000000"} | style
    document = {"version": 1, "name": "t", "title": "T", "background": "#ffffff", "layers": [layer]}
    design = parse_design(document | ({"lead": "x"} if lead else {}))
    return layout(design, width, height, {"x": text}, _no_assets)


def _text(text: str, width: int = 300, height: int = 250, **style: Any) -> TextItem:
    (item,) = _lay_out(text, width, height, **style).texts()
    return item


@pytest.mark.parametrize(
    "text",
    [
        "Ålesund Qjpgy fjÖrd",
        "مدخرات تنمو وأنت نائم كل ليلة",
        "חסכונות שגדלים בזמן שישנים",
        "眠っている間にも、ふえていく貯蓄。漢字と仮名",
        "적게 계획하고 더 많이 출시하세요",
        "ไทยแลนด์ น้ำใจดีที่สุด",
        "हिन्दी में बचत",
        "Тихий берег Ελληνικά Việt Nam",
        "Party 🎉 👨‍👩‍👧‍👦 🇯🇵 1️⃣ ❤️ ★ ✓ →",
    ],
)
@pytest.mark.parametrize("size", [(300, 250), (120, 600), (728, 90)])
def test_all_ink_stays_inside_the_block_that_was_measured(text: str, size: tuple[int, int]) -> None:
    result = _lay_out(text, *size, align="center", valign="center")
    (item,) = result.texts()
    raster = draw(result, _no_assets)
    pixels = np.frombuffer(raster.rgba, np.uint8).reshape(size[1], size[0], 4)
    rows, columns = np.nonzero((pixels[..., :3] < 200).any(axis=2))
    assert len(rows) > 20
    # Side bearings and antialiasing may reach a little beyond the advances.
    slack = item.size * 0.12 + 1
    assert rows.min() >= item.ink.y - 1
    assert rows.max() <= item.ink.bottom + 1
    assert columns.min() >= item.ink.x - slack
    assert columns.max() <= item.ink.right + slack
    assert not item.truncated


@pytest.mark.parametrize(
    "text", ["عرض 50% على 3 قطع", "مبيعات", "한국어", "日本語", "ไทย", "हिन्दी", "עברית", "🎉", "★"]
)
def test_every_script_has_a_font(text: str) -> None:
    assert all(gid for cluster in shape(text, "Outfit", 700).clusters for gid, _, _ in cluster.glyphs)


def test_every_bundled_font_is_there_with_a_licence() -> None:
    folder = Path(fonts.__file__).parent / "fonts"
    files = {face.file for family in families() for weight in (400, 700) for face in (face_for(family, weight),)}
    assert all((folder / file).stat().st_size > 10_000 for file in files)
    for file in folder.glob("*.[ot]tf"):
        stem = file.stem.partition("-")[0]
        licences = [folder / f"OFL-{name}.txt" for name in (stem, "NotoSans") if stem.startswith(name)]
        assert any(each.exists() and "SIL OPEN FONT LICENSE" in each.read_text("utf-8") for each in licences), file.name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 25_000_000


def test_a_family_that_lacks_a_letter_borrows_it() -> None:
    faces = {cluster.face.family for cluster in shape("Привет 日本 🎉", "Space Grotesk", 700).clusters}
    assert {"Noto Sans CJK", "Noto Color Emoji"} < faces


def test_the_families_of_the_format_are_bundled() -> None:
    assert set(Family.__args__) <= set(families())  # type: ignore[attr-defined]


def test_kerning_brings_letters_together() -> None:
    pair = sum(cluster.advance for cluster in shape("AV", "Inter", 400).clusters)
    apart = sum(cluster.advance for letter in "AV" for cluster in shape(letter, "Inter", 400).clusters)
    assert pair < apart - 0.02


def test_letter_spacing_widens_latin_but_never_tears_arabic() -> None:
    def width(text: str, tracking: float) -> float:
        return sum(cluster.advance for cluster in shape(text, "Inter", 400, False, tracking).clusters)

    assert width("abc", 0.1) == pytest.approx(width("abc", 0) + 0.3)
    assert width("مرحبا", 0.1) == pytest.approx(width("مرحبا", 0))


def test_text_shrinks_until_it_fits_and_no_further() -> None:
    short, long = _text("Hi"), _text(_LONG, 200, 80)
    assert short.size == 30
    assert 10 <= long.size < 30
    assert not long.truncated
    assert len(long.lines) <= 3


def test_what_cannot_fit_ends_in_an_ellipsis_at_the_least_size() -> None:
    item = _text(_LONG * 3, 200, 60)
    assert item.truncated
    assert item.size == 10
    assert item.lines[-1].text.endswith("…")
    assert item.lines[-1].text[-2] not in " ,"
    assert item.ink.right <= 200.5


def test_right_to_left_ellipsis_stands_at_the_left() -> None:
    item = _text("مدخرات تنمو وأنت نائم " * 12, 200, 40)
    last = item.lines[-1]
    assert last.text.endswith("…")
    ellipsis = shape("…", "Inter", 400).clusters[0].glyphs[0][0]
    leftmost = min(last.runs, key=lambda run: run.xs[0])
    assert leftmost.glyphs[0] == ellipsis


def test_a_long_word_is_cut_rather_than_pushed_out() -> None:
    item = _text("Donaudampfschifffahrtsgesellschaftskapitänsmütze", 90, 200, max_lines=9)
    assert len(item.lines) > 1
    assert all(line.width <= 90.5 for line in item.lines)
    assert "".join(line.text for line in item.lines) == "Donaudampfschifffahrtsgesellschaftskapitänsmütze"


def test_chinese_and_japanese_wrap_without_spaces_but_not_before_a_full_stop() -> None:
    item = _text("新しいランニングシューズが登場、今すぐチェック。" * 2, 150, 200, max_lines=9, size=20)
    assert len(item.lines) > 2
    assert all(line.text[0] not in "、。ーッ" for line in item.lines)


def test_newlines_break_and_nothing_else_in_the_row_does() -> None:
    item = _text("one\r\ntwo\nthree\x00\x07")
    assert [line.text for line in item.lines] == ["one", "two", "three"]


def test_lines_are_balanced() -> None:
    even = _text("Savings that grow while you sleep", 300, 250, size=24)
    greedy = _text("Savings that grow while you sleep", 300, 250, size=24, balance=False)
    assert len(even.lines) == len(greedy.lines) == 2

    def spread(item: TextItem) -> float:
        widths = [line.width for line in item.lines]
        return max(widths) - min(widths)

    assert spread(even) < spread(greedy)


@pytest.mark.parametrize(("align", "place"), [("start", 0.0), ("center", 0.5), ("end", 1.0)])
def test_alignment(align: str, place: float) -> None:
    (line,) = _text("Hello", align=align).lines
    assert line.x == pytest.approx(place * (300 - line.width))


def test_a_right_to_left_lead_mirrors_the_layout() -> None:
    (hebrew,) = _text("שלום", align="start").lines
    assert hebrew.x + hebrew.width == pytest.approx(300)
    (plain,) = _text("שלום", align="start", lead=False).lines
    assert plain.x == pytest.approx(0)


def test_an_essay_in_a_cell_is_cut_before_it_costs_time() -> None:
    assert len(shape("word " * 5000, "Inter", 400).clusters) <= 1201


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("e\u0301", 1),
        ("👨‍👩‍👧‍👦", 1),
        ("🇯🇵🇩🇪", 2),
        ("1️⃣", 1),
        ("👍🏽", 1),
        ("a\nb", 3),
        ("한국", 2),
        ("\u1112\u1161\u11ab", 1),
        ("นํ้า", 2),
    ],
)
def test_graphemes(text: str, count: int) -> None:
    assert len(graphemes(text)) == count
    assert "".join(graphemes(text)) == text


def test_emoji_by_nature_and_by_selector() -> None:
    assert is_emoji("⭐")
    assert is_emoji("❤\ufe0f")
    assert not is_emoji("❤")
    assert not is_emoji("⭐\ufe0e")
    assert not is_emoji("★")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (" ", "a", True),
        ("a", "b", False),
        ("-", "b", True),
        ("-", "3", False),
        ("漢", "字", True),
        ("字", "。", False),
        ("「", "字", False),
        ("국", "어", False),
        ("\u00a0", "a", False),
        ("a", "漢", True),
        ("$", "5", False),
    ],
)
def test_where_lines_may_break(before: str, after: str, expected: bool) -> None:
    assert may_break(before, after) is expected


def test_what_is_said_of_plain_texts_holds_for_every_pair_of_their_characters() -> None:
    plain = [chr(code) for code in range(0x3000) if PLAIN.fullmatch(chr(code)) and code > 32] + [" "]
    assert len(plain) > 600
    for one in plain:
        for two in ("a", "9", "(", ")", "“", "é", " ", "\u00a0", "\u00ad", "-", "…", "€", one):
            assert graphemes(one + two) == [one, two]
            assert one in PLAIN_ENDS or not may_break(one, two), (one, two)
        assert unicodedata.bidirectional(one) in ("L", "EN", "ES", "ET", "CS", "WS", "ON", "BN")


@pytest.mark.parametrize("width", [3.0, 4.5, 6.0, 9.0, 14.0])
@pytest.mark.parametrize(
    "text", [_LONG, "Savings that grow while you sleep", "Fjordlandschafts\u00adentdeckungs\u00adreise, los!"]
)
def test_no_other_lines_are_more_even_than_balanced_ones(text: str, width: float) -> None:
    shaped = shape(text, "Inter", 400)
    greedy = wrap(shaped, width, 9)
    even = balance(shaped, greedy)
    count = len(greedy.spans)
    assert len(even.spans) == count
    if 2 <= count <= 4 and not greedy.broken:
        best = min(
            max(_line_width(shaped.segments[a:b]) for a, b in pairwise((0, *cuts, len(shaped.segments))))
            for cuts in combinations(range(1, len(shaped.segments)), count - 1)
        )
        assert even.width == pytest.approx(best, abs=1e-5)


def _line_width(segments: tuple[Segment, ...]) -> float:
    """Words, the spaces between them, and the hyphen where the last one is divided."""
    return sum(width + space for _, _, width, space, _ in segments) - segments[-1][3]


def test_a_missing_field_names_the_layer() -> None:
    design = parse_design(
        {
            "version": 1,
            "name": "t",
            "title": "T",
            "background": "#fff",
            "layers": [{"type": "text", "id": "price", "text": "{{ price | number:2 }}", "size": 20}],
        }
    )
    with pytest.raises(RenderError, match="Layer 'price' cannot be drawn: the row has no field 'price'"):
        layout(design, 300, 250, {}, _no_assets)
    with pytest.raises(RenderError, match="'soon' is not a number"):
        layout(design, 300, 250, {"price": "soon"}, _no_assets)


def test_a_soft_hyphen_shows_only_where_a_line_ends() -> None:
    whole = _text("Fjordlandschafts\u00adentdeckungs\u00adreise", 300, 100, size=14)
    assert [line.text for line in whole.lines] == ["Fjordlandschaftsentdeckungsreise"]
    divided = _text("Fjordlandschafts\u00adentdeckungs\u00adreise", 150, 200, size=16, max_lines=3, balance=False)
    assert [line.text for line in divided.lines] == ["Fjordlandschafts-", "entdeckungsreise"]
    assert all(line.width <= 150 for line in divided.lines)


def test_japanese_breaks_between_phrases_and_chinese_between_any_two() -> None:
    japanese = _text("計画は短く、成果は大きく", 150, 200, size=30)
    assert [line.text for line in japanese.lines] == ["計画は短く、", "成果は大きく"]
    chinese = _text("手工拉坯陶瓷花瓶", 100, 200, size=30)
    assert len(chinese.lines) == 3
