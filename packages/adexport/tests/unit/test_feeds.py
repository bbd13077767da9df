"""Feeds: every common dialect is read, everything else is refused with its line, nothing is evaluated."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adexport.feeds import MAX_BYTES, MAX_CELL, MAX_COLUMNS, MAX_ROWS, FeedError, check_fields, parse_feed

PLAIN = "sku,name\n1,Shoe\n2,Boot\n"
ROWS = ({"sku": "1", "name": "Shoe"}, {"sku": "2", "name": "Boot"})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_dialects_of_spreadsheets_give_the_same_rows(delimiter, newline, encoding):
    text = PLAIN.replace(",", delimiter).replace("\n", newline)
    feed = parse_feed(text.encode(encoding))
    assert (feed.columns, feed.rows, feed.lines) == (("sku", "name"), ROWS, (2, 3))
    assert (feed.delimiter, feed.encoding) == (delimiter, encoding)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Crème brûlée à la française, goûtée à l'été"),
        ("cp1252", "Café"),
        ("cp1252", "10 €"),
        ("cp1250", "Žluťoučký kůň úpěl ďábelské ódy"),
        ("cp1251", "Привет мир, скидка на обувь"),
        ("cp1253", "Καλοκαιρινές προσφορές"),
        ("cp1256", "عرض خاص لفصل الصيف"),
        ("cp932", "夏のセール開催中、春の新作コレクション"),
        ("gb18030", "夏季大促销新品上市优惠"),
        ("cp949", "여름 세일 시작 신상품 출시"),
    ],
)
def test_older_encodings_are_detected(encoding, text):
    feed = parse_feed(f'name\n"{text}"\n'.encode(encoding))
    assert feed.rows == ({"name": text},)


def test_a_wrong_guess_can_be_overruled():
    text = "name\nמבצע קיץ גדול\n"
    assert parse_feed(text.encode("cp1255"), encoding="cp1255").rows == ({"name": "מבצע קיץ גדול"},)
    for encoding in ("rot13", "unicode_escape", "no-such"):
        with pytest.raises(FeedError, match="is not known"):
            parse_feed(b"a\nb\n", encoding=encoding)
    with pytest.raises(FeedError, match="Line 2"):
        parse_feed("a\né\n".encode("cp1252"), encoding="utf-8")


def test_tsv_is_told_by_its_name():
    feed = parse_feed(b"a,b\n1,5\n", "feed.TSV")
    assert feed.rows == ({"a,b": "1,5"},)


def test_quoted_cells_keep_delimiters_quotes_and_line_breaks():
    feed = parse_feed(b'a,b\n"1,2","say ""hi""\r\nthere"\n3,4\n')
    assert feed.rows == ({"a": "1,2", "b": 'say "hi"\nthere'}, {"a": "3", "b": "4"})
    assert feed.lines == (2, 4)


def test_formulas_stay_text():
    feed = parse_feed(b"name,price\n=1+1,@SUM(A1)\n")
    assert feed.rows == ({"name": "=1+1", "price": "@SUM(A1)"},)


def test_lines_without_text_and_empty_columns_at_the_end_are_left_out():
    feed = parse_feed(b"a,b,\n\n1,2,\n,,\n3,4\n")
    assert feed.rows == ({"a": "1", "b": "2"}, {"a": "3", "b": "4"})
    assert feed.lines == (3, 5)


@pytest.mark.parametrize(
    ("data", "words", "line"),
    [
        (b"", "is empty", None),
        (b"\n \n", "is empty", None),
        (b"a,b\n", "no rows", 1),
        (b"a,,b\n1,2,3\n", "Line 1: column 2 has no name", 1),
        (b"a,b, a \n1,2,3\n", "names both column 1 and column 3", 1),
        (b"a,b\n1,2\n1,2,3\n", "Line 3: 3 cells, but the header names 2", 3),
        (b"a,b\n1\n", "Line 2: 1 cells", 2),
        (b'a,b\n1,"open\n3,4\n', "Line 2: .* Close every quote", 2),
        (b'a,b\n1,"x"y\n', "Line 2", 2),
        (b"a,b\n1,\x00\n", "Line 2: .*NUL", 2),
        ("a,b\n1,\0\n".encode("utf-16"), r"U\+0000", 2),
        (b"a,b\n1,\x1b[31m\n", r"Line 2, column 'b': control character U\+001B", 2),
        (b"a\n" + b"x" * (MAX_CELL + 1), "10,001 characters", 2),
        (b"a\n" + b"x" * 200_000, "field larger", 2),
        (b",".join(b"c%d" % n for n in range(MAX_COLUMNS + 1)) + b"\n1", "101 columns", 1),
        (b"a\n" + b"1\n" * (MAX_ROWS + 1), "more than 10,000 rows", MAX_ROWS + 2),
        (b"a\n" + b"1" * MAX_BYTES, "above 5,000,000", None),
        (b"PK\x03\x04rest", "an Excel or zip file", None),
        (b"\xff\xfea", "utf-16, but has bytes that are not", 1),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(data, words, line):
    with pytest.raises(FeedError, match=words) as caught:
        parse_feed(data, "feed.csv")
    assert caught.value.line == line
    assert not caught.value.retryable


def test_the_caps_themselves_are_allowed():
    assert len(parse_feed(b"a\n" + b"1\n" * MAX_ROWS).rows) == MAX_ROWS
    assert len(parse_feed(b"a\n" + b"x" * MAX_CELL).rows[0]["a"]) == MAX_CELL


cell = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=8), st.sampled_from([",", ";", "\t", "|"]))
def test_what_was_written_is_read_back(rows, delimiter):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows([("first", "second"), *rows])
    feed = parse_feed(out.getvalue().encode())
    assert [(row["first"], row["second"]) for row in feed.rows] == rows


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_feed_or_a_feed_error(data):
    try:
        feed = parse_feed(data)
    except FeedError:
        return
    assert feed.rows
    assert all(tuple(row) == feed.columns for row in feed.rows)


def test_fields_are_checked_against_the_feed():
    feed = parse_feed(b"sku,Name,price\n1,a,\n2,b,3\n3,c, \n")
    problems = check_fields(["sku", "name", "price", "logo", "logo"], feed)
    assert [(p.code, p.severity, p.column, p.rows) for p in problems] == [
        ("missing_column", "error", "name", ()),
        ("empty_cell", "warning", "price", (1, 3)),
        ("missing_column", "error", "logo", ()),
    ]
    assert "Rename 'Name'" in problems[0].action
    assert problems[1].message == "Column 'price' is empty in rows 1 and 3."
    assert "sku, Name, price" in problems[2].action


def test_a_long_list_of_rows_is_shortened_in_words_only():
    feed = parse_feed(b"a,b\n" + b"1,\n" * 60)
    (problem,) = check_fields(["b"], feed)
    assert problem.message.endswith("19, 20 and 40 more.")
    assert problem.rows == tuple(range(1, 61))
