"""Under the byte limit: the best version of a picture that still fits, or the smallest one and a plain no."""

from collections.abc import Callable, Sequence
from math import ceil, log
from typing import Final, Literal

import msgspec
from PIL import Image

from adexport.rendering.encoding import (
    WHITE,
    Colour,
    EncodeError,
    FormatName,
    Pixels,
    check_quality,
    jpeg_bytes,
    png_bytes,
    to_image,
    to_palette,
    webp_bytes,
)

JPEG_FLOOR: Final = 40
"""The lowest JPEG quality fitting goes to. Below it blocks show around text, and an ad is better made simpler."""
WEBP_FLOOR: Final = 40
"""The lowest WebP quality fitting goes to."""
PNG_FLOOR: Final = 16
"""The fewest colours an opaque PNG is reduced to."""
PNG_ALPHA_FLOOR: Final = 64
"""The fewest colours of a transparent PNG: with fewer, Pillow's alpha-aware palette loses whole hues (11 dB seen)."""
JPEG_STEP: Final = 2
"""Quality points between two steps of the JPEG ladder."""
WEBP_STEP: Final = 4
"""Quality points between two steps of the WebP ladder: a WebP costs eight times a JPEG, so the ladder is coarser."""
SHRINK: Final[dict[FormatName, float]] = {"jpeg": 0.075, "webp": 0.045}
"""About how much smaller (natural logarithm) a rung's file is than the one before it. Measured on the sample designs.

It only says where to look first: a photograph comes under its limit in 3 to 4 encodes instead of bisection's 6."""
_GUESSES: Final = 2
PNG_COLOURS: Final = (256, 192, 128, 96, 64, 48, 32, 24, 16)
"""Palette sizes under a lossless PNG."""

Verdict = Literal["ok", "cannot_fit"]


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of fitting one picture in one format.

    `data` is the file: the best one within the limit when `fits`, else the smallest one reached, so that
    `len(data)` is the size to report. `quality` is set for JPEG and WebP, `colours` for a PNG with a palette.
    `encodes` counts how many files were tried.
    """

    data: bytes
    format: FormatName
    fits: bool
    encodes: int
    quality: int | None = None
    colours: int | None = None

    @property
    def verdict(self) -> Verdict:
        """`ok`, or `cannot_fit` when even the floor is above the limit."""
        return "ok" if self.fits else "cannot_fit"


class _Step(msgspec.Struct, frozen=True):
    """One rung of a ladder: how to encode, from the best looking to the floor."""

    quality: int | None = None
    tight: bool = False
    colours: int | None = None
    dither: bool = False


def fit(
    pixels: Pixels,
    format: FormatName,
    max_bytes: int | None,
    quality: int | None = None,
    *,
    matte: Colour = WHITE,
) -> Fitted:
    """Encode at the best step of the format's ladder that is no larger than `max_bytes` (None: no limit).

    The ladders: JPEG from `quality` (90 unless given), quickly coded, then tightly coded from there down to 40, with
    full chroma down to 75; WebP from `quality` (80) down to 40; PNG lossless, then 256 colours with dithering, then 256
    to 16 without. A `quality` under the floor is taken as asked, and nothing below it. Between the last step seen too
    large and the first seen to fit the ladder is narrowed down to none, so a larger limit never gives a worse step.
    Raises EncodeError for settings that make no sense.
    """
    if max_bytes is not None and max_bytes < 1:
        raise EncodeError(f"A limit of {max_bytes} bytes cannot be met. Give at least 1 byte, or leave the limit out.")
    first = check_quality(format, quality)
    image = to_image(pixels, matte if format == "jpeg" else None)
    ladder = _ladder(format, first, image)
    tried: dict[int, bytes] = {}

    def encoded(rung: int) -> bytes:
        if rung not in tried:
            tried[rung] = _encode(image, format, ladder[rung])
        return tried[rung]

    rung = 0 if max_bytes is None else _best_rung(len(ladder), lambda n: len(encoded(n)), max_bytes, SHRINK.get(format))
    chosen = rung if rung is not None else min(tried, key=lambda n: len(tried[n]))
    return Fitted(
        data=encoded(chosen),
        format=format,
        fits=rung is not None,
        encodes=len(tried),
        quality=ladder[chosen].quality,
        colours=ladder[chosen].colours,
    )


def _ladder(format: FormatName, quality: int, image: Image.Image) -> Sequence[_Step]:
    if format == "jpeg":
        return [_Step(quality=quality), *(_Step(quality=q, tight=True) for q in _down(quality, JPEG_FLOOR, JPEG_STEP))]
    if format == "webp":
        return [_Step(quality=q) for q in _down(quality, WEBP_FLOOR, WEBP_STEP)]
    floor = PNG_ALPHA_FLOOR if image.mode == "RGBA" else PNG_FLOOR
    dithered = [] if image.mode == "RGBA" else [_Step(colours=PNG_COLOURS[0], dither=True)]
    return [_Step(), *dithered, *(_Step(colours=n) for n in PNG_COLOURS if n >= floor)]


def _down(start: int, floor: int, step: int) -> list[int]:
    """`start`, then every `step` points down to `floor` itself."""
    return [start, *(q for q in range(start - step, floor, -step)), *([floor] if start > floor else [])]


def _best_rung(count: int, size: Callable[[int], int], limit: int, shrink: float | None) -> int | None:
    """The first rung whose file fits; None when not even the last one's does.

    The top is asked first because most pictures fit at once; then, where it is known by what share files `shrink`, the
    rungs that that leads to; then the middle of what is left.
    """
    low, high, asked = 0, count, 0
    for turn in range(count + 1):
        there = size(asked)
        if there <= limit:
            high = asked
        else:
            low = asked + 1
        if low == high:
            break
        asked = (low + high) // 2 if shrink is None or turn >= _GUESSES else asked + ceil(log(there / limit) / shrink)
        asked = min(max(asked, low), high - 1)
    return low if low < count else None


def _encode(image: Image.Image, format: FormatName, step: _Step) -> bytes:
    if step.quality is not None:
        jpeg = format == "jpeg"
        return jpeg_bytes(image, step.quality, tight=step.tight) if jpeg else webp_bytes(image, step.quality)
    if step.colours is None:
        return png_bytes(image)
    return png_bytes(to_palette(image, step.colours, dither=step.dither))
