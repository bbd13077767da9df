"""Hostile JSON of a mebibyte costs time in proportion to its size, not to its square."""

import time
from collections.abc import Callable

import pytest

from tidings import StrictJSONError, parse_json


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b'["' + b'\\"' * (n // 2),
        lambda n: b"[" + b"0," * (n // 2 - 1) + b"x",
        lambda n: b"[" * 65 + b'"\\"' * (n // 3 - 30),
        lambda n: b"0." + b"1" * (n - 3) + b"x",
        lambda n: b'["' + b"\\ud83d\\ude00" * (n // 12 - 1) + b'\\ud83d"]',
        lambda n: b"{" + b",".join(b'"%07d":0' % i for i in range(n // 12 - 1)) + b',"0000000":0}',
        lambda n: b"[" + b"\n" * (n - 3) + b"x",
    ],
)
def test_hostile_size_costs_linear_time(make: Callable[[int], bytes]) -> None:
    def seconds(document: bytes) -> float:
        start = time.process_time()
        with pytest.raises(StrictJSONError):
            parse_json(document)
        return time.process_time() - start

    small, large = (min(seconds(make(size)) for _ in range(3)) for size in (65_536, 1_048_576))
    # 16 times the size: linear is 16, quadratic 256. The floor keeps timer noise out of tiny times.
    assert large < max(small, 0.002) * 80
