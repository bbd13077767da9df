"""Pictures: header check before decoding, decoding, and high-quality scaling to the size drawn, cached.

Formats: JPEG, PNG, WebP, GIF (first frame). The pixel cap is checked on the header alone, so that a small
file that claims to be enormous costs nothing.
"""

import hashlib
import io
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from threading import Lock

from PIL import Image, ImageCms, ImageOps

from adexport.errors import RenderError
from adexport.rendering.skia_loader import skia

Assets = Callable[[str], bytes]

MOST_PIXELS = 40_000_000
_MOST = f"{MOST_PIXELS // 10**6} megapixels are read; make it smaller and upload it anew"
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_CACHE_BYTES = 40_000_000


class ImageCache:
    """Pictures by key, the least recently used leaving first, bounded in bytes; threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        """Hold at most `most_bytes` of pixels, and always the newest picture."""
        self._most_bytes = most_bytes
        self._used = 0
        self._entries: OrderedDict[Hashable, skia.Image] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> skia.Image | None:
        """The picture kept under a key, or None."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Hashable, image: skia.Image) -> None:
        """Keep a picture; one that came first under the same key stays."""
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = image
            self._used += image.width() * image.height() * 4
            while self._used > self._most_bytes and len(self._entries) > 1:
                _, old = self._entries.popitem(last=False)
                self._used -= old.width() * old.height() * 4


_scaled = ImageCache(_CACHE_BYTES)


def fetch(source: str, assets: Assets, layer: str) -> bytes:
    """The bytes of an asset. Raises RenderError when the name is not one or the asset is not there."""
    if not source.startswith(("asset:", "sha256:")):
        reason = (
            f"{source[:80]!r} is not an asset; use asset:NAME or the sha256:… of an uploaded picture, not an address"
        )
        raise RenderError(layer, reason)
    try:
        return assets(source)
    except KeyError as error:
        raise RenderError(layer, f"there is no asset {source[:80]!r}; upload it or correct the name") from error


def natural_ratio(source: str, assets: Assets, layer: str) -> float:
    """A picture's width / height by its header. Raises RenderError."""
    with _open(fetch(source, assets, layer), layer) as picture:
        width, height = picture.size
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation: a quarter turn
    return height / width if turned else width / height


def picture_for(
    source: str, assets: Assets, layer: str, size: tuple[int, int], fit: str, focus: tuple[float, float]
) -> skia.Image:
    """The picture scaled to `size` pixels: cover crops around `focus`, contain keeps all of it."""
    data = fetch(source, assets, layer)
    key = (_digest(data), size, fit, focus)
    image = _scaled.get(key)
    if image is None:
        image = _to_skia(_scale(_decode(data, size, layer), size, fit, focus))
        _scaled.put(key, image)
    return image


@lru_cache(maxsize=64)
def _digest(data: bytes) -> bytes:
    """SHA-256 of a picture's file, once for as long as the same bytes come again."""
    return hashlib.sha256(data).digest()


def _open(data: bytes, layer: str) -> Image.Image:
    """Read the header only. Raises RenderError for what is no picture or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own cap is lower
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise RenderError(layer, f"the picture is far too large; at most {_MOST}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise RenderError(layer, f"the picture cannot be read ({error}); use JPEG, PNG, WebP or GIF") from error
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise RenderError(layer, f"the picture is {width}x{height} pixels; at most {_MOST}")
    return picture


def _decode(data: bytes, size: tuple[int, int], layer: str) -> Image.Image:
    """Decode to straight RGB or RGBA in sRGB, upright."""
    picture = _open(data, layer)
    try:
        if picture.format == "JPEG":  # a JPEG decodes at half, a quarter or an eighth for a fraction of the time
            picture.draft("RGB", (size[0] * 2, size[1] * 2))
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
    except (OSError, ValueError, SyntaxError) as error:
        raise RenderError(layer, f"the picture is damaged ({error}); save it again and upload it anew") from error
    return _to_srgb(picture)


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Convert by the embedded colour profile where there is a usable one."""
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    mode = "RGBA" if transparent else "RGB"
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "RGBA", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
            return converted or picture.convert(mode)
        except ImageCms.PyCMSError:
            pass  # a broken profile is as good as none
    return picture if picture.mode == mode else picture.convert(mode)


def _scale(picture: Image.Image, size: tuple[int, int], fit: str, focus: tuple[float, float]) -> Image.Image:
    width, height = size
    if fit == "cover":
        scale = max(width / picture.width, height / picture.height)
        wide, high = width / scale, height / scale
        left, top = max(picture.width - wide, 0) * focus[0], max(picture.height - high, 0) * focus[1]
        box = (left, top, min(left + wide, picture.width), min(top + high, picture.height))
    else:
        scale = min(width / picture.width, height / picture.height)
        size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
        box = (0.0, 0.0, float(picture.width), float(picture.height))
    if picture.mode == "RGBA":  # scale with premultiplied alpha, or transparent pixels bleed their colour
        return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    return picture.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)


def _to_skia(picture: Image.Image) -> skia.Image:
    opaque = picture.mode == "RGB"
    pixels = picture.convert("RGBA").tobytes() if opaque else picture.tobytes()
    alpha = skia.AlphaType.kOpaque_AlphaType if opaque else skia.AlphaType.kPremul_AlphaType
    return skia.Image.frombytes(pixels, picture.size, skia.ColorType.kRGBA_8888_ColorType, alpha)
