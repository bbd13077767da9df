"""Pixels: what is drawn where, the same bytes everywhere, and pictures that are refused before they cost anything."""

import hashlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adexport.designs import bundled_asset, load_samples, parse_design
from adexport.errors import RenderError
from adexport.rendering import ENGINE_VERSION, Layout, Raster, draw, layout, render
from adexport.rendering.images import ImageCache
from adexport.rendering.skia_loader import skia

_DIGEST = """
import csv, hashlib, io
from adexport.designs import bundled_asset, load_samples
from adexport.rendering import render
for name, sample in load_samples().items():
    rows = list(csv.DictReader(io.StringIO(sample.feed_csv.decode())))
    for size in ((300, 250), (728, 90), (160, 600)):
        for row in rows[::3]:
            raster = render(sample.design, *size, row, bundled_asset)
            print(name, size, hashlib.sha256(raster.rgba).hexdigest())
"""


def _picture(
    width: int, height: int, colour: tuple[int, ...] = (255, 0, 0), kind: str = "PNG", **options: Any
) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", (width, height), colour).save(stream, kind, **options)
    return stream.getvalue()


def _claimed_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be an enormous picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _draw(
    *layers: dict[str, Any],
    size: tuple[int, int] = (100, 80),
    assets: Mapping[str, bytes] | None = None,
    **document: Any,
) -> Raster:
    whole = {"version": 1, "name": "t", "title": "T", "background": "#ffffff", "layers": list(layers)} | document
    return render(parse_design(whole), *size, {"x": "1"}, dict(assets or {}).__getitem__)


def _pixels(raster: Raster) -> NDArray[np.uint8]:
    return np.frombuffer(raster.rgba, np.uint8).reshape(raster.height, raster.width, 4)


def _at(raster: Raster, x: int, y: int) -> tuple[int, ...]:
    return tuple(int(each) for each in _pixels(raster)[y, x])


def _shape(name: str = "s", **members: Any) -> dict[str, Any]:
    return {"type": "shape", "id": name, "fill": "#0000ff"} | members


def test_the_same_input_gives_the_same_bytes_in_every_process() -> None:
    outputs = [
        subprocess.run([sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == len(outputs[0].splitlines()) > 40


def test_a_second_draw_from_the_caches_gives_the_same_bytes() -> None:
    sample = load_samples()["travel-postcard"]
    row = {"brand": "b", "place": "p", "line": "l", "from": "f", "price": "1", "image": "asset:coast"}
    first = render(sample.design, 320, 480, row, bundled_asset)
    assert render(sample.design, 320, 480, row, bundled_asset) == first
    assert hashlib.sha256(first.rgba).digest() != hashlib.sha256(bytes(len(first.rgba))).digest()


def test_rows_share_the_figures_that_they_fill_alike() -> None:
    plate = _shape("under", fill="{{ accent }}", box={"left": 0, "width": 20})
    words = {"type": "text", "id": "t", "text": "{{ x }}", "size": 12}
    document = {
        "version": 1,
        "name": "t",
        "title": "T",
        "background": "#ffffff",
        "layers": [plate, words, _shape("lid")],
    }
    design = parse_design(document)

    def ad(accent: str, x: str) -> Layout:
        return layout(design, 100, 80, {"accent": accent, "x": x}, {}.__getitem__)

    one, two, other = ad("#ff0000", "one"), ad("#ff0000", "two"), ad("#00ff00", "one")
    assert [item.layer for item in one.items] == ["under", "t", "lid"]
    assert one.parts[0] is two.parts[0]
    assert one.parts[-1] is two.parts[-1] is other.parts[-1]
    assert _at(draw(one, {}.__getitem__), 5, 5) == _at(draw(two, {}.__getitem__), 5, 5) == (0, 0, 255, 255)
    assert one.parts[0] is not other.parts[0]
    assert other.items[0] != one.items[0]
    assert ad("#ff0000", "عربي").items[0] == one.items[0]
    turned = parse_design(document | {"lead": "x"})
    mirrored = layout(turned, 100, 80, {"accent": "#ff0000", "x": "عربي"}, {}.__getitem__)
    assert mirrored.items[0].box.x == 80


@pytest.mark.parametrize(
    "members",
    [
        {"shadow": {"dx": 6, "dy": -5, "blur": 9, "color": "#000000"}},
        {"stroke": {"width": 7, "color": "#ff0000"}},
        {"rotate": 30, "opacity": 0.5},
        {"box": {"left": -10, "width": 40, "top": 60, "height": 50}},
    ],
)
def test_kept_figures_over_a_picture_are_drawn_as_ever(members: dict[str, Any]) -> None:
    """Over a picture only the part of the canvas that they reach is kept; on the background alone it is all of it."""
    figure = _shape(box={"left": 30.3, "width": 33.3, "top": 20.6, "height": 30.3}) | members
    white = {"type": "image", "id": "i", "source": "asset:white"}
    over = _draw(white, figure, assets={"asset:white": _picture(8, 8, (255, 255, 255))})
    difference = _pixels(over).astype(int) - _pixels(_draw(figure))
    assert abs(difference).max() <= 1
    assert (_pixels(over) != 255).any()


def test_the_engine_version_names_skia() -> None:
    assert skia.__version__ in ENGINE_VERSION


def test_a_raster_is_straight_rgba_and_knows_whether_it_is_opaque() -> None:
    solid = _draw(_shape(box={"left": 50, "top": 0, "width": 50, "height": 80}))
    assert (solid.width, solid.height, len(solid.rgba), solid.opaque) == (100, 80, 32000, True)
    assert _at(solid, 10, 10) == (255, 255, 255, 255)
    assert _at(solid, 90, 10) == (0, 0, 255, 255)
    glass = _draw(_shape(fill="#ff000080", box={"left": 0, "width": 50}), background="transparent")
    assert not glass.opaque
    assert _at(glass, 10, 10) == (255, 0, 0, 128)
    assert _at(glass, 90, 10)[3] == 0


def test_a_transparent_ground_that_is_covered_is_opaque() -> None:
    assert _draw(_shape(), background="transparent").opaque


def test_rounded_corners_and_ellipses_leave_the_corners_free() -> None:
    for layer in (_shape(radius=30), _shape(shape="ellipse"), _shape(shape="star")):
        raster = _draw(layer)
        assert _at(raster, 1, 1) == (255, 255, 255, 255)
        assert _at(raster, 50, 40) == (0, 0, 255, 255)


def test_a_gradient_runs_along_its_angle() -> None:
    stops = [{"at": 0, "color": "#000000"}, {"at": 1, "color": "#ffffff"}]
    across = _pixels(_draw(_shape(fill={"angle": 0, "stops": stops})))[40, :, 0].astype(int)
    assert across[0] < 5
    assert across[-1] > 250
    assert (np.diff(across) >= 0).all()
    down = _pixels(_draw(_shape(fill={"angle": 90, "stops": stops})))[:, 50, 0].astype(int)
    assert down[0] < 5
    assert down[-1] > 250


def test_rotation_turns_about_the_centre() -> None:
    bar = _shape(box={"width": 80, "height": 10})
    flat, turned = _draw(bar), _draw(bar | {"rotate": 90})
    assert _at(flat, 15, 40)[0] == 0
    assert _at(turned, 15, 40)[0] == 255
    assert _at(turned, 50, 5)[0] == 0


def test_a_groups_rotation_and_opacity_reach_its_children() -> None:
    bar = _shape(box={"width": 80, "height": 10})
    raster = _draw({"type": "group", "id": "g", "rotate": 90, "opacity": 0.5, "layers": [bar]})
    assert _at(raster, 50, 5) == (127, 127, 255, 255)


def test_a_shadow_lies_under_and_beside_its_layer() -> None:
    shadow = {"dx": 20, "dy": 0, "blur": 4, "color": "#000000"}
    raster = _draw(_shape(box={"left": 10, "top": 20, "width": 40, "height": 40}, shadow=shadow))
    assert _at(raster, 30, 40) == (0, 0, 255, 255)
    assert _at(raster, 62, 40)[0] < 40
    assert _at(raster, 95, 40)[0] > 250


def test_cover_crops_around_the_focus_and_contain_keeps_all() -> None:
    halves = Image.new("RGB", (200, 100), (255, 0, 0))
    halves.paste((0, 255, 0), (100, 0, 200, 100))
    stream = io.BytesIO()
    halves.save(stream, "PNG")
    assets = {"sha256:a": stream.getvalue()}
    image = {"type": "image", "id": "i", "source": "sha256:a"}
    left = _draw(image | {"focus": [0, 0.5]}, size=(50, 50), assets=assets)
    right = _draw(image | {"focus": [1, 0.5]}, size=(50, 50), assets=assets)
    assert _at(left, 25, 25) == (255, 0, 0, 255)
    assert _at(right, 25, 25) == (0, 255, 0, 255)
    kept = _draw(image | {"fit": "contain"}, size=(50, 50), assets=assets)
    assert _at(kept, 5, 25) == (255, 0, 0, 255)
    assert _at(kept, 45, 25) == (0, 255, 0, 255)
    assert _at(kept, 25, 3) == (255, 255, 255, 255)


def test_transparent_pixels_do_not_bleed_their_colour() -> None:
    assets = {"asset:a": _picture(64, 64, (0, 255, 0, 0))}
    raster = _draw({"type": "image", "id": "i", "source": "asset:a"}, assets=assets)
    assert (_pixels(raster) == 255).all()


def test_a_turned_photograph_is_drawn_upright() -> None:
    photo = Image.new("RGB", (40, 20), (255, 0, 0))
    photo.paste((0, 0, 255), (20, 0, 40, 20))
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(stream, "JPEG", exif=exif, quality=95, subsampling=0)
    image = {"type": "image", "id": "i", "source": "asset:a", "fit": "contain"}
    raster = _draw(image, size=(60, 60), assets={"asset:a": stream.getvalue()})
    assert _at(raster, 30, 5)[0] > 240
    assert _at(raster, 30, 55)[2] > 240
    assert _at(raster, 5, 30) == (255, 255, 255, 255)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_claimed_png(30000, 30000), "at most 40 megapixels"),
        (_claimed_png(7000, 6000), "at most 40 megapixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read"),
        (b"", "cannot be read"),
        (_picture(50, 50, kind="BMP"), "cannot be read"),
        (_picture(400, 400, kind="JPEG")[:-300], "damaged"),
        (_claimed_png(500, 500), "damaged"),
    ],
)
def test_bad_pictures_are_refused_with_their_layer(data: bytes, reason: str) -> None:
    with pytest.raises(RenderError, match=f"Layer 'photo' cannot be drawn: the picture .*{reason}") as caught:
        _draw({"type": "image", "id": "photo", "source": "sha256:x"}, assets={"sha256:x": data})
    assert caught.value.retryable is False


@pytest.mark.parametrize("source", ["/etc/passwd", "file:///etc/passwd", "https://example.com/a.png", "../asset:x"])
def test_paths_and_addresses_are_never_read(source: str) -> None:
    with pytest.raises(RenderError, match="is not an asset; use asset:NAME"):
        _draw({"type": "image", "id": "photo", "source": source}, assets={source: _picture(5, 5)})


def test_a_missing_asset_and_a_bad_colour_name_the_layer() -> None:
    with pytest.raises(RenderError, match="Layer 'photo' cannot be drawn: there is no asset 'asset:none'"):
        _draw({"type": "image", "id": "photo", "source": "asset:none"})
    with pytest.raises(RenderError, match=r"Layer 's' cannot be drawn: .*'1' is not a colour"):
        _draw(_shape(fill="{{ x }}"))


@pytest.mark.parametrize("size", [(0, 10), (10, 4097), (-1, 5)])
def test_sizes_out_of_bounds_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RenderError, match="is not a size; use 1 to 4096"):
        _draw(_shape(), size=size)


def test_bundled_assets_are_known_by_name_only() -> None:
    assert bundled_asset("asset:lamp")[:2] == b"\xff\xd8"
    with pytest.raises(KeyError):
        bundled_asset("asset:../1-product-spotlight")


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = ImageCache(2 * 10 * 10 * 4)
    images = [skia.Image.fromarray(np.zeros((10, 10, 4), np.uint8)) for _ in range(3)]
    cache.put("a", images[0])
    cache.put("b", images[1])
    assert cache.get("a") is images[0]
    cache.put("c", images[2])
    assert cache.get("b") is None
    assert cache.get("a") is images[0]
    assert cache.get("c") is images[2]
