"""Lays out the bars of the chart of exports per day, in the units of its SVG view box."""

from collections.abc import Sequence

import msgspec

from adexport.figures import Day

WIDTH = 420
HEIGHT = 96
GAP = 4
# A day without exports still shows where it stands.
LEAST = 2.0


class Bar(msgspec.Struct, frozen=True):
    """One day as a rectangle, with the figures it stands for."""

    x: float
    y: float
    width: float
    height: float
    day: str
    exports: int
    files: int


class Bars(msgspec.Struct, frozen=True):
    """A bar chart and the size of its view box."""

    width: int
    height: int
    items: list[Bar]


def bars(days: Sequence[Day]) -> Bars:
    """Lay out one bar for each day, as high as its share of the busiest day."""
    most = max((day.exports for day in days), default=0) or 1
    step = (WIDTH + GAP) / max(len(days), 1)
    items = []
    for number, day in enumerate(days):
        height = round(max(HEIGHT * day.exports / most, LEAST), 1)
        left, width = round(number * step, 1), round(step - GAP, 1)
        items.append(Bar(left, HEIGHT - height, width, height, day.day, day.exports, day.files))
    return Bars(WIDTH, HEIGHT, items)
