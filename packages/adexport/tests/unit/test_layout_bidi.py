"""The bidi algorithm against cases of Unicode's own conformance file, and the order in which a line is drawn."""

from pathlib import Path

import pytest

from adexport.rendering.bidi import levels, visual_order

_CASES = [
    line
    for line in (Path(__file__).parent / "data" / "bidi_character_sample.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]


def test_the_conformance_cases_are_all_there() -> None:
    assert len(_CASES) > 1300


def test_levels_and_order_match_the_conformance_cases() -> None:
    wrong = [case for case in _CASES if not _agrees(case)]
    assert wrong == []


def _agrees(case: str) -> bool:
    codes, direction, base, expected, order = case.split(";")
    text = "".join(chr(int(code, 16)) for code in codes.split())
    got_base, got = levels(text, None if direction == "2" else int(direction))
    kept = [at for at, level in enumerate(expected.split()) if level != "x"]  # x: removed by rule X9
    wanted = [int(level) for level in expected.split() if level != "x"]
    drawn = [kept[at] for at in visual_order([got[at] for at in kept])]
    return got_base == int(base) and [got[at] for at in kept] == wanted and drawn == [int(at) for at in order.split()]


@pytest.mark.parametrize(
    ("text", "base"), [("abc", 0), ("שלום abc", 1), ("123 مرحبا", 1), ("", 0), ("12:30", 0), ("🙂 עברית", 1)]
)
def test_the_first_strong_character_decides_the_direction(text: str, base: int) -> None:
    assert levels(text)[0] == base


def test_numbers_stay_left_to_right_inside_hebrew() -> None:
    text = "אב 12 גד"
    order = visual_order(levels(text)[1])
    assert "".join(text[at] for at in order) == "דג 12 בא"
