"""Lengths of a design: `12`, `"12px"`, `"50%"`, `"8vmin"`, and sums such as `"100% - 2vmin"`."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

_TERM = re.compile(r"\s*([+-]?)\s*(\d+(?:\.\d+)?)\s*(px|%|vmin|vmax|vw|vh)?\s*")
_ALLOWED = "use a number of pixels or a sum of terms in px, %, vmin, vmax, vw, vh, such as '50% - 2vmin'"


@dataclass(frozen=True, slots=True)
class Canvas:
    """The drawn area in CSS pixels; the viewport that vw, vh, vmin and vmax refer to."""

    width: float
    height: float
    units: dict[str, float] = field(init=False, repr=False, compare=False)
    """Pixels of each unit that refers to the canvas."""
    sums: dict["Length", tuple[float, float]] = field(init=False, repr=False, compare=False, default_factory=dict)
    """Lengths that were asked for: their pixels, and pixels for each of the parent's. A layout asks a hundred times."""

    def __post_init__(self) -> None:
        """Work the units out."""
        shorter, longer = min(self.width, self.height) / 100, max(self.width, self.height) / 100
        units = {"px": 1.0, "vmin": shorter, "vmax": longer, "vw": self.width / 100, "vh": self.height / 100}
        object.__setattr__(self, "units", units)

    @property
    def vmin(self) -> float:
        """One hundredth of the shorter side, in pixels."""
        return self.units["vmin"]


class Length:
    """A sum of (amount, unit) terms; resolved against a parent's extent and the canvas.

    A plain class, because msgspec would decode a dataclass from a JSON object.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: tuple[tuple[float, str], ...] = ()) -> None:
        """Keep the terms; none is a length of zero."""
        self.terms = terms

    def pixels(self, extent: float, canvas: Canvas) -> float:
        """Resolve to pixels. `extent` is the parent's width or height in pixels, what `%` refers to."""
        if not self.terms:
            return 0.0
        known = canvas.sums.get(self)
        if known is None:
            fixed = sum(amount * canvas.units[unit] for amount, unit in self.terms if unit != "%")
            share = sum(amount / 100 for amount, unit in self.terms if unit == "%")
            known = canvas.sums[self] = (fixed, share)
        return known[0] + known[1] * extent


def parse_length(value: object) -> Length:
    """Read a length. Raises ValueError that names the value and what is allowed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Length(((float(value), "px"),))
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a length; {_ALLOWED}")
    return _parse_text(value)


@lru_cache(maxsize=2048)
def _parse_text(text: str) -> Length:
    terms: list[tuple[float, str]] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or (terms and not match[1]):
            raise ValueError(f"{text!r} is not a length; {_ALLOWED}")
        terms.append((float(match[1] + match[2]), match[3] or "px"))
        position = match.end()
    if not terms:
        raise ValueError(f"an empty text is not a length; {_ALLOWED}")
    return Length(tuple(terms))
