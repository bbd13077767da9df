"""Rows that the renderer would refuse are named before anything is queued, and no others."""

import pytest

from adexport.designs import parse_design
from adexport.errors import RenderError
from adexport.planning import Target
from adexport.rendering import layout
from adexport.row_checks import check_rows

TARGETS = [Target(width=300, height=250), Target(width=728, height=90)]
LAYERS = [
    {"type": "text", "id": "price", "text": "{{ price | number:2 }}", "size": 20, "color": "{{ accent }}"},
    {
        "type": "group",
        "id": "offer",
        "show_if": "off",
        "layers": [{"type": "text", "id": "cut", "text": "{{ cut | percent }}", "size": 20}],
    },
]
GOOD = {"price": "49", "accent": "#123456", "off": "", "cut": "10", "ground": "#fff"}


def design(**more):
    return parse_design(
        {"version": 1, "name": "t", "title": "T", "background": "{{ ground }}", "layers": LAYERS, **more}
    )


def refuses(checked, row):
    """Whether the renderer refuses the row in one of the sizes."""
    try:
        for target in TARGETS:
            layout(checked, target.width, target.height, row, {}.__getitem__)
    except RenderError:
        return True
    return False


@pytest.mark.parametrize(
    ("changes", "layer", "column"),
    [
        ({}, "", ""),
        ({"price": "soon"}, "price", "price"),
        ({"accent": "reddish"}, "price", "accent"),
        ({"ground": "reddish"}, "background", "ground"),
        ({"price": "", "accent": "reddish"}, "", ""),  # no text, so no colour either
        ({"cut": "half"}, "", ""),  # the group is not shown
        ({"cut": "half", "off": "yes"}, "cut", "cut"),
    ],
)
def test_preflight_and_renderer_agree(changes, layer, column):
    row = GOOD | changes
    problems = check_rows(design(), TARGETS, [GOOD, row])
    assert refuses(design(), row) is bool(layer)
    assert [(problem.rows, problem.column, problem.severity) for problem in problems] == (
        [((2,), column, "error")] if layer else []
    )
    assert all(f"'{layer}' cannot be drawn for row 2" in problem.message for problem in problems)


def test_an_override_counts_only_for_its_sizes():
    patched = design(overrides=[{"when": {"sizes": ["728x90"]}, "set": {"price": {"text": "{{ price }}"}}}])
    rows = [GOOD | {"price": "soon"}]
    assert len(check_rows(patched, TARGETS[:1], rows)) == 1
    assert check_rows(patched, TARGETS[1:], rows) == []


def test_many_rows_are_counted_and_a_missing_column_is_left_to_its_own_check():
    (problem,) = check_rows(design(), TARGETS, [GOOD | {"price": "soon"}] * 50)
    assert (len(problem.rows), "and 30 more" in problem.message) == (20, True)
    assert check_rows(design(), TARGETS, [{"accent": "#fff"}]) == []


def test_one_colour_in_many_layers_is_one_problem():
    again = [{**LAYERS[0], "id": f"again-{number}"} for number in range(3)]
    (problem,) = check_rows(design(layers=again), TARGETS, [GOOD | {"accent": "reddish"}])
    assert (problem.column, problem.rows) == ("accent", (1,))
