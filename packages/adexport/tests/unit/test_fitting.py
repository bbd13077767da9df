"""Fitting: within the limit whenever it says so, the best step that fits, few encodes, a plain no at the floor."""

from io import BytesIO

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adexport.rendering.encoding import EncodeError, encode, jpeg_bytes, png_bytes, to_image, to_palette, webp_bytes
from adexport.rendering.fitting import JPEG_FLOOR, PNG_ALPHA_FLOOR, PNG_FLOOR, WEBP_FLOOR, fit


class Picture(msgspec.Struct):
    """Pixels as the renderer gives them."""

    width: int
    height: int
    rgba: bytes
    opaque: bool


def photo(width: int, height: int, alpha: bool = False) -> Picture:
    random = np.random.default_rng(7)
    coarse = random.integers(0, 255, (max(height // 40, 2), max(width // 40, 2), 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    pixels = (soft + random.normal(0, 6, soft.shape)).clip(0, 255).astype(np.uint8)
    opacity = np.full((height, width), 255, np.uint8)
    if alpha:
        opacity[:, : width // 3] = np.linspace(0, 255, width // 3, dtype=np.uint8)
    return Picture(width, height, np.dstack([pixels, opacity]).tobytes(), opaque=not alpha)


SMALL = photo(160, 120)
CLEAR = photo(160, 120, alpha=True)


def rank(fitted) -> tuple[int, int]:
    """How good the step is, comparable within one format."""
    if fitted.quality is not None:
        return (fitted.quality, 0)
    return (fitted.colours or 257, 0)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["png", "jpeg", "webp"]),
    picture=st.sampled_from([SMALL, CLEAR]),
    limits=st.tuples(st.integers(500, 70_000), st.integers(500, 70_000)),
)
def test_a_fit_obeys_its_limit_and_a_larger_limit_is_never_worse(name, picture, limits):
    low, high = sorted(limits)
    tight, loose = fit(picture, name, low), fit(picture, name, high)
    for fitted, limit in ((tight, low), (loose, high)):
        assert fitted.fits == (len(fitted.data) <= limit)
        assert fitted.verdict == ("ok" if fitted.fits else "cannot_fit")
        assert Image.open(BytesIO(fitted.data)).format.lower() == name
    assert loose.fits >= tight.fits
    if tight.fits:
        assert rank(loose) >= rank(tight)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_without_pressure_the_first_step_is_taken_in_one_encode(name):
    for limit in (None, 10_000_000):
        fitted = fit(SMALL, name, limit)
        assert (fitted.data, fitted.encodes, fitted.fits) == (encode(SMALL, name), 1, True)


@pytest.mark.parametrize(("name", "floor"), [("jpeg", JPEG_FLOOR), ("webp", WEBP_FLOOR)])
def test_the_floor_itself_is_reached_and_not_passed(name, floor):
    image = to_image(SMALL)
    smallest = len(jpeg_bytes(image, floor, tight=True) if name == "jpeg" else webp_bytes(image, floor))
    assert fit(SMALL, name, smallest).quality == floor
    beyond = fit(SMALL, name, smallest - 1)
    assert (beyond.fits, beyond.quality, len(beyond.data)) == (False, floor, smallest)


def test_png_goes_from_lossless_over_palettes_to_its_floor():
    lossless = len(encode(SMALL, "png"))
    first = fit(SMALL, "png", lossless - 1)
    assert (first.fits, first.colours) == (True, 256)
    assert fit(SMALL, "png", lossless).colours is None
    floor = len(png_bytes(to_palette(to_image(SMALL), PNG_FLOOR, dither=False)))
    assert len(fit(SMALL, "png", 1).data) <= floor, "the floor was not tried, or was not the smallest and was kept"
    assert fit(CLEAR, "png", 1).colours == PNG_ALPHA_FLOOR


def test_a_transparent_png_stays_transparent_under_pressure():
    fitted = fit(CLEAR, "png", 12_000)
    assert fitted.fits
    assert Image.open(BytesIO(fitted.data)).convert("RGBA").getpixel((0, 60))[3] < 40


def test_jpeg_takes_the_best_step_of_its_ladder():
    limit = 6_000
    ladder = [90, *range(88, 40, -2), 40]
    image = to_image(SMALL)
    best = next(quality for quality in ladder if len(jpeg_bytes(image, quality, tight=True)) <= limit)
    assert fit(SMALL, "jpeg", limit).quality == best


def test_bytes_are_saved_by_coding_tightly_before_quality_is_given_up():
    quick, tight = encode(SMALL, "jpeg"), jpeg_bytes(to_image(SMALL), 90, tight=True)
    assert len(tight) < 0.99 * len(quick)
    assert np.array_equal(Image.open(BytesIO(quick)), Image.open(BytesIO(tight)))
    fitted = fit(SMALL, "jpeg", len(quick) - 1)
    assert (fitted.data, fitted.quality) == (tight, 90)


@pytest.mark.parametrize(("name", "most"), [("jpeg", 8), ("webp", 6), ("png", 5)])
def test_few_encodes_whatever_the_limit(name, most):
    assert max(fit(SMALL, name, limit).encodes for limit in range(1, 70_000, 3_500)) <= most


def test_a_photograph_a_little_too_large_takes_few_encodes():
    whole = len(encode(SMALL, "jpeg"))
    counts = [fit(SMALL, "jpeg", whole * share // 100).encodes for share in range(60, 100, 2)]
    assert sum(counts) / len(counts) <= 4.5


def test_a_quality_asked_for_is_where_the_ladder_starts():
    assert fit(SMALL, "jpeg", None, 60).quality == 60
    assert fit(SMALL, "jpeg", 1, 30).quality == 30
    assert fit(SMALL, "jpeg", len(encode(SMALL, "jpeg", quality=50)), 60).quality <= 60


def test_a_limit_below_one_byte_is_refused():
    with pytest.raises(EncodeError, match="at least 1 byte"):
        fit(SMALL, "jpeg", 0)
