"""Boxes and stacks: anchors, aspect, safe area, growing, justifying, hugging, leaving out and coming back."""

from typing import Any

import pytest

from adexport.designs import parse_design
from adexport.errors import RenderError
from adexport.rendering import Layout, layout
from adexport.rendering.scene import Rect, ShapeItem, TextItem


def _no_assets(name: str) -> bytes:
    raise KeyError(name)


def _lay_out(
    *layers: dict[str, Any], size: tuple[int, int] = (200, 100), fields: dict[str, str] | None = None, **rest: Any
) -> Layout:
    document = {"version": 1, "name": "t", "title": "T", "background": "#fff", "layers": list(layers)} | rest
    return layout(parse_design(document), *size, fields or {}, _no_assets)


def _shape(name: str = "s", **members: Any) -> dict[str, Any]:
    return {"type": "shape", "id": name, "fill": "#000"} | members


def _text(name: str, words: str, **members: Any) -> dict[str, Any]:
    return {"type": "text", "id": name, "text": words, "size": 20, "min_size": 10} | members


def _stack(*layers: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "group", "id": "g", "layout": "column", "layers": list(layers)} | members


def _boxes(result: Layout) -> dict[str, Rect]:
    return {item.layer: item.box for item in result.items}


def _ink(result: Layout, name: str) -> Rect:
    (item,) = (item for item in result.of(name) if isinstance(item, TextItem))
    return item.ink


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ({}, Rect(0, 0, 200, 100)),
        ({"left": 10, "right": 20, "top": 5, "bottom": "10%"}, Rect(10, 5, 170, 85)),
        ({"right": 10, "bottom": 10, "width": 50, "height": 20}, Rect(140, 70, 50, 20)),
        ({"width": "50%", "height": "50vmin"}, Rect(50, 25, 100, 50)),
        ({"left": 0, "top": 0, "width": 40, "aspect": 2}, Rect(0, 0, 40, 20)),
        ({"right": 0, "top": 0, "height": 40, "aspect": 0.5}, Rect(180, 0, 20, 40)),
        ({"aspect": 1}, Rect(50, 0, 100, 100)),
        ({"left": 150, "right": 150}, Rect(150, 0, 0, 100)),
    ],
)
def test_boxes_anchor_stretch_and_centre(box: dict[str, Any], expected: Rect) -> None:
    assert _boxes(_lay_out(_shape(box=box)))["s"] == expected


def test_layers_keep_the_safe_area_unless_they_bleed() -> None:
    result = _lay_out(_shape("in"), _shape("out", bleed=True), safe_area={"left": 20, "top": "10%"})
    assert _boxes(result) == {"in": Rect(20, 10, 180, 90), "out": Rect(0, 0, 200, 100)}


def test_boxes_in_a_free_group_are_relative_to_it() -> None:
    group = {"type": "group", "id": "g", "box": {"left": 100}, "layers": [_shape(box={"width": "50%", "left": 0})]}
    assert _boxes(_lay_out(group))["s"] == Rect(100, 0, 50, 100)


def test_a_row_places_one_after_the_other_with_gaps() -> None:
    block = {"box": {"width": 30, "height": 10}}
    result = _lay_out(_stack(_shape("a", **block), _shape("b", **block), layout="row", gap=5, align="end"))
    assert _boxes(result) == {"a": Rect(0, 90, 30, 10), "b": Rect(35, 90, 30, 10)}


@pytest.mark.parametrize(
    ("justify", "tops"), [("start", [0, 20]), ("center", [30, 50]), ("end", [60, 80]), ("between", [0, 80])]
)
def test_a_column_justifies(justify: str, tops: list[float]) -> None:
    block = {"box": {"width": 30, "height": 20}}
    boxes = _boxes(_lay_out(_stack(_shape("a", **block), _shape("b", **block), justify=justify, align="center")))
    assert [boxes["a"].y, boxes["b"].y] == tops
    assert boxes["a"].x == 85


def test_growing_children_share_what_is_left() -> None:
    fixed = _shape("fixed", box={"width": 50})
    result = _lay_out(_stack(_shape("one", grow=1), fixed, _shape("two", grow=2), layout="row"))
    widths = {name: box.width for name, box in _boxes(result).items()}
    assert widths == {"one": 50, "fixed": 50, "two": 100}


def test_padding_and_fill_make_a_plate_as_large_as_its_content() -> None:
    pill = _stack(_text("t", "New", size=20), fill="#f00", pad_x=10, pad_y=6, box={"right": 5, "top": 5})
    result = _lay_out(pill)
    (plate,) = result.of("g")
    ink = _ink(result, "t")
    assert isinstance(plate, ShapeItem)
    assert plate.box.width == pytest.approx(ink.width + 20)
    assert plate.box.height == pytest.approx(ink.height + 12)
    assert plate.box.right == pytest.approx(195)
    assert ink.x == pytest.approx(plate.box.x + 10)


def test_a_button_is_as_large_as_its_label_and_centres_it() -> None:
    result = _lay_out(
        {"type": "button", "id": "b", "text": "Shop now", "size": 16, "fill": "#000", "box": {"left": 10, "top": 10}}
    )
    plate, label = result.of("b")
    assert isinstance(label, TextItem)
    assert plate.box.width == pytest.approx(label.ink.width + 2 * 1.2 * 16)
    assert label.ink.x + label.ink.width / 2 == pytest.approx(plate.box.x + plate.box.width / 2)
    assert 0 < plate.box.height < 60


def test_one_scale_shrinks_all_texts_of_a_stack() -> None:
    words = "Every meeting and every decision on one calm page"
    result = _lay_out(_stack(_text("big", words, size=30, min_size=9), _text("small", words, size=18, min_size=9)))
    sizes = {text.layer: text.size for text in result.texts()}
    assert sizes["big"] < 30
    assert sizes["big"] / sizes["small"] == pytest.approx(30 / 18, rel=0.05)
    assert result.clipped() == result.overlapping_texts() == []


def test_the_highest_number_leaves_first_and_what_was_not_in_the_way_comes_back() -> None:
    essay = "A sentence that is far too long for so small a place, whatever size it is set in, even the least. " * 3
    layers = [
        _text("head", "Head", size=20),
        _text("minor", "Minor", size=10, drop=3),
        _text("essay", essay, size=10, drop=2),
    ]
    result = _lay_out(_stack(*layers))
    assert result.left_out == ("essay",)
    assert {text.layer for text in result.texts()} == {"head", "minor"}


def test_what_may_not_leave_ends_in_an_ellipsis_and_stays_inside() -> None:
    essay = "A sentence that is far too long for so small a place. " * 20
    result = _lay_out(_stack(_text("head", essay, max_lines=20), _text("foot", "Foot")))
    assert result.left_out == ()
    assert result.clipped() == result.overlapping_texts() == []
    assert [text.truncated for text in result.texts()] == [True, False]


def test_a_label_gives_way_only_when_nothing_else_can() -> None:
    button = {"type": "button", "id": "b", "text": "A very long label for a button indeed", "size": 20, "fill": "#000"}
    result = _lay_out(
        _stack(_text("t", "Words", grow=1, box={"width": 40}), button, layout="row", gap=4), size=(180, 40)
    )
    (label,) = (item for item in result.of("b") if isinstance(item, TextItem))
    assert label.truncated
    assert label.ink.right <= 180
    assert result.overlapping_texts() == []


def test_empty_and_hidden_layers_take_no_room() -> None:
    layers = [_text("a", "{{ a }}"), _text("b", "Below", show_if="b"), _text("c", "Last")]
    result = _lay_out(_stack(*layers, gap=10), fields={"a": " ", "b": ""})
    assert [text.layer for text in result.texts()] == ["c"]
    assert _ink(result, "c").y == 0


def test_mirrored_layouts_swap_sides() -> None:
    layers = [_shape(box={"left": 10, "width": 30}), _text("t", "{{ x }}", box={"left": 50}, size=12)]
    plain = _lay_out(*layers, fields={"x": "abc"}, lead="x")
    turned = _lay_out(*layers, fields={"x": "אבג"}, lead="x")
    assert _boxes(plain)["s"] == Rect(10, 0, 30, 100)
    assert _boxes(turned)["s"] == Rect(160, 0, 30, 100)
    assert _ink(turned, "t").right == pytest.approx(150)


def test_the_checks_see_overlapping_covered_and_clipped_text() -> None:
    overlapping = _lay_out(_text("a", "Hello"), _text("b", "World"))
    assert overlapping.overlapping_texts() == [("a", "b")]
    covered = _lay_out(_text("a", "Hello"), _shape("lid"))
    assert covered.covered_texts() == [("a", "lid")]
    clipped = _lay_out(_text("a", "Hello", box={"left": -30, "width": 100}))
    assert clipped.clipped() == ["a"]
    crowded = _lay_out(_text("a", "Hello", box={"top": 0, "height": 5}))
    assert crowded.clipped() == ["a"]


def test_a_canvas_of_no_size_is_refused() -> None:
    with pytest.raises(RenderError, match="Layer 'canvas' cannot be drawn: 0x100 is not a size"):
        _lay_out(_shape(), size=(0, 100))
