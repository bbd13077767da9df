"""Placeholders and their filters: what they give, and what they refuse and why."""

import pytest

from adexport.designs.colours import parse_colour
from adexport.designs.filters import parse_number
from adexport.designs.lengths import Canvas, parse_length
from adexport.designs.templates import FieldValueError, parse_template


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ("{{ x }}", "a {{ y }} b", "a {{ y }} b"),  # what a row brings is never read as a template
        ("{{ x | upper }}!", "straße", "STRASSE!"),
        ("{{x|lower|capitalize}}", "HELLO WORLD", "Hello world"),
        ("{{ x | trim }}", "  a   b ", "a b"),
        ("{{ x | default:'Shop | now' }}", " ", "Shop | now"),
        ("{{ x | truncate:5 }}", "abcdefgh", "abcd…"),
        ("{{ x | truncate:5 }}", "abcde", "abcde"),
        ("{{ x | number }}", "1234567.5", "1,234,567.5"),
        ("{{ x | number:2 }}", "3", "3.00"),
        ("{{ x | number }}", "$1299.90", "$1,299.90"),
        ("{{ x | number:2 }}", "1299 €", "1,299.00 €"),
        ("{{ x | number }}", "-£ 1299", "-£ 1,299"),
        ("{{ x | number }}", "-1299", "-1,299"),
        ("{{ x | currency:'USD' }}", "1299", "$1,299"),
        ("{{ x | currency:'EUR' }}", "49,9", "€49.90"),
        ("{{ x | currency:'JPY' }}", "1980.4", "¥1,980"),
        ("{{ x | currency:'CHF' }}", "5", "CHF 5"),
        ("{{ x | currency:'USD' }}", "-3", "-$3"),
        ("{{ x | currency:'USD' }}", "", ""),
        ("{{ x | percent }}", "4.25", "4.25%"),
        ("{{ x | prefix:'from ' | suffix:' only' }}", "5", "from 5 only"),
        ("{{ x | prefix:'from ' }}", "", ""),
    ],
)
def test_filters(source: str, value: str, expected: str) -> None:
    assert parse_template(source).fill({"x": value}) == expected


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("129,00 €", "€129"),
        ("1.299,50 €", "€1,299.50"),
        ("129,00 EUR", "€129"),
        ("eur 129", "€129"),
        ("£89", "£89"),
        ("¥8900", "¥8,900"),
        ("¥19.80", "¥19.80"),  # the sign may mean yuan, which have cents
        ("JPY 1980.4", "¥1,980"),
        ("₹1,29,900", "₹129,900"),
        ("CHF 49.90", "CHF 49.90"),
        ("49.90 CHF", "CHF 49.90"),
        ("1299 kr", "1,299 kr"),
        ("kr 1299", "kr 1,299"),
        ("Rs.1299", "Rs. 1,299"),
        ("49,90 zł", "49.90 zł"),
        ("899 ₽", "899 ₽"),
        ("R$1299", "R$1,299"),
        ("-3 €", "-€3"),
        ("$-3", "-$3"),
        ("-$3", "-$3"),
        ("USD 49", "$49"),
        ("49 $", "$49"),
        ("$.99", "$0.99"),
    ],
)
def test_a_price_keeps_the_currency_that_its_cell_names(cell: str, shown: str) -> None:
    assert parse_template("{{ x | currency:'USD' }}").fill({"x": cell}) == shown


@pytest.mark.parametrize(
    "cell",
    ["free", "from 9 €", "$49 USD", "10-20 €", "129 ISK", "2 for 10 €", "5 %", "CHF 5.-", "soon", "--3", "1e400"],
)
def test_what_is_no_plain_price_is_shown_as_written(cell: str) -> None:
    assert parse_template("{{ x | currency:'USD' }}").fill({"x": cell}) == cell


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ x | shout }}", "'shout' is not a filter; known are"),
        ("{{ x | truncate }}", "takes one argument"),
        ("{{ x | upper:'a' }}", "takes no argument"),
        ("{{ x | truncate:'abc' }}", "whole number"),
        ("{{ x | truncate:'99999' }}", "at most 10000"),
        ("{{ x | number:'1e9' }}", "whole number"),
        ("{{ x | default:'open }}", "quote that is not closed"),
        ("{{ }}", "is not a field name"),
        ("{{ 1st }}", "is not a field name"),
        ("{{ a[0] }}", "is not a field name"),
        ("{{ x", "unfinished placeholder"),
        ("x }} y", "unfinished placeholder"),
        ("{% for x in y %}{{ x | pop() }}", "is not a filter"),
    ],
)
def test_bad_placeholders_are_refused(source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        parse_template(source)


def test_a_missing_field_is_named_with_the_way_out() -> None:
    with pytest.raises(FieldValueError, match="no field 'price'; add the column or use default"):
        parse_template("{{ price }}").fill({"cost": "3"})
    assert parse_template("{{ price | default:'3' }}").fill({}) == "3"


def test_a_value_that_does_not_suit_names_field_and_filter() -> None:
    with pytest.raises(FieldValueError, match="field 'price' does not suit filter 'number': 'soon' is not a number"):
        parse_template("{{ price | number:2 }}").fill({"price": "soon"})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,299.90", "1299.90"),
        ("1.299,90", "1299.90"),
        ("1 299", "1299"),
        ("$49", "49"),
        ("1,299", "1299"),
        ("12,5", "12.5"),
        ("0.125", "0.125"),
        ("1.234.567", "1234567"),
        ("٤٩", "49"),
        ("€ 1\u202f000,5", "1000.5"),
    ],
)
def test_numbers_as_people_write_them(text: str, number: str) -> None:
    assert str(parse_number(text)) == number


@pytest.mark.parametrize("text", ["", "abc", "NaN", "Infinity", "1e400", "1e15", "--3", "9" * 40])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("#fff", 0xFFFFFFFF),
        ("#12345678", 0x78123456),
        ("#123456", 0xFF123456),
        ("rgb(1, 2, 3)", 0xFF010203),
        ("rgba(255,0,0,0.5)", 0x80FF0000),
        ("transparent", 0),
        ("#f008", 0x88FF0000),
    ],
)
def test_colours(text: str, colour: int) -> None:
    assert parse_colour(text) == colour


@pytest.mark.parametrize("text", ["", "#12", "red", "rgb(300,0,0)", "url(x)", "#gggggg", "rgba(1,2,3,2)"])
def test_bad_colours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a colour"):
        parse_colour(text)


def test_lengths_add_up_in_pixels() -> None:
    canvas = Canvas(300, 200)
    assert parse_length("50% - 2vmin").pixels(120, canvas) == 56
    assert parse_length(-3).pixels(0, canvas) == -3
    assert parse_length("10vw + 10vh + 1vmax + 4").pixels(0, canvas) == 57


@pytest.mark.parametrize("value", ["", "5 em", "50%%", "2vmin 3", "1;2", True, None, [1]])
def test_bad_lengths_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a length"):
        parse_length(value)
