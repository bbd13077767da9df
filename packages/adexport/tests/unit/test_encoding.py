"""Encoding: the right kind of file, the same bytes every time, transparency kept or flattened as told."""

import hashlib
import subprocess
import sys
from io import BytesIO

import msgspec
import numpy as np
import pytest
from PIL import Image

from adexport.rendering.encoding import FORMATS, EncodeError, encode, to_palette


class Picture(msgspec.Struct):
    """Pixels as the renderer gives them."""

    width: int
    height: int
    rgba: bytes
    opaque: bool


def photo(width: int, height: int, seed: int = 1, noise: float = 6) -> Picture:
    """A photo-like picture: soft colours, grain and hard-edged bars where text would stand."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (max(height // 40, 2), max(width // 40, 2), 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    pixels = (soft + random.normal(0, noise, soft.shape)).clip(0, 255).astype(np.uint8)
    pixels[height // 4 : height // 3, width // 8 : width // 2] = 255
    rgba = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    return Picture(width, height, rgba.tobytes(), opaque=True)


def badge(width: int, height: int, alpha: int) -> Picture:
    """A red field with the given alpha on its left half, solid on its right."""
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[:] = (255, 0, 0, 255)
    rgba[:, : width // 2, 3] = alpha
    return Picture(width, height, rgba.tobytes(), opaque=alpha == 255)


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("name", FORMATS)
def test_writes_the_format_and_size_asked_for(name):
    image = opened(encode(photo(120, 60), name))
    assert (image.format.lower(), image.size) == (name, (120, 60))


def test_png_is_lossless():
    picture = photo(80, 40)
    assert opened(encode(picture, "png")).convert("RGBA").tobytes() == picture.rgba


@pytest.mark.parametrize(("name", "worst"), [("jpeg", 30), ("webp", 27)])
def test_lossy_formats_stay_close_to_the_pixels(name, worst):
    picture = photo(200, 100, noise=2)
    original = np.frombuffer(picture.rgba, np.uint8).reshape(100, 200, 4)[..., :3].astype(float)
    error = np.asarray(opened(encode(picture, name)).convert("RGB"), dtype=float) - original
    assert 10 * np.log10(255**2 / (error**2).mean()) > worst


@pytest.mark.parametrize("name", ["png", "webp"])
def test_transparency_is_kept(name):
    image = opened(encode(badge(40, 20, 0), name)).convert("RGBA")
    assert (image.getpixel((5, 5))[3], image.getpixel((35, 5))[3]) == (0, 255)


def test_jpeg_is_flattened_on_the_matte():
    picture = badge(64, 32, 128)
    red, green, blue = opened(encode(picture, "jpeg")).getpixel((10, 10))
    assert red > 245
    assert 115 < green < 140
    assert 115 < blue < 140
    dark = opened(encode(picture, "jpeg", matte=(0, 0, 0))).getpixel((10, 10))
    assert 115 < dark[0] < 140
    assert max(dark[1:]) < 15


def test_chroma_is_full_from_quality_75_and_halved_below():
    picture = photo(64, 64)
    factors = [opened(encode(picture, "jpeg", quality=quality)).layer[0][1:3] for quality in (75, 74)]
    assert factors == [(1, 1), (2, 2)]


def test_the_same_pixels_give_the_same_bytes_in_another_process():
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); from test_encoding import *;"
        "print(*[hashlib.sha256(encode(photo(90, 70), f)).hexdigest() for f in FORMATS])"
    )
    folder = __file__.rpartition("/")[0]
    other = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [hashlib.sha256(encode(photo(90, 70), name)).hexdigest() for name in FORMATS]


def test_a_palette_has_no_more_colours_than_asked():
    image = Image.frombytes("RGBA", (120, 60), photo(120, 60).rgba)
    for mode in ("RGB", "RGBA"):
        for colours in (256, 16):
            assert len(to_palette(image.convert(mode), colours, dither=True).getcolors()) <= colours


@pytest.mark.parametrize(
    ("picture", "name", "quality", "words"),
    [
        (Picture(10, 10, b"\0" * 399, opaque=True), "png", None, "it needs 400 bytes"),
        (Picture(0, 10, b"", opaque=True), "png", None, "at least one pixel"),
        (photo(8, 8), "gif", None, "Choose from: png, jpeg, webp"),
        (photo(8, 8), "png", 80, "lossless"),
        (photo(8, 8), "jpeg", 0, "between 1 and 100"),
        (photo(8, 8), "webp", 101, "between 1 and 100"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_way_on(picture, name, quality, words):
    with pytest.raises(EncodeError, match=words):
        encode(picture, name, quality=quality)
