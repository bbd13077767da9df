"""What a wrong request is told: in words that say what to write, never as a pattern."""

import pytest

from adexport.requests import ExportRequest, RequestError, convert


@pytest.mark.parametrize(
    ("wrong", "where", "said"),
    [
        ({"feed": "feed id"}, "$.feed", "Give the 64 hexadecimal digits"),
        ({"sizes": ["300x250", "300"]}, "$.sizes[1]", "such as 300x250"),
        ({"sizes": ["99999x9"]}, "$.sizes[0]", "'99999x9' is not width x height in pixels, each from 1 to 4096"),
        ({"formats": ["gif"]}, "$.formats[0]", "no format 'gif'. Use png, jpeg, webp."),
        ({"quality": 200}, "$.quality", "<= 100"),
    ],
)
def test_a_wrong_member_is_named_with_what_to_write(wrong, where, said):
    with pytest.raises(RequestError) as caught:
        convert({"design": "plain"} | wrong, ExportRequest)
    assert caught.value.where == where
    assert said in str(caught.value)
    assert "regex" not in str(caught.value)
