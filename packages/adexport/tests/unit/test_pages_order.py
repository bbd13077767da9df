"""The order form: what is read from an address and a form, and what is refused in its own words."""

import pytest
from starlette.datastructures import QueryParams

from adexport.requests import RequestError
from adexport.web.order import FIRST_FORMATS, FIRST_SIZES, Order, read_order, request_of


def order(**changes: object) -> Order:
    return Order(**{"design": "summer", "networks": ["iab"], "sizes": ["300x250"], "formats": ["jpeg"], **changes})


def test_an_address_that_says_nothing_gets_the_first_choices() -> None:
    read = read_order(QueryParams("design=summer"), "other", whole=False)
    assert (read.design, read.networks) == ("summer", ["google-ads"])
    assert (read.sizes, read.formats) == (FIRST_SIZES, FIRST_FORMATS)
    assert read_order(QueryParams(""), "other", whole=False).design == "other"


def test_an_address_says_the_whole_form() -> None:
    address = "networks=meta&networks=iab&sizes=1x1&formats=png&feed=ab&field.name=N&title=T&naming={row}&max_kb=40"
    read = read_order(QueryParams(address), "d", whole=False)
    assert (read.networks, read.sizes, read.formats) == (["meta", "iab"], ["1x1"], ["png"])
    assert (read.source, read.feed, read.fields) == ("feed", "ab", {"name": "N"})
    assert (read.title, read.naming, read.max_kb) == ("T", "{row}", "40")


def test_a_form_without_ticks_stays_without() -> None:
    assert read_order(QueryParams(""), "d").formats == []


def test_an_order_becomes_a_request() -> None:
    typed = order(more_sizes="640×360, 480x320", max_kb="149,5", title="T", source="typed", fields={"a": "b"})
    request = request_of(typed)
    assert list(request.sizes) == ["300x250", "640x360", "480x320"]
    assert (request.max_bytes, request.title, request.naming) == (149_500, "T", None)
    assert [dict(row) for row in request.rows or ()] == [{"a": "b"}]
    assert request.feed is None


@pytest.mark.parametrize(("changes", "said"), [
    ({"formats": []}, "No format is chosen"),
    ({"source": "feed"}, "No CSV file is chosen"),
    ({"more_sizes": "640*360"}, "'640*360' is not a size"),
    ({"more_sizes": "0x5"}, "'0x5' is not a size"),
    ({"max_kb": "much"}, "'much' is not a limit"),
    ({"max_kb": "0"}, "'0' is not a limit"),
    ({"max_kb": "nan"}, "'nan' is not a limit"),
    ({"formats": ["bmp"]}, "bmp"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused_in_the_words_of_the_form(changes: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError, match=said.replace("*", r"\*")):
        request_of(order(**changes))


def test_no_size_ticked_is_no_file_rather_than_every_size_of_the_networks():
    with pytest.raises(RequestError, match="No size is chosen"):
        request_of(order(sizes=[]))
    assert list(request_of(order(sizes=[], more_sizes="640x360")).sizes) == ["640x360"]
