"""The sample designs in every size with every row of their feeds: nothing overlaps, is clipped or too small."""

import csv
import io
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adexport.designs import bundled_asset, load_samples
from adexport.rendering import Layout, draw, layout
from adexport.rendering.scene import ImageItem, ShapeItem, TextItem

_SAMPLES = load_samples()
# Every size of the networks' placement tables.
_SIZE_NAMES = """
    200x200 240x400 250x250 250x360 300x250 336x280 580x400 120x600 160x600 300x600 300x1050 468x60 728x90 930x180
    970x90 970x250 980x120 300x50 320x50 320x100 120x60 640x1136 750x1334 1080x1920 320x480 480x320 1080x1080
    1080x1350 1200x628 1200x1200 720x900 540x960 640x640 960x540 414x125 375x667
"""
_SIZES = [(int(width), int(height)) for width, _, height in (name.partition("x") for name in _SIZE_NAMES.split())]
# Rows with far more words than an ad has: an ellipsis is right there. A 120x60 has room for a few words only.
_ESSAYS = {"NH-106", "T-5", "F-5", "A-5"}
_TINY = (120, 60)
_ODD = "aא مด한漢カの。-\u00ad\u200d\ufe0f\U0001f468\U0001f3fd\U0001f1ef\n (\u202e\u2067\u0301"


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_SAMPLES[name].feed_csv.decode())))


def _cases() -> list[tuple[str, str]]:
    return [(name, next(iter(row.values()))) for name in _SAMPLES for row in _rows(name)]


@cache
def _layouts(name: str, key: str) -> list[Layout]:
    (row,) = (row for row in _rows(name) if next(iter(row.values())) == key)
    return [layout(_SAMPLES[name].design, *size, row, bundled_asset) for size in _SIZES]


def test_the_samples_suggest_every_size() -> None:
    for sample in _SAMPLES.values():
        assert set(sample.design.sizes) == set(_SIZES)


def test_the_feeds_have_the_hard_rows() -> None:
    for name in _SAMPLES:
        rows = [" ".join(row.values()) for row in _rows(name)]
        assert 8 <= len(rows) <= 24
        assert any("\u0600" <= char <= "\u06ff" for row in rows for char in row), "Arabic"
        assert any("\u0590" <= char <= "\u05ff" for row in rows for char in row), "Hebrew"
        assert any("\u4e00" <= char <= "\u9fff" for row in rows for char in row), "CJK"
        assert any(char > "\U0001f000" for row in rows for char in row), "emoji"
        assert any(len(row) > 200 for row in rows), "long"


@pytest.mark.parametrize(("name", "key"), _cases())
def test_no_size_has_overlapping_clipped_or_tiny_text(name: str, key: str) -> None:
    for result in _layouts(name, key):
        size = (result.width, result.height)
        assert result.overlapping_texts() == [], size
        assert result.covered_texts() == [], size
        assert result.clipped() == [], size
        for text in result.texts():
            assert result.safe.holds(text.ink, 1.5), (size, text.layer)
            assert text.size >= 9, (size, text.layer)
            assert key in _ESSAYS or size == _TINY or not text.truncated, (size, text.layer)


@pytest.mark.parametrize(("name", "key"), _cases())
def test_every_size_has_its_lead_and_a_way_to_act(name: str, key: str) -> None:
    lead = _SAMPLES[name].design.lead
    for result in _layouts(name, key):
        words = {text.layer for text in result.texts()}
        size = (result.width, result.height)
        assert words & {lead, "figure"}, size
        assert "cta" in words or size == _TINY, size


@pytest.mark.parametrize(("name", "key"), _cases())
def test_labels_stay_on_their_buttons_and_stand_out(name: str, key: str) -> None:
    for result in _layouts(name, key):
        for plate, label in [result.of("cta")] if result.of("cta") else []:
            assert isinstance(plate, ShapeItem)
            assert isinstance(label, TextItem)
            assert plate.fill is not None
            assert plate.box.holds(label.ink, 2.0), (result.width, result.height)
            # WCAG 2.2, 1.4.3: contrast of at least 4.5 to 1
            assert _contrast(plate.fill.stops[0][1], label.colour) >= 4.5


def _contrast(one: int, two: int) -> float:
    """The contrast ratio of two opaque colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: int) -> float:
        parts = [(colour >> shift & 255) / 255 for shift in (16, 8, 0)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(two)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", ["product-spotlight", "travel-postcard"])
def test_pictures_are_shown_in_every_size(name: str) -> None:
    for result in _layouts(name, next(iter(_rows(name)[0].values()))):
        (photo,) = (item for item in result.items if isinstance(item, ImageItem))
        shown = min(photo.box.right, result.width) - max(photo.box.x, 0)
        assert shown * photo.box.height >= 0.1 * result.width * result.height


def test_a_right_to_left_row_is_the_mirror_of_a_left_to_right_one() -> None:
    design = _SAMPLES["product-spotlight"].design
    row = _rows("product-spotlight")[0]
    plain = layout(design, 300, 250, row, bundled_asset)
    turned = layout(design, 300, 250, row | {"product": "מנורה"}, bundled_asset)
    (photo,), (other,) = plain.of("photo"), turned.of("photo")
    assert other.box.x == pytest.approx(300 - photo.box.right)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(_SAMPLES)),
    st.sampled_from([(300, 250), (320, 50), (160, 600), (120, 60)]),
    st.text(max_size=80),
    st.text(
        alphabet="aא مด한漢カの。-\u00ad\u200d\ufe0f\U0001f468\U0001f3fd\U0001f1ef\n (\u202e\u2067\u0301", max_size=60
    ),
)
def test_no_row_can_break_a_layout(name: str, size: tuple[int, int], wild: str, mixed: str) -> None:
    texts = {field: (wild if index % 2 else mixed) for index, field in enumerate(_rows(name)[0])}
    plain = {"image": "asset:lamp", "price": "5", "accent": "", "paper": "", "highlight": ""}
    fields = texts | {field: value for field, value in plain.items() if field in texts}
    if name == "app-launch":
        fields.pop("from", None)
    result = layout(_SAMPLES[name].design, *size, fields, bundled_asset)
    assert draw(result, bundled_asset).opaque
    for text in result.texts():
        assert all(line.width <= result.width + 1 for line in text.lines)


def test_an_essay_in_every_field_ends_in_ellipses() -> None:
    design = _SAMPLES["app-launch"].design
    essay = " ".join(f"word{number}" for number in range(2000))
    result = layout(
        design,
        300,
        250,
        dict.fromkeys(design.fields(), essay) | dict.fromkeys(("from", "via", "to"), ""),
        bundled_asset,
    )
    assert any(text.truncated for text in result.texts())
