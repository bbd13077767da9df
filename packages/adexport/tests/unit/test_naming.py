"""Names: safe everywhere whatever the values, unique, the same every time; bad patterns are refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adexport.naming import DEFAULT_PATTERN, MAX_NAME_BYTES, NamingError, check_path, name_files, parse_pattern, safe
from adexport.planning import Cell


def cells(*wanted: dict) -> list[Cell]:
    standard = {"key": "k", "row": 0, "width": 300, "height": 250, "format": "jpeg"}
    return [Cell(index=index, **{**standard, **values}) for index, values in enumerate(wanted)]


def named(pattern: str, *wanted: dict, rows=({"sku": "A 1"},), design="spring", **options) -> list[str]:
    return name_files(parse_pattern(pattern), cells(*wanted), design, rows, **options)


def test_the_default_sorts_by_network_and_row():
    rows = [{}] * 12
    names = named(DEFAULT_PATTERN, {"network": "meta"}, {"row": 11, "format": "png"}, rows=rows)
    assert names == ["meta/spring_300x250_01.jpg", "spring_300x250_12.png"]


def test_every_token_has_its_value():
    pattern = "{design}-{width}-{height}-{size}-{row}-{format}-{network}-{placement}-{field:sku}.{ext}"
    names = named(pattern, {"network": "iab", "placement": "billboard", "format": "webp"})
    assert names == ["spring-300-250-300x250-1-webp-iab-billboard-A-1.webp"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/abs/olute", "abs-olute"),
        ("C:\\x", "C-x"),
        ("%2e%2e%2fx", "2e-2e-2fx"),
        ("a\r\nSet-Cookie: b", "a-Set-Cookie-b"),
        ("．．／ｘ", "x"),
        ("50 % off", "50-off"),
        ("Größe 42", "Größe-42"),
        ("हिन्दी", "हिन्दी"),
        ("مرحبا بك", "مرحبا-بك"),
        ("夏のセール", "夏のセール"),
        ("🎉", ""),
        ("x" * 500, "x" * 80),
    ],
)
def test_values_are_made_safe(value, expected):
    assert safe(value) == expected


def test_hostile_values_cannot_leave_their_folder():
    names = named("out/{field:sku}/{field:sku}.{ext}", {}, rows=[{"sku": "../.."}])
    assert names == ["out/1.jpg"]


@pytest.mark.parametrize("device", ["con", "NUL", "com1", "LPT9", "com¹"])
def test_names_of_windows_devices_are_not_used(device):
    (name,) = named("{field:sku}.{ext}", {}, rows=[{"sku": device}])
    assert name.startswith("_")
    check_path(name)


def test_long_names_are_cut_to_255_bytes_and_stay_apart():
    pattern = "{field:a}{field:b}{field:c}.{ext}"
    long = {"a": "夏" * 80, "b": "夏" * 80}
    names = named(pattern, {}, {"row": 1}, rows=[{**long, "c": "x"}, {**long, "c": "y"}])
    assert names[0] != names[1]
    assert all(len(name.encode()) <= MAX_NAME_BYTES and name.endswith(".jpg") for name in names)


def test_repeated_names_are_numbered_without_running_into_others():
    rows = [{"sku": "a"}, {"sku": "A"}, {"sku": "a-2"}, {"sku": "a"}]
    names = named("{field:sku}.{ext}", *({"row": row} for row in range(4)), rows=rows)
    assert names == ["a.jpg", "A-3.jpg", "a-2.jpg", "a-4.jpg"]


def test_repeated_names_can_be_an_error_that_names_the_rows():
    with pytest.raises(NamingError, match=r"Rows 1 and 2 would both be named 'a\.jpg'"):
        named("{field:sku}.{ext}", {}, {"row": 1}, rows=[{"sku": "a"}, {"sku": "a"}], on_collision="error")


def test_twenty_thousand_equal_names_are_numbered_at_once():
    names = named("x.{ext}", *[{}] * 20_000)
    assert len(set(names)) == 20_000
    assert names[-1] == "x-20000.jpg"


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{design}", "does not end"),
        ("{nope}.{ext}", "'{nope}', which is unknown"),
        ("{field:}.{ext}", "unknown"),
        ("{row.__class__}.{ext}", "unknown"),
        ("../{row}.{ext}", "folders"),
        ("a/../{row}.{ext}", "folders"),
        ("/abs/{row}.{ext}", "folders"),
        ("a//{row}.{ext}", "folders"),
        ("a/b/c/d/e/{row}.{ext}", "at most 4"),
        ("a\\{row}.{ext}", "outside of tokens"),
        ("50%{row}.{ext}", "outside of tokens"),
        ("a\r\n{row}.{ext}", "outside of tokens"),
        ("{row{.{ext}", "outside of tokens"),
        ("x" * 300 + ".{ext}", "above 200"),
    ],
)
def test_bad_patterns_are_refused(pattern, words):
    with pytest.raises(NamingError, match=words):
        parse_pattern(pattern)


def test_a_field_that_the_feed_lacks_is_named():
    with pytest.raises(NamingError, match=r"'color', which the feed does not have\. Found: sku"):
        named("{field:color}.{ext}", {})


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/../b", "./a", "a\\b", "C:a", "a%2fb", "a\nb", "a.", "con", "aux.png", "a/" + "x" * 256, "\ud800"],
)
def test_unsafe_paths_are_refused(path):
    with pytest.raises(NamingError, match="cannot be used"):
        check_path(path)


pieces = st.sampled_from(
    ["{design}", "{row}", "{field:sku}", "{network}", "{placement}", "/", "-", " ", ".", "con", "x"]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(pieces, max_size=8).map("".join),
    st.lists(st.text(max_size=120), min_size=1, max_size=6),
    st.text(max_size=20),
)
def test_whatever_the_values_names_are_safe_unique_and_repeatable(text, values, design):
    try:
        pattern = parse_pattern(text + ".{ext}")
    except NamingError:
        return
    rows = [{"sku": value} for value in values]
    wanted = cells(*({"row": row, "network": values[0], "placement": values[-1]} for row in range(len(rows))))
    names = name_files(pattern, wanted, design, rows)
    for name in names:
        check_path(name)
        assert name.endswith(".jpg")
    assert len({name.casefold() for name in names}) == len(names)
    assert names == name_files(pattern, wanted, design, rows)
