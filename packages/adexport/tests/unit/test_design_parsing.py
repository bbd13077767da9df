"""Reading design documents: what is accepted, and that each mistake is named by its JSON path."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from adexport.designs import bundled_asset, load_samples, parse_design
from adexport.designs.document import When, aspect_of
from adexport.designs.filters import FILTERS
from adexport.designs.parsing import variation_for, walk
from adexport.errors import DesignError, RenderError
from adexport.rendering import layout


def _document(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "version": 1,
        "name": "plain",
        "title": "Plain",
        "background": "#ffffff",
        "constants": {"ink": "#111111"},
        "sizes": ["300x250", "728x90"],
        "layers": [
            {"type": "text", "id": "headline", "text": "{{ headline | upper }}", "size": "10vmin", "color": "$ink"},
            {"type": "image", "id": "photo", "source": "asset:vase", "show_if": "photo"},
            {"type": "button", "id": "cta", "text": "Go", "size": 12, "fill": "{{ accent | default:'#000' }}"},
        ],
    }
    return document | changes


def test_a_design_knows_its_fields_sizes_and_assets() -> None:
    design = parse_design(json.dumps(_document()).encode())
    assert design.name == "plain"
    assert design.title == "Plain"
    assert design.sizes == ((300, 250), (728, 90))
    assert sorted(design.fields()) == ["accent", "headline", "photo"]
    assert design.asset_names() == ["asset:vase"]


def test_equal_documents_are_equal_designs_and_travel_between_processes() -> None:
    first, second = parse_design(_document()), parse_design(json.dumps(_document()).encode())
    assert first == second
    assert hash(first) == hash(second)
    assert pickle.loads(pickle.dumps(first)) == first
    assert parse_design(_document(title="Other")) != first


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"version": 2}, "$.version", "Invalid enum value 2"),
        ({"name": "Bad Name"}, "$.name", "regex"),
        ({"colour": "x"}, "$", "unknown field `colour`"),
        ({"background": "reddish"}, "$.background.stops[0].color", "'reddish' is not a colour"),
        ({"sizes": ["wide"]}, "$.sizes[0]", "regex"),
        ({"layers": []}, "$.layers", "length >= 1"),
        ({"layers": [{"type": "video", "id": "v"}]}, "$.layers[0].type", "Invalid value 'video'"),
        ({"layers": [{"type": "text", "id": "t", "text": "x"}]}, "$.layers[0]", "missing required field `size`"),
        ({"layers": [{"type": "text", "id": "t", "text": "x", "size": "10em"}]}, "$.layers[0].size", "not a length"),
        (
            {"layers": [{"type": "text", "id": "t", "text": "{{x|eval}}", "size": 9}]},
            "$.layers[0].text",
            "not a filter",
        ),
        (
            {"layers": [{"type": "text", "id": "t", "text": "x", "size": 9, "font": "Arial"}]},
            "$.layers[0].font",
            "Arial",
        ),
        ({"layers": [{"type": "shape", "id": "s", "opacity": 2}]}, "$.layers[0].opacity", "<= 1"),
        (
            {"layers": [{"type": "shape", "id": "s"}, {"type": "shape", "id": "s"}]},
            "$.layers",
            "two layers have the id",
        ),
        ({"layers": [{"type": "shape", "id": "s", "fill": "$paper"}]}, "$.layers[0].fill", "names no constant"),
        ({"layers": [{"use": "nothing"}]}, "$.layers.use", "not among $.parts"),
        ({"overrides": [{"when": {}, "set": {"nobody": {"size": 3}}}]}, "$.overrides[0].set.nobody", "no layer has"),
        ({"overrides": [{"when": {}, "set": {"cta": {"size": "x"}}}]}, "$.overrides[0].layers[2].size", "not a length"),
        ({"overrides": [{"when": {"aspect": ["tall"]}}]}, "$.overrides[0].when.aspect[0]", "Invalid enum value"),
    ],
)
def test_mistakes_are_named_by_their_path(changes: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(DesignError) as caught:
        parse_design(_document(**changes))
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert path in str(caught.value)
    assert caught.value.retryable is False


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"version":1,"version":1}', b'{"x":NaN}', b"\xff\xfe", b"x" * 1_000_001]
)
def test_what_is_no_strict_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(DesignError):
        parse_design(data)


def test_a_part_that_uses_itself_is_refused() -> None:
    loop = {"type": "group", "layers": [{"use": "loop", "id": "inner"}]}
    with pytest.raises(DesignError, match="nested more than"):
        parse_design(_document(parts={"loop": loop}, layers=[{"use": "loop"}]))


def test_too_many_layers_are_refused() -> None:
    groups = [
        {"type": "group", "id": f"g{g}", "layers": [{"type": "shape", "id": f"s{g}-{i}"} for i in range(90)]}
        for g in range(6)
    ]
    with pytest.raises(DesignError, match="more than 400 layers"):
        parse_design(_document(layers=groups))


def test_parts_that_multiply_are_refused_before_they_grow() -> None:
    parts: dict[str, Any] = {"p0": {"type": "shape"}}
    for level in range(1, 11):
        parts[f"p{level}"] = {"type": "group", "layers": [{"use": f"p{level - 1}"}] * 90}
    with pytest.raises(DesignError, match="more than 400 layers"):
        parse_design(_document(parts=parts, layers=[{"use": "p10"}]))


def test_a_text_of_openings_is_refused_at_once() -> None:
    layer = {"type": "text", "id": "t", "text": "{{ " * 3000, "size": 20}
    with pytest.raises(DesignError, match="unfinished placeholder"):
        parse_design(_document(layers=[layer]))
    with pytest.raises(DesignError, match="too long; use at most 10000"):
        parse_design(_document(layers=[layer | {"text": "x" * 10_001}]))


def test_overrides_apply_in_order_to_the_sizes_they_name() -> None:
    design = parse_design(
        _document(
            overrides=[
                {"when": {"aspect": ["strip"]}, "set": {"headline": {"max_lines": 1, "size": 20}}},
                {"when": {"max_height": 60}, "set": {"headline": {"size": 14}}},
            ]
        )
    )

    def headline(width: int, height: int) -> tuple[int, float]:
        layer = next(each for each in walk(variation_for(design, width, height).layers) if each.id == "headline")
        return layer.max_lines, layer.size.terms[0][0]  # type: ignore[union-attr]

    assert headline(300, 250) == (3, 10.0)
    assert headline(728, 90) == (1, 20.0)
    assert headline(320, 50) == (1, 14.0)


@pytest.mark.parametrize(
    ("size", "aspect"),
    [
        ((728, 90), "strip"),
        ((320, 100), "strip"),
        ((1200, 628), "landscape"),
        ((300, 250), "rectangle"),
        ((1080, 1350), "rectangle"),
        ((1080, 1920), "portrait"),
        ((160, 600), "skyscraper"),
    ],
)
def test_aspect_classes(size: tuple[int, int], aspect: str) -> None:
    assert aspect_of(*size) == aspect


def test_conditions_must_all_hold() -> None:
    when = When(min_ratio=1.0, max_ratio=2.0, min_width=200, max_height=300)
    assert when.holds(300, 250)
    assert not when.holds(100, 90)
    assert not when.holds(700, 90)
    assert not when.holds(600, 400)


def test_the_samples_are_four_and_their_feeds_have_their_fields() -> None:
    samples = load_samples()
    assert len(samples) == 4
    for sample in samples.values():
        header = sample.feed_csv.decode().splitlines()[0].split(",")
        optional = {"accent", "highlight", "paper", "pop", "shade", "via", "to", "from"}
        assert set(sample.design.fields()) - optional <= set(header)


def test_a_render_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RenderError("headline", "too long")))
    assert (error.layer, error.reason, error.retryable) == ("headline", "too long", False)


def test_the_documented_example_is_a_design() -> None:
    page = next(parent for parent in Path(__file__).parents if (parent / "docs").is_dir()) / "docs/reference/design.md"
    example = page.read_text("utf-8").partition("```json\n")[2].partition("```")[0]
    design = parse_design(example.encode())
    assert design.fields() == ["headline", "price", "accent", "cta"]
    row = {"headline": "Everything must bloom", "price": "49", "cta": "Shop now"}
    for size in design.sizes:
        result = layout(design, *size, row, bundled_asset)
        assert {text.layer for text in result.texts()} == {"headline", "price", "cta"}
        assert result.overlapping_texts() == result.clipped() == []


def test_the_documented_filters_are_all_there_are() -> None:
    page = next(parent for parent in Path(__file__).parents if (parent / "docs").is_dir()) / "docs/reference/design.md"
    table = page.read_text("utf-8").partition("| filter | result |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.count("|") > 2]
    documented = {name for cell in cells for name in re.findall(r"`([a-z]+)", cell)}
    assert documented == set(FILTERS)
